# debian.sh: sourced by quickstart and check. Says what a command needs, and installs what is
# missing with Debian's own packages; never touches the network when nothing is missing.
#
#   need PACKAGE "why"   notes a package
#   install_needed       installs the missing ones; returns 1, having said so, where it cannot

needed_packages=()
declare -A needed_because=()

if [ -t 1 ]; then
    bold=$'\033[1m' plain=$'\033[0m'
else
    bold='' plain=''
fi

say() {
    printf '%s\n' "$*"
}

step() {
    printf '%s==> %s%s\n' "$bold" "$*" "$plain"
}

complain() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
}

need() {
    needed_packages+=("$1")
    needed_because[$1]=$2
}

package_is_installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Runs a command. On a terminal its output is the progress; elsewhere it is kept in a log that is
# shown only if the command fails.
run_logged() {
    if [ -t 1 ]; then
        "$@"
        return
    fi
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 || status=$?
    if [ "$status" -ne 0 ]; then
        cat "$log" >&2
    fi
    rm -f "$log"
    return "$status"
}

install_needed() {
    local package missing=() as_root=()
    if ! command -v dpkg-query >/dev/null; then
        say "This is not Debian: not installing anything. Needed, by their Debian names:"
        say "  ${needed_packages[*]}"
        return 0
    fi
    for package in "${needed_packages[@]}"; do
        package_is_installed "$package" || missing+=("$package")
    done
    if [ "${#missing[@]}" -eq 0 ]; then
        return 0
    fi

    step "Installing from Debian"
    for package in "${missing[@]}"; do
        printf '    %-16s %s\n' "$package" "${needed_because[$package]}"
    done
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            complain "not root and no sudo here; as root, run: apt-get install ${missing[*]}"
            return 1
        fi
        as_root=(sudo)
    fi
    as_root+=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0)
    # A machine's package lists may be old or, in a fresh container, absent.
    run_logged "${as_root[@]}" update || say "    (apt-get update failed: trying the lists at hand)"
    if ! run_logged "${as_root[@]}" install -y --no-install-recommends "${missing[@]}"; then
        complain "apt-get install ${missing[*]} failed, see above"
        return 1
    fi
}

need_to_build() {
    need gcc "compiles the library"
    need libc6-dev "the C library's headers"
    need meson "configures the build"
    need ninja-build "runs the build"
    need pkg-config "finds the libraries below"
    need libjansson-dev "reads JSON: config.json, tokenizer.json, safetensors headers"
    need libpcre2-dev "runs the tokenizer's patterns"
    need libmd-dev "SHA-256, for the hash over the logits"
}
