#!/bin/sh
# C outside the tree, through pkg-config alone: a program on the core, a backend module built from
# the installed headers and loaded by it, and the program of README.md on the bundled model.
# usage: test_outside.sh SOURCE BUILD WITH_MODEL
. "$(dirname "$0")/common.sh"
with_model=$3
stage

cp "$source/tests/install/outside.c" "$work/outside.c"
mkdir "$work/null"
cp "$source"/backends/null/*.c "$work/null/"
cd "$work"

# shellcheck disable=SC2046  # pkg-config answers words
compile -o outside outside.c $(pkg-config --cflags --libs moehal)
# shellcheck disable=SC2046
compile -D_GNU_SOURCE -fPIC -shared -o null.so null/*.c $(pkg-config --cflags moehal-backend)
./outside "$work/null.so"

for program in "$source"/docs/examples/*.c; do
    name=$(basename "$program" .c)
    package=moehal
    if [ "$name" = model ] || [ "$name" = sequences ]; then
        [ "$with_model" = true ] || continue
        package=moehal-model
    fi
    # shellcheck disable=SC2046
    compile -o "example_$name" "$program" $(pkg-config --cflags --libs $package) -lpthread
    if [ "$name" = kernel ] || [ "$name" = events ]; then # they want a GPU, and say so
        status=0
        "./example_$name" host >said || status=$?
        [ "$status" = 77 ] || fail "docs/examples/$name.c on the host: $status: $(cat said)"
        continue
    fi
    "./example_$name" "$source/models/fairy" >said || fail "docs/examples/$name.c failed: $(cat said)"
done

if [ "$with_model" = true ]; then
    readme_program >readme.c
    # shellcheck disable=SC2046
    compile -o readme readme.c $(pkg-config --cflags --libs moehal-model)
    run_readme_program ./readme
fi
