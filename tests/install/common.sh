# common.sh: sourced by the tests of what is installed: `. common.sh SOURCE BUILD`.
# Gives $source, $build, a folder $work that goes away with the test, and the functions below.
set -eu
source=$1
build=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

# Installs the build tree under $work/stage, and lets pkg-config find it there.
stage() {
    meson install -C "$build" --no-rebuild --quiet --destdir "$work/stage" >"$work/install.log" ||
        fail "meson install: $(cat "$work/install.log")"
    pc=$(find "$work/stage" -name moehal.pc)
    [ -n "$pc" ] || fail "meson install gave no moehal.pc"
    libdir=$(dirname "$(dirname "$pc")")
    export PKG_CONFIG_PATH="$libdir/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$work/stage"
    export LD_LIBRARY_PATH="$libdir${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    unset PKG_CONFIG_LIBDIR MOEHAL_BACKENDS MOEHAL_DEVICE
}

compile() {
    # shellcheck disable=SC2086  # the user's flags are words
    ${CC:-cc} -std=gnu11 -Wall -Wextra -pedantic -Werror ${CFLAGS-} "$@"
}

# The C program of README.md under "Embedding it", so that what people copy is what is tested.
readme_program() {
    awk '/^```c$/ { inside = 1; next } /^```$/ { inside = 0 } inside' "$source/README.md"
}

# run_readme_program PROGRAM: it prints a story of the bundled model.
run_readme_program() {
    "$1" "$source/models/fairy" >"$work/story" || fail "the program of README.md failed"
    [ "$(wc -w <"$work/story")" -ge 10 ] ||
        fail "the program of README.md printed no story but: $(cat "$work/story")"
}
