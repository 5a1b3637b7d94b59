#!/usr/bin/env python3
"""Debian's own HIP runtime on a machine without an AMD GPU: the backend is listed, with that reason.

usage: test_real_runtime.py MOEHAL BACKENDS
"""
import ctypes
import os
import subprocess
import sys

RUNTIME = "libamdhip64.so.5"


def main():
    try:
        count = ctypes.c_int()
        error = ctypes.CDLL(RUNTIME).hipGetDeviceCount(ctypes.byref(count))
    except OSError as reason:
        print(f"SKIP: {reason} (Debian: libamdhip64-5)")
        sys.exit(77)
    if not error and count.value:
        print("SKIP: there is an AMD GPU")
        sys.exit(77)
    env = dict(os.environ, MOEHAL_BACKENDS=sys.argv[2], MOEHAL_AMD_RUNTIME=RUNTIME)
    done = subprocess.run([sys.argv[1], "devices"], env=env, capture_output=True, text=True, check=False)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "no AMD GPU" in line]
    print("\n".join(said))
    sys.exit(0 if said and RUNTIME in said[0] else 1)


main()
