#!/usr/bin/env python3
"""The AMD backend on the project's virtual MI300X, which runs the very machine code that hardware would:
conformance of its ops bit for bit, a golden model with the host's tokens and logits, the other ops by
fallback, counted; the runtime's failures in words.

usage: test_virtual.py MOEHAL BACKENDS RUNTIME SOURCE MODEL OP...
"""
import json
import os
import subprocess
import sys


def run(moehal, env, *args):
    return subprocess.run([moehal, *args], env=env, capture_output=True, text=True, check=False)


def check(moehal, env, op):
    """What is wrong, in words, or None; prints the count."""
    done = run(moehal, env, "check", "--device", "amd:0", "--quick", "--json", "--filter", op + "/*")
    reports = [line for line in done.stderr.splitlines() if line.startswith("virtual AMD:")]
    if reports:
        return "the virtual device reports: " + reports[0]
    if done.returncode not in (0, 1):
        return f"ended with {done.returncode}: {done.stderr[-500:]}"
    result = json.loads(done.stdout)
    print(f"{op}: {result['passed']} of {result['cases']}, {result['seconds']:.1f} s")
    for word in ("failed", "fallback", "missing"):
        if result[word]:
            return f"{result[word]} {word}: {done.stdout[:500]}"
    return None if result["cases"] and result["passed"] == result["cases"] else "no cases passed"


def generate(moehal, env, model, device, *more):
    done = run(moehal, env, "generate", "--model", model, "--ids", "0 17 4", "--max-tokens", "6",
               "--json", "--device", device, *more)
    if done.returncode:
        raise RuntimeError(f"{model} on {device}: {done.stderr[-500:]}")
    return json.loads(done.stdout)


def model_speaks(moehal, env, model):
    host = generate(moehal, env, model, "host")
    device = generate(moehal, env, model, "amd:0", "--virtual")
    print(f"{os.path.basename(model)}: {device['logit_hash'][:16]}, fell back: {device['fallbacks']}")
    if any(host[key] != device[key] for key in ("token_ids", "logit_hash")):
        return f"{host} on the host, {device}"
    if not device["virtual"]:
        return "the device is not called virtual"
    if not device["fallbacks"] or any(op in device["fallbacks"] for op in ("linear", "linear_add")):
        return f"fallbacks: {device['fallbacks']}"
    return None


def failures_in_words(moehal, env):
    """A runtime that is not there; a launch that fails."""
    done = run(moehal, dict(env, MOEHAL_AMD_RUNTIME="/no/such/runtime.so"), "devices")
    if "/no/such/runtime.so" not in done.stdout + done.stderr:
        return "an absent runtime is not named: " + done.stdout + done.stderr
    done = run(moehal, dict(env, MOEHAL_VIRTUAL_FAULTS="fail:hipModuleLaunchKernel:1:719"), "check",
               "--device", "amd:0", "--quick", "--filter", "linear/*")
    if done.returncode == 0 or "hipModuleLaunchKernel" not in done.stdout + done.stderr:
        return "a failing launch is not named: " + (done.stdout + done.stderr)[-500:]
    return None


def main():
    moehal, backends, runtime, source, model = sys.argv[1:6]
    env = dict(os.environ, MOEHAL_BACKENDS=backends, MOEHAL_AMD_RUNTIME=runtime,
               MOEHAL_VIRTUAL_DEVICES="1")
    bad = 0
    results = [(op, check(moehal, env, op)) for op in sys.argv[6:]]
    results.append((model, model_speaks(moehal, env, f"{source}/tests/data/golden/{model}")))
    results.append(("failures", failures_in_words(moehal, env)))
    for what, wrong in results:
        if wrong:
            print(f"{what}: {wrong}")
            bad += 1
    sys.exit(1 if bad else 0)


main()
