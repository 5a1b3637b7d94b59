#!/usr/bin/env python3
"""One model and the conformance suite on every backend: the table of README.md.

usage: scripts/devices_table.py BUILD [--write | --compare]

Prints the table: the tokens and the hash of all logits that models/fairy gives, kernel launches of a decode step,
bytes of memory of a decode step (the weights; as virtual GPUs count them, all that is touched), and how many
cases of `moehal check --quick` pass. --write puts it into README.md, between its marks; --compare runs all but
the suite and fails where README.md says otherwise. A device that is not there is left out.

Exit status: 0; 1 results differ between devices, a case fails, or README.md differs; 77 --compare and a device is
not there.
"""
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
MARKS = "<!-- scripts/devices_table.py build --write -->\n", "<!-- end of the table -->\n"
HEAD = ("| device | tokens | SHA-256 of the logits | launches a step | MB a token | `check --quick` |\n"
        "|---|---|---|---|---|---|\n")
DEVICES = {  # name: arguments, counter of what is touched, its bytes
    "host": (["--device", "host"], None, 0),
    "OpenCL, PoCL": (["--device", "opencl:0"], None, 0),
    "NVIDIA, virtual": (["--device", "nvidia:0", "--virtual"], "unique_sectors", 32),
    "AMD, virtual": (["--device", "amd:0", "--virtual"], "unique64", 64),
}


def moehal(build, *args, count="on"):
    backends = [str(build / "backends" / name) for name in ("nvidia_ptx", "amd_hip", "opencl")]
    env = dict(os.environ, MOEHAL_BACKENDS=":".join(backends), MOEHAL_VIRTUAL_DEVICES="1",
               MOEHAL_VIRTUAL_CHECKS="bounds", MOEHAL_VIRTUAL_COUNT=count)
    return subprocess.run([build / "tools/moehal", *args, "--json"], env=env, capture_output=True, text=True,
                          check=False)


def row(build, name, suite):
    """A line of the table and its tokens and hash; None: there is no such device."""
    device, counter, size = DEVICES[name]
    model = ["--model", str(ROOT / "models/fairy")]
    told = moehal(build, "generate", *model, "--ids", "0 17 4", "--max-tokens", "6", "--strict", *device)
    if told.returncode:
        print(f"{name}: {told.stderr.strip()}", file=sys.stderr)
        return None
    said = json.loads(told.stdout)
    step = json.loads(moehal(build, "bench", "model", *model, "--prefill", "0", "--decode", "1", "--rounds",
                             "1", "--counters", "--strict", *device).stdout)
    memory = f"{step['weight_bytes_per_token'] / 1e6:.2f}"
    if counter:
        memory += f", touched {size * step['counters'][counter] / 1e6:.2f}"
    passed = "-"
    if suite:
        check = json.loads(moehal(build, "check", "--quick", *device, count="off").stdout)
        passed = f"{check['passed']} of {check['cases']}"
    tokens = " ".join(map(str, said["token_ids"]))
    line = (f"| {name} | {tokens} | {said['logit_hash'][:16]}… | {said['launches_per_token']:.0f} in "
            f"{said['graph_launches_per_token']:.0f} graph | {memory} | {passed} |\n")
    return line, (said["token_ids"], said["logit_hash"])


def main():
    build, mode = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2] if len(sys.argv) > 2 else ""
    rows = {name: row(build, name, mode != "--compare") for name in DEVICES}
    there = {name: made for name, made in rows.items() if made}
    table = HEAD + "".join(line for line, _ in there.values())
    print(table, end="")
    bad = len({str(results) for _, results in there.values()}) != 1
    for passed, cases in re.findall(r"\| (\d+) of (\d+) \|", table):
        bad |= passed != cases
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(MARKS[0])
    old, after = rest.split(MARKS[1])
    if mode == "--write" and not bad:
        README.write_text(before + MARKS[0] + table + MARKS[1] + after, encoding="utf-8")
    if mode == "--compare":
        for line, _ in there.values():
            if not re.search(re.escape(line.rstrip("- |\n")) + r" \| (\d+) of \1 \|\n", old):
                print(f"README.md has it otherwise: {line}")
                bad = True
        if not bad and len(there) < len(DEVICES):
            sys.exit(77)
    sys.exit(bad)


main()
