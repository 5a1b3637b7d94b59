#!/usr/bin/env python3
"""Every function of driver.def fails once, some later too; a GPU breaks in the middle; memory ends. Each
time the command either gives the host's tokens and
logits, or ends with status 1 and a reason; it never crashes, hangs, or gives another result.

usage: test_driver_faults.py MOEHAL BACKENDS DRIVER SOURCE
"""
import json
import os
import pathlib
import re
import subprocess
import sys

def generate(moehal, env, model, device):
    return subprocess.run([moehal, "generate", "--model", model, "--ids", "0 17 4", "--max-tokens",
                           "1", "--json", "--strict", "--device", device],
                          env=env, capture_output=True, text=True, check=False, timeout=120)


def main():
    moehal, backends, driver, source = sys.argv[1:]
    model = f"{source}/tests/data/golden/v2-lite"
    env = dict(os.environ, MOEHAL_BACKENDS=backends, MOEHAL_NVIDIA_DRIVER=driver,
               MOEHAL_VIRTUAL_DEVICES="1", MOEHAL_VIRTUAL_CHECKS="none")
    want = json.loads(generate(moehal, env, model, "host").stdout)["logit_hash"]
    text = (pathlib.Path(source) / "backends/nvidia_ptx/driver.def").read_text()
    names = re.findall(r'^SYMBOL\(\w+, \w+, \w+, "(\w+?)(?:_v2)?"', text, re.M)
    faults = [f"fail:{name}:1" for name in names]
    faults += [f"fail:{name}:7" for name in names if re.search("LaunchK|Alloc|Memcpy|Record", name)]
    faults += ["ecc:5", "lost:5"]
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
    # Those that undo, that have a substitute or are not called here cannot be told.
    sys.exit(1 if bad or failed < len(names) / 3 else 0)


main()
