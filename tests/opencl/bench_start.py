#!/usr/bin/env python3
"""How long an OpenCL device takes to start, in both forms, with caches that are empty at first (the driver's own too,
where we know how to name it: PoCL's):

- building all programs, those of the four weight formats included, median of 3, against 5 s: the time in
  clBuildProgram;
- the first token of the bundled model, for which its kernels are compiled and checked, median of 3; the
  processor's time with what is compiled once more for the cache;
- the first token with warm caches, median of 11, against 400 ms.

usage: bench_start.py MOEHAL ROOT NULL-DIR OPENCL-DIR FAULTY
"""
import os
import resource
import statistics
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tools"))
from command import MODULES, generate, good

FAULTY = sys.argv[5]


def processor_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def start(form, folder):
    """First token and the processor's time, in seconds."""
    before = processor_seconds()
    told = generate("--device", "opencl:0", "--strict", "--prompt", "Once upon a time", "--max-tokens", 1,
                    env={"MOEHAL_BACKENDS": MODULES, "MOEHAL_OPENCL_FORM": form, "MOEHAL_CACHE": folder,
                         "POCL_CACHE_DIR": folder})
    return told["first_token_ms"] / 1000, processor_seconds() - before


def build(form, folder):
    """Programs that were built, how long that took, and the processor's time, in seconds."""
    times = os.path.join(folder, "builds")
    good("check", "--device", "opencl:0", "--quick", "--filter", "linear/*",
         env={"MOEHAL_BACKENDS": MODULES, "MOEHAL_OPENCL_FORM": form, "MOEHAL_CACHE": "off", "POCL_CACHE_DIR": folder,
              "MOEHAL_OPENCL": FAULTY, "FAULTY_BUILDS": times})
    with open(times, encoding="utf-8") as file:
        count, took, processor = map(int, file.read().split())
    return count, took / 1000, processor / 1000


for form in ("cpu", "gpu"):
    builds = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            builds.append(build(form, folder))
    print(f"{form}: {builds[0][0]} programs built in {statistics.median(b[1] for b in builds):.2f} s, "
          f"processor {statistics.median(b[2] for b in builds):.2f} s (target 5 s)")
    colds = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            colds.append(start(form, folder))
            warm = [start(form, folder)[0] for _ in range(12)][1:]
    print(f"{form}: first token, warm caches: median {1000 * statistics.median(warm):.0f} ms, "
          f"{1000 * min(warm):.0f} to {1000 * max(warm):.0f} ms (target 400 ms)")
    print(f"{form}: first token, empty caches: median {statistics.median(c[0] for c in colds):.2f} s, "
          f"processor {statistics.median(c[1] for c in colds):.2f} s with writing the cache")
