#!/usr/bin/env python3
"""Every function of runtime.def fails once, some later too; a GPU breaks in the middle; memory ends; there
is no runtime, or no GPU. Each time the command either gives the host's tokens and logits, or ends with a
reason that names the function; it never crashes, hangs, or gives another result. The runtime is found by
each of its names.

usage: test_runtime_faults.py MOEHAL BACKENDS RUNTIME SOURCE
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile


# What no start and no step does without.
NEEDED = {"hip" + name for name in (
    "Init RuntimeGetVersion GetDeviceCount GetDevice Malloc MemcpyAsync Memset StreamCreateWithFlags "
    "EventCreateWithFlags EventRecord EventSynchronize ModuleLoadData ModuleGetFunction GraphCreate "
    "GraphAddKernelNode GraphInstantiate GraphLaunch").split()}


def generate(moehal, env, model, device):
    return subprocess.run([moehal, "generate", "--model", model, "--ids", "0 17 4", "--max-tokens",
                           "1", "--json", "--strict", "--device", device],
                          env=env, capture_output=True, text=True, check=False, timeout=120)


def wrong_with(run, want):
    """What is wrong, in words, or None; and whether the fault was told."""
    if run.returncode == 0:
        return (None if json.loads(run.stdout)["logit_hash"] == want else "another result"), False
    if run.returncode in (1, 2) and "moehal:" in run.stderr:  # 2: no such device
        return None, True
    return f"status {run.returncode}: {run.stderr[-300:]}", False


def names_gone_wrong(moehal, env, runtime):
    """What is wrong, in words, or None: the first names that a runtime may have are of empty files."""
    names = ["libamdhip64.so", "libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5"]
    env = {key: value for key, value in env.items() if key != "MOEHAL_AMD_RUNTIME"}
    for broken in range(len(names) + 1):
        with tempfile.TemporaryDirectory() as folder:
            for name in names[:broken]:
                pathlib.Path(folder, name).touch()
            for name in names[broken:broken + 1]:
                pathlib.Path(folder, name).symlink_to(runtime)
            run = subprocess.run([moehal, "devices"], env=dict(env, LD_LIBRARY_PATH=folder),
                                 capture_output=True, text=True, check=False)
        words = ["amd:0", "Virtual"] if broken < len(names) else names
        if not all(word in run.stdout + run.stderr for word in words):
            return f"{names[:broken]} are empty: {run.stdout}{run.stderr}"
    return None


def main():
    moehal, backends, runtime, source = sys.argv[1:]
    model = f"{source}/tests/data/golden/v2-lite"
    env = dict(os.environ, MOEHAL_BACKENDS=backends, MOEHAL_AMD_RUNTIME=runtime,
               MOEHAL_VIRTUAL_DEVICES="1", MOEHAL_VIRTUAL_CHECKS="none")
    want = json.loads(generate(moehal, env, model, "host").stdout)["logit_hash"]
    text = (pathlib.Path(source) / "backends/amd_hip/runtime.def").read_text()
    names = [name for name in re.findall(r'^SYMBOL\(\w+, int, \w+, "(\w+)"', text, re.M)]
    faults = [f"fail:{name}:1" for name in names]
    faults += [f"fail:{name}:7" for name in names if re.search("LaunchK|Malloc|Memcpy|Record", name)]
    faults += ["ecc:5", "lost:5", "oom:1M", "oom:3M"]
    bad = told = 0
    for fault in faults:
        run = generate(moehal, dict(env, MOEHAL_VIRTUAL_FAULTS=fault), model, "amd:0")
        wrong, reason = wrong_with(run, want)
        told += reason
        name = fault.split(":")[1]
        if not wrong and reason and name in NEEDED and name not in run.stderr:
            wrong = "the reason does not name it: " + run.stderr
        if not wrong and not reason and fault.endswith(":1") and name in NEEDED:
            wrong = "it is not told"
        if wrong:
            print(f"{fault}: {wrong}", flush=True)
            bad += 1
    for change, words in (({"MOEHAL_AMD_RUNTIME": "/no/such/runtime.so"}, "/no/such/runtime.so"),
                          ({"MOEHAL_VIRTUAL_FAULTS": "fail:hipInit:1:100"}, "there is no AMD GPU")):
        run = subprocess.run([moehal, "devices"], env=dict(env, **change), capture_output=True, text=True,
                             check=False)
        if words not in run.stdout + run.stderr:
            print(f"{change}: not told: {run.stdout}{run.stderr}")
            bad += 1
    if wrong := names_gone_wrong(moehal, env, runtime):
        print(wrong)
        bad += 1
    print(f"{len(faults)} faults: {told} told, {len(faults) - told - bad} without effect, {bad} wrong")
    # Those that undo, that have a substitute or are not called here cannot be told.
    sys.exit(1 if bad or not NEEDED <= set(names) else 0)


main()
