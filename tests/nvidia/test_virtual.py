#!/usr/bin/env python3
"""The NVIDIA backend on the project's virtual GPU, which runs the very PTX that hardware would:
conformance of the named op families bit for bit without a fallback or a missing cell and without a
report of the device's checks, and golden models with the host's tokens and logits. The family `fast` is
what the suite has for the fast profile, `fast/NAME` one case of it.

usage: test_virtual.py MOEHAL BACKENDS DRIVER SOURCE MODELS FAMILY...    MODELS: with a comma, or none
"""
import json
import os
import subprocess
import sys

# Families whose blocks meet in global memory; looking for races there costs others half their time again.
MEET = ("attention", "attention_part", "fast", "norm_router", "router", "router_linear", "sample")


def run(moehal, env, *args):
    done = subprocess.run([moehal, *args], env=env, capture_output=True, text=True, check=False)
    return done


def check(moehal, env, family):
    """What is wrong, in words, or None; prints the count."""
    fast = family.startswith("fast")
    cases = ["--profile", "fast"] if fast else ["--quick"]
    cases += [] if family == "fast" else ["--filter", family + ("" if fast else "/*")]
    meet = family.split("/")[0] in MEET
    env = dict(env, MOEHAL_VIRTUAL_CHECKS="default" + (",global-races" if meet else ""))
    done = run(moehal, env, "check", "--device", "nvidia:0", "--json", *cases)
    reports = [line for line in done.stderr.splitlines() if line.startswith("virtual NVIDIA:")]
    if reports:
        return "the virtual device reports: " + reports[0]
    if done.returncode not in (0, 1):
        return f"ended with {done.returncode}: {done.stderr[-500:]}"
    result = json.loads(done.stdout)
    print(f"{family}: {result['passed']} of {result['cases']}, {result['seconds']:.1f} s")
    for word in ("failed", "fallback", "missing"):
        if result[word]:
            return f"{result[word]} {word}: {done.stdout[:500]}"
    return None if result["cases"] and result["passed"] == result["cases"] else "no cases passed"


def generate(moehal, env, source, model, device, *more):
    # Twelve tokens are a step of sixteen rows, four of padding.
    done = run(moehal, env, "generate", "--model", f"{source}/tests/data/golden/{model}", "--ids",
               "0 17 4 9 2 30 5 11 6 1 3 8", "--max-tokens", "6", "--json", "--device", device, *more)
    if done.returncode or "virtual NVIDIA:" in done.stderr:
        raise RuntimeError(f"{model} on {device}: {done.stderr[-500:]}")
    return json.loads(done.stdout)


def main():
    moehal, backends, driver, source, models = sys.argv[1:6]
    env = dict(os.environ, MOEHAL_BACKENDS=backends, MOEHAL_NVIDIA_DRIVER=driver,
               MOEHAL_VIRTUAL_DEVICES="1")
    bad = 0
    for family in sys.argv[6:]:
        wrong = check(moehal, env, family)
        if wrong:
            print(f"{family}: {wrong}")
            bad += 1
    for model in [] if models == "none" else models.split(","):
        host = generate(moehal, env, source, model, "host")
        device = generate(moehal, env, source, model, "nvidia:0", "--strict")
        same = all(host[key] == device[key] for key in ("token_ids", "logit_hash"))
        if not same or not device["virtual"] or device["fallbacks"]:
            print(f"{model}: {host} on the host, {device}")
            bad += 1
        else:
            print(f"{model}: {device['logit_hash'][:16]}, {device['launches_per_token']} launches")
    sys.exit(1 if bad else 0)


main()
