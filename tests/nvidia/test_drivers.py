#!/usr/bin/env python3
"""A driver library that is absent, no library, too little, too old, a stub, or without a GPU: the
backend is listed with the reason in words, and the rest of `moehal devices` works.

usage: test_drivers.py MOEHAL BACKENDS LITTLE LAME_1 LAME_2 LAME_3 LAME_4
"""
import os
import pathlib
import subprocess
import sys


def devices(moehal, backends, driver):
    env = dict(os.environ, MOEHAL_BACKENDS=backends, MOEHAL_NVIDIA_DRIVER=driver)
    return subprocess.run([moehal, "devices"], env=env, capture_output=True, text=True, check=False)


def main():
    moehal, backends, little, no_gpu, old, stub, asked = sys.argv[1:]
    text = pathlib.Path(__file__).resolve()
    cases = [  # driver, words of the reason
        ("/nowhere/libcuda.so.1", ["/nowhere/libcuda.so.1", "cannot open"]),
        (str(text), [text.name]),
        (little, ["lacks", "cuDriverGetVersion", "cuMemAlloc_v2"]),
        (no_gpu, ["no NVIDIA GPU"]),
        (old, ["CUDA 10.2", "11.4"]),
        (stub, ["cuInit", "34", "stub library"]),
        (asked, ["no NVIDIA GPU"]),
    ]
    toolkit = pathlib.Path("/usr/local/cuda/lib64/stubs/libcuda.so")
    if toolkit.exists():
        cases.append((str(toolkit), ["cuInit", "34"]))
    bad = 0
    for driver, words in cases:
        run = devices(moehal, backends, driver)
        lines = run.stdout.splitlines()
        told = [line for line in lines if line.startswith("FAIL  nvidia")]
        missing = [word for word in words if word not in run.stdout]
        if not told or missing or not any(line.startswith("PASS  host:0") for line in lines):
            print(f"{driver}: {missing} missing in\n{run.stdout}{run.stderr}")
            bad += 1
    print(f"{len(cases)} drivers, {bad} wrong")
    sys.exit(1 if bad else 0)


main()
