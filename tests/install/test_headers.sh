#!/bin/sh
# Every installed header stands alone: in C11 or in C++17, pedantically, and included twice.
# usage: test_headers.sh SOURCE BUILD c|c++
. "$(dirname "$0")/common.sh"
language=$3
case $language in
c) compiler="${CC:-cc} -std=c11 -Wstrict-prototypes" ;;
c++) compiler="${CXX:-g++} -std=c++17" ;;
esac
if ! command -v "${compiler%% *}" >/dev/null; then
    echo "SKIP: no compiler ${compiler%% *}"
    exit 77
fi
stage

include=$(pkg-config --cflags moehal)
include=${include#-I}
include=${include%% *}
count=0
bad=0
for header in $(cd "$include" && find moehal moehal-model -name '*.h' 2>/dev/null | sort); do
    count=$((count + 1))
    printf '#include <%s>\n#include <%s>\n' "$header" "$header" |
        $compiler -pedantic -Wall -Wextra -Wundef -Werror -fsyntax-only -I"$include" \
            -x "$language" - ||
        bad=$((bad + 1))
done
[ "$count" -gt 0 ] || fail "$include: no headers"
[ "$bad" -eq 0 ] || fail "$bad of $count headers do not compile alone"
echo "$count headers"
