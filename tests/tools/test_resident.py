#!/usr/bin/env python3
"""Resident memory of a run: the weights of a 4.5 GB checkpoint and little more."""
import os
import shutil
import subprocess
import sys
import tempfile

from command import TOOL, good

LIMIT = 64 << 20  # beyond the weights
CHILD = ("import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, "
         "stdout=subprocess.DEVNULL); "
         "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")


def check(folder):
    good("synth", "v2-lite", "--layers", 4, "--out", folder)
    weights = sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder)
                  if name.endswith(".safetensors"))
    # A process of its own, so that the largest of its children is the command and nothing else.
    done = subprocess.run([sys.executable, "-c", CHILD, TOOL, "generate", "--model", folder,
                           "--ids", "0 1 2", "--max-tokens", "4"], stdout=subprocess.PIPE, timeout=240)
    if done.returncode:
        sys.exit(f"generate on {folder}: exit {done.returncode}, its stderr is above")
    resident = int(done.stdout) * 1024
    print(f"resident {resident / 1e6:.1f} MB, weights {weights / 1e6:.1f} MB, "
          f"limit weights + {LIMIT / 1e6:.1f} MB")
    return resident <= weights + LIMIT


def start():
    build = os.getcwd()  # Meson runs a test in the build folder
    if shutil.disk_usage(build).free < 8e9:
        print("SKIP: less than 8 GB of disk are free")
        return 77
    with tempfile.TemporaryDirectory(prefix="moehal-resident-", dir=build) as folder:
        return 0 if check(os.path.join(folder, "model")) else 1


if __name__ == "__main__":
    sys.exit(start())
