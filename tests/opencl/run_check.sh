#!/bin/sh
# `moehal check` on the first OpenCL device, in one form of the kernels; 77, skipped, where no driver is.
# usage: run_check.sh MOEHAL cpu|gpu OPTION...
moehal=$1
export MOEHAL_OPENCL_FORM=$2
shift 2
if ! "$moehal" devices 2>/dev/null | grep -q '^PASS  opencl:0'; then
    echo "SKIP: no OpenCL device here:"
    "$moehal" devices 2>&1 | grep -A1 opencl
    exit 77
fi
exec "$moehal" check --device opencl:0 "$@"
