#!/bin/sh
# What `meson install` gives: libraries, headers, pkg-config files, modules, the command, its page.
# usage: test_installed.sh SOURCE BUILD WITH_MODEL
. "$(dirname "$0")/common.sh"
with_model=$3
stage

packages="moehal moehal-backend"
[ "$with_model" = false ] || packages="$packages moehal-model"
version=$(sed -n "s/^ *version: '\(.*\)',$/\1/p" "$source/meson.build" | head -n 1)
for package in $packages; do
    [ "$(pkg-config --modversion "$package")" = "$version" ] ||
        fail "pkg-config --modversion $package is not $version"
done

# Every public header of the tree is installed, under its own name, and nothing else is.
for room in hal:moehal model:moehal-model; do
    folder=${room#*:}
    include=$source/${room%:*}/include/$folder
    [ -d "$include" ] || continue
    (cd "$include" && find . -type f | sort) >"$work/wanted"
    installed=$(find "$work/stage" -path "*/include/$folder" -type d)
    if [ -n "$installed" ]; then
        (cd "$installed" && find . -type f | sort) >"$work/found"
    else
        : >"$work/found"
    fi
    diff -u "$work/wanted" "$work/found" >&2 ||
        fail "include/$folder: the headers of the tree (-) are not those installed (+)"
done

backends=$(pkg-config --variable=backenddir moehal-backend)
[ "$backends" = "$libdir/moehal/backends" ] ||
    fail "backenddir is '$backends', not the folder beside the library: $libdir/moehal/backends"
for module in "$backends"/*; do
    [ -e "$module" ] || continue
    python3 "$source/tests/install/exports.py" "$module" --only mh_backend_entry
    if readelf -d "$module" | grep -q 'NEEDED.*moehal'; then
        fail "$module: a module links with nothing of moehal"
    fi
done
for backend in "$source"/backends/*/meson.build; do
    name=$(basename "$(dirname "$backend")")
    if [ "$name" = null ] && [ ! -e "$backends/moehal_null.so" ]; then
        fail "$backends/moehal_null.so: not installed"
    fi
done

if [ -e "$source/tools/moehal.c" ]; then
    command=$(find "$work/stage" -path '*/bin/moehal')
    [ -x "$command" ] || fail "bin/moehal: not installed"
    "$command" --help >/dev/null || fail "the installed moehal --help failed"
fi
find "$work/stage" -path '*/man1/moehal.1*' | grep -q . || fail "man1/moehal.1: not installed"
