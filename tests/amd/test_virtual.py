#!/usr/bin/env python3
"""The AMD backend on the project's virtual MI300X, which runs the very machine code that hardware would:
conformance of the named op families bit for bit without a fallback or a missing cell and without a
report of the device's checks, and golden models with the host's tokens and logits, a step of which is one
graph launch of as many kernels as docs/amd.md says.

usage: test_virtual.py MOEHAL BACKENDS RUNTIME SOURCE MODELS FAMILY...    MODELS: with a comma, or none
"""
import json
import os
import subprocess
import sys


def run(moehal, env, *args):
    return subprocess.run([moehal, *args], env=env, capture_output=True, text=True, check=False)


def reported(done):
    """The first report of the device's checks, or None."""
    return next((line for line in done.stderr.splitlines() if line.startswith("virtual AMD:")), None)


def check(moehal, env, family):
    """What is wrong, in words, or None; prints the count."""
    done = run(moehal, env, "check", "--device", "amd:0", "--quick", "--json", "--filter", family + "/*")
    if reported(done):
        return "the virtual device reports: " + reported(done)
    if done.returncode not in (0, 1):
        return f"ended with {done.returncode}: {done.stderr[-500:]}"
    result = json.loads(done.stdout)
    print(f"{family}: {result['passed']} of {result['cases']}, {result['seconds']:.1f} s")
    for word in ("failed", "fallback", "missing"):
        if result[word]:
            return f"{result[word]} {word}: {done.stdout[:500]}"
    return None if result["cases"] and result["passed"] == result["cases"] else "no cases passed"


def generate(moehal, env, model, device, *more):
    # Twelve tokens are a step of sixteen rows, four of padding.
    done = run(moehal, env, "generate", "--model", model, "--ids", "0 17 4 9 2 30 5 11 6 1 3 8",
               "--max-tokens", "6", "--json", "--device", device, *more)
    if done.returncode:
        raise RuntimeError(f"{model} on {device}: {done.stderr[-500:]}")
    if reported(done):
        raise RuntimeError(f"{model}: {reported(done)}")
    return json.loads(done.stdout)


def speak(moehal, env, model):
    """What is wrong, in words, or None."""
    host = generate(moehal, env, model, "host")
    device = generate(moehal, env, model, "amd:0", "--strict")
    if any(host[key] != device[key] for key in ("token_ids", "logit_hash")):
        return f"{host} on the host, {device}"
    if not device["virtual"] or device["fallbacks"]:
        return f"virtual: {device['virtual']}, fell back: {device['fallbacks']}"
    done = run(moehal, env, "bench", "model", "--model", model, "--prefill", "0", "--decode", "1", "--rounds",
               "1", "--counters", "--json", "--device", "amd:0", "--strict")
    counters = json.loads(done.stdout)["counters"]
    with open(f"{model}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    # Embedding, head with its norm, sampling; a layer's are nine where queries have a low rank.
    step = 3 + (9 if config["q_lora_rank"] else 8) * config["num_hidden_layers"]
    if counters["launches"] != step or counters["graph_launches"] != 1:
        return f"a step is {counters['launches']} launches, not {step}, in {counters['graph_launches']} graphs"
    print(f"{os.path.basename(model)}: {device['logit_hash'][:16]}, "
          f"{counters['launches']} launches")
    return None


def main():
    moehal, backends, runtime, source, models = sys.argv[1:6]
    env = dict(os.environ, MOEHAL_BACKENDS=backends, MOEHAL_AMD_RUNTIME=runtime,
               MOEHAL_VIRTUAL_DEVICES="1")
    wrong = [(family, check(moehal, env, family)) for family in sys.argv[6:]]
    for model in [] if models == "none" else models.split(","):
        folder = "models" if model == "fairy" else "tests/data/golden"
        wrong.append((model, speak(moehal, env, f"{source}/{folder}/{model}")))
    wrong = [f"{what}: {words}" for what, words in wrong if words]
    print("\n".join(wrong))
    sys.exit(1 if wrong else 0)


main()
