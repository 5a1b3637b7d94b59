#!/bin/sh
# Loaders and drivers that are not there, broken or empty: listed with the reason, and the host runs.
# usage: test_icd.sh MOEHAL MODULES MODEL EMPTY-ICD
set -u
moehal=$1 model=$3 empty=$4
export MOEHAL_BACKENDS="$2" MOEHAL_CACHE=off
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failed=0

# expect NAME TEXT...: `moehal devices` shows every text, and generate with auto still speaks.
expect() {
    name=$1
    shift
    out=$("$moehal" devices 2>&1)
    for text in "$@"; do
        case $out in
        *"$text"*) ;;
        *)
            echo "FAIL $name: no '$text' in:"
            echo "$out"
            failed=1
            ;;
        esac
    done
    words=$("$moehal" generate --model "$model" --prompt "Once upon a time" --max-tokens 4 2>/dev/null)
    case $words in
    "Once upon a time there"*) echo "ok   $name" ;;
    *)
        echo "FAIL $name: the host says '$words'"
        failed=1
        ;;
    esac
}

MOEHAL_OPENCL=libNoSuchOpenCL.so.1
export MOEHAL_OPENCL
expect "no loader" opencl "libNoSuchOpenCL.so.1: cannot open shared object file" host:0
MOEHAL_OPENCL=libm.so.6
expect "a library that is no loader" "libm.so.6 lacks clGetPlatformIDs, clGetPlatformInfo"
unset MOEHAL_OPENCL

loader=$(ldconfig -p 2>/dev/null | grep -c 'libOpenCL\.so\.1 ')
if [ "$loader" = 0 ]; then
    echo "SKIP: no libOpenCL.so.1 here: only its absence was tested"
    exit $((failed ? 1 : 77))
fi
export OCL_ICD_VENDORS="$dir"
expect "no driver" "libOpenCL.so.1 knows no platform" "$dir holds no .icd file"
echo libNoSuchDriver.so.9 >"$dir/broken.icd"
expect "a broken driver" "broken.icd: libNoSuchDriver.so.9: cannot open shared object file"
: >"$dir/broken.icd"
expect "an empty file" "broken.icd: it names no library"
rm "$dir/broken.icd"
if [ -f "$empty" ]; then
    echo "$empty" >"$dir/empty.icd"
    expect "a driver without devices" "opencl:0" "A driver without devices" \
        "its driver offers no device"
fi
exit $failed
