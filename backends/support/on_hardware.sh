#!/bin/sh
# Everything that is to be known of a GPU, on the day there is one: the doctor, conformance exact and fast,
# golden models against the host, single ops and a model timed.
#
# usage: on_hardware.sh DEVICE BUILD [OPTION...]     DEVICE: nvidia:0, say; OPTIONs go to every command:
#                                                    --virtual tries it without a GPU
# Exit status: the number of steps that failed.
device=$1 build=$2
shift 2
source=$(dirname "$0")/../..
moehal=$build/tools/moehal
failed=0

step() {
    echo "== $*"
    "$@" || { failed=$((failed + 1)); echo "FAILED: $*"; }
}

hash() {
    "$moehal" generate --ids "0 17 4" --max-tokens 16 --json "$@" | grep -o '"logit_hash": *"[^"]*"'
}

same_as_host() {
    model=$1
    shift
    here=$(hash --model "$model" --device "$device" --strict "$@")
    echo "$here"
    [ -n "$here" ] && [ "$here" = "$(hash --model "$model" --device host)" ]
}

step "$moehal" devices "$@"
step "$moehal" check --device "$device" --quick "$@"
step "$moehal" check --device "$device" --profile fast "$@"
for model in models/fairy tests/data/golden/v2-lite tests/data/golden/v2 tests/data/golden/v3 \
    tests/data/golden/v3-fp8 tests/data/golden/moonlight; do
    step same_as_host "$source/$model" "$@"
done
for shape in v2-lite v3; do
    for op in linear linear_add linear_swiglu experts_gate_up experts_down_combine attention; do
        step "$moehal" bench op $op --shape $shape --device "$device" "$@"
    done
done
for shape in bf16/T2048.O7168.I2048 fp8/T2048.O7168.I2048; do
    step "$moehal" bench op linear --shape $shape --profile fast --device "$device" "$@"
done
step "$moehal" synth v2-lite --layers 6 --out "$build/v2-lite-6"
for profile in exact fast; do
    step "$moehal" bench model --model "$build/v2-lite-6" --prefill 512 --decode 64 --strict \
        --profile $profile --device "$device" "$@"
done
echo "$failed steps failed"
exit $failed
