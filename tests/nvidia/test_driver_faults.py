#!/usr/bin/env python3
"""Every function of driver.def fails once, at its first call and at a later one; a GPU breaks in the
middle; memory ends. Each time the command either gives the host's tokens and
logits, or ends with status 1 and a reason; it never crashes, hangs, or gives another result.

usage: test_driver_faults.py MOEHAL BACKENDS DRIVER SOURCE
"""
import json
import os
import pathlib
import re
import subprocess
import sys

# Their failing is not a failure of the command: they undo, ask what has an answer without them, or
# say in words what failed.
QUIET = {"cuGetErrorName", "cuGetErrorString", "cuDeviceGetUuid", "cuStreamGetCtx",
         "cuCtxPopCurrent_v2", "cuCtxDestroy_v2", "cuMemFree_v2", "cuMemFreeHost",
         "cuStreamDestroy_v2", "cuEventDestroy_v2", "cuModuleUnload", "cuGraphDestroy",
         "cuGraphExecDestroy"}


def generate(moehal, env, model, device):
    return subprocess.run([moehal, "generate", "--model", model, "--ids", "0 17 4", "--max-tokens",
                           "3", "--json", "--strict", "--device", device],
                          env=env, capture_output=True, text=True, check=False, timeout=120)


def main():
    moehal, backends, driver, source = sys.argv[1:]
    model = f"{source}/tests/data/golden/v2-lite"
    env = dict(os.environ, MOEHAL_BACKENDS=backends, MOEHAL_NVIDIA_DRIVER=driver,
               MOEHAL_VIRTUAL_DEVICES="1", MOEHAL_VIRTUAL_CHECKS="none")
    want = json.loads(generate(moehal, env, model, "host").stdout)["logit_hash"]
    text = (pathlib.Path(source) / "backends/nvidia_ptx/driver.def").read_text()
    names = re.findall(r'^SYMBOL\(\w+, \w+, \w+, "(\w+)"', text, re.M)
    faults = [f"fail:{name}:{nth}" for name in names for nth in (1, 3)]
    faults += [f"fail:{name}:2:2" for name in names if "Alloc" in name]  # 2: out of memory
    faults += [f"{kind}:{nth}" for kind in ("ecc", "lost") for nth in (1, 40)]
    faults += ["oom:1M", "oom:3M"]
    bad = failed = 0
    for fault in faults:
        run = generate(moehal, dict(env, MOEHAL_VIRTUAL_FAULTS=fault), model, "nvidia:0")
        wrong = None
        if run.returncode == 0:
            if json.loads(run.stdout)["logit_hash"] != want:
                wrong = "another result"
        elif run.returncode == 1 and "moehal:" in run.stderr:
            failed += 1
        elif run.returncode == 2 and "moehal:" in run.stderr:  # no such device
            failed += 1
        else:
            wrong = f"status {run.returncode}: {run.stderr[-300:]}"
        if wrong:
            print(f"{fault}: {wrong}", flush=True)
            bad += 1
    print(f"{len(faults)} faults: {failed} told, {len(faults) - failed - bad} without effect, {bad} wrong")
    sys.exit(1 if bad or failed < len(names) - len(QUIET) else 0)


main()
