#!/bin/sh
# A static build: -Ddefault_library=static, installed under a prefix, linked by pkg-config --static;
# the programs then need no library of moehal. The build folder stays: a second run is quick.
# usage: test_static.sh SOURCE BUILD WITH_MODEL
. "$(dirname "$0")/common.sh"
with_model=$3
prefix=$build/tests/install/static-prefix
static=$build/tests/install/static-build

quietly() {
    "$@" >"$work/log" 2>&1 || fail "$*: $(cat "$work/log")"
}

[ -f "$static/build.ninja" ] ||
    quietly meson setup "$static" "$source" --prefix "$prefix" -Ddefault_library=static \
        -Dtests=false -Doptimization=0 -Damd_code="$build/backends/amd_hip"
quietly ninja -C "$static"
rm -rf "$prefix"
quietly meson install -C "$static" --no-rebuild
if find "$prefix" -name 'libmoehal*.so*' | grep .; then
    fail "a static build installed shared libraries of moehal"
fi

PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name moehal.pc)")
export PKG_CONFIG_PATH
unset PKG_CONFIG_LIBDIR PKG_CONFIG_SYSROOT_DIR MOEHAL_BACKENDS MOEHAL_DEVICE

# build NAME PACKAGE: compiles $work/NAME.c to $work/NAME.
build() {
    # shellcheck disable=SC2046  # pkg-config answers words
    compile -o "$work/$1" "$work/$1.c" $(pkg-config --static --cflags --libs "$2")
    if readelf -d "$work/$1" | grep 'NEEDED.*moehal'; then
        fail "$1, linked with pkg-config --static --libs $2, needs a shared library of moehal"
    fi
}

cp "$source/tests/install/outside.c" "$work/outside.c"
build outside moehal
"$work/outside"
if [ "$with_model" = true ]; then
    readme_program >"$work/readme.c"
    build readme moehal-model
    run_readme_program "$work/readme"
fi
