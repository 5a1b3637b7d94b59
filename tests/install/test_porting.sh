#!/bin/sh
# docs/porting.md, followed from outside the tree with what is installed.
# usage: test_porting.sh SOURCE BUILD
. "$(dirname "$0")/common.sh"
stage
PATH=$(dirname "$(find "$work/stage" -path '*/bin/moehal')"):$PATH
MODEL=$source/models/fairy
export PATH MODEL
mkdir "$work/outside"
python3 "$source/tests/install/follow_guide.py" "$source/docs/porting.md" "$work/outside"

new=$(pkg-config --variable=portingdir moehal-backend)/new-backend
for name in Chip 9chip host a-b ''; do
    if "$new" "$name" "$work/none" 2>"$work/said"; then
        fail "new-backend took the name '$name'"
    fi
done
if "$new" mychip "$work/outside/mychip" 2>"$work/said"; then
    fail "new-backend wrote over what was there"
fi
