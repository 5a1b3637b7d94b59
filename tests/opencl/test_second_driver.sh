#!/bin/sh
# A second, different driver: Intel's CPU runtime from PyPI, in a virtual environment of its own, with the
# golden models in both forms, strict, and graphs, which are command buffers there; or the quick conformance
# cases in both forms.
# usage: test_second_driver.sh MOEHAL ROOT OPENCL-DIR FOLDER golden|cases TEST-FOREIGN
set -u
moehal=$1 root=$2 modules=$3 dir=$4
venv=$dir/intel
mkdir -p "$dir"
if ! ls "$venv"/lib/libintelocl.so >/dev/null 2>&1; then
    if ! python3 -m venv "$venv" >"$dir/log" 2>&1 ||
        ! "$venv/bin/pip" install -q intel-opencl-rt intel-cmplr-lib-rt >>"$dir/log" 2>&1; then
        echo "SKIP: pip could not install intel-opencl-rt: $(tail -n 1 "$dir/log")"
        exit 77
    fi
fi
mkdir -p "$dir/vendors"
ls "$venv"/lib/libintelocl.so >"$dir/vendors/intel.icd" || exit 1
export OCL_ICD_VENDORS="$dir/vendors" MOEHAL_BACKENDS="$modules" MOEHAL_CACHE="$dir/cache"
"$moehal" devices | grep opencl:0 || {
    echo "SKIP: Intel's runtime does not run here: $("$moehal" devices 2>&1 | grep -A1 opencl)"
    exit 77
}
if [ "$5" = golden ]; then
    "$6" "$modules/moehal_opencl.so" || exit 1
    exec python3 "$root/tests/opencl/test_golden.py" "$moehal" "$root" - "$modules"
fi
failed=0
for form in cpu gpu; do
    MOEHAL_OPENCL_FORM=$form "$moehal" check --device opencl:0 --quick >"$dir/log.$form" 2>&1 || failed=1
    grep -m 20 ^FAIL "$dir/log.$form"
    tail -n 1 "$dir/log.$form"
done
exit $failed
