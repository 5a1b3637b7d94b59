#!/usr/bin/env python3
"""How long an OpenCL device takes to start, in both forms: the first token of the bundled model with warm caches,
median of 11 starts, against 400 ms; and with empty ones, where all its programs are compiled and checked, median
of 3, against 5 s, with the time of the processor. The driver's own cache, where we know how to name it (PoCL), is
empty too then.

usage: bench_start.py MOEHAL ROOT NULL-DIR OPENCL-DIR
"""
import os
import resource
import statistics
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tools"))
from command import MODULES, generate


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


for form in ("cpu", "gpu"):
    colds = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            colds.append(start(form, folder))
            warm = [start(form, folder)[0] for _ in range(12)][1:]
    print(f"{form}: first token, warm caches: median {1000 * statistics.median(warm):.0f} ms, "
          f"{1000 * min(warm):.0f} to {1000 * max(warm):.0f} ms (target 400 ms)")
    print(f"{form}: first token, empty caches: median {statistics.median(c[0] for c in colds):.2f} s, "
          f"processor {statistics.median(c[1] for c in colds):.2f} s with writing the cache (target 5 s)")
