#!/usr/bin/env python3
"""What the ops of a decode step ask of memory on the virtual MI300X, at the real shapes of DeepSeek-V2-Lite
(bf16) and V3 (FP8), one row: prints the table of docs/amd.md, and fails where a count is past its limit.
Counts are exact: another run gives the same.

usage: counts_table.py MOEHAL [v2-lite] [v3]     (environment as for `moehal --virtual`)

Unique segments: segments of 64 bytes that are touched at all, over what weights, cache, inputs and outputs
come to (and attention's partial results); at most 1.05. Weights: bytes that loads ask for, less the inputs
that lanes read beside them, over the weights' own; 1 means that each is asked for once; at most 1.04.
Efficiency: the fewest segments that each load's bytes fit in, over those touched; at least 0.95.
"""
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from decode_layers import ONE_LAYER, head, leave, measured, sizes

UNITS = 304  # compute units of an MI300X


def staged(rows, columns):
    """What workgroups read to norm a row each: the row and the norm. Their waves: as ops_linear.c plans."""
    waves, least = 4, 2 if columns > 4096 else 1
    while waves > least and -(-rows // (8 * waves)) < UNITS:
        waves //= 2
    return 2 * columns * -(-rows // (8 * waves))


def inputs(op, fp8, d):
    """Bytes that lanes read beside the weights: a row of inputs for each row of weights, or what workgroups
    stage, or a head's inputs for 64 columns, and a scale for eight weights; None: no weights."""
    values, weights = {
        "norm_linear": lambda: (staged(d["O"] + d["U"], d["I"]), (d["O"] + d["U"]) * d["I"]),
        "mla_qkv": lambda: (d["H"] * d["L"] // 64 * d["N"], d["H"] * d["L"] * d["N"]),
        "linear_add": lambda: 2 * (d["O"] * d["I"],),
        "head_linear": lambda: 2 * (d["H"] * d["C"] * d["B"],),
        "norm_router": lambda: (staged(d["E"], d["I"]), d["E"] * d["I"]),
        "moe_gate_up": lambda: 2 * (2 * (d["J"] * d["I"] + d["N"]) * d["D"],),
        "moe_down_combine": lambda: 2 * (d["D"] * (d["J"] * d["I"] + d["N"]),),
    }.get(op, lambda: (None, None))()
    return None if values is None else 4 * values + (weights / 8 * 4 if fp8 else 0)


def main():
    moehal, models = sys.argv[1], sys.argv[2:] or list(ONE_LAYER)
    bad = []
    head("part of a layer | op | case | launches | least MB | unique segments / least "
         "| weights asked for | all loads MB | 64-byte efficiency | LDS passes / least")
    for model in models:
        for part, op, shape, variant in ONE_LAYER[model]:
            r = measured(moehal, "amd:0", op, shape, variant, "exact")
            c, fp8 = r["counters"], shape.startswith("fp8")
            d = sizes(shape)
            least = r["bytes"]
            if op == "attention":  # a segment of 256 keys leaves its sums, maximum and columns
                keys = round(r["flop"] / (2 * d["H"] * (2 * d["L"] + d["R"])))
                least += 4 * d["H"] * (d["L"] + 4) * -(-keys // 256) if keys > 256 else 0
                part += f", {keys} keys"
            unique = 64 * c["unique64"] / least
            efficiency = min(1, c["ideal64"] / c["segments64"])
            beside = inputs(op, fp8, d)
            once = None if beside is None else (c["load_bytes"] - beside) / r["weight_bytes"]
            passes = 128 * c["lds_passes"] / c["lds_bytes"] if c["lds_bytes"] else 0
            print(f"| {model}: {part} | {op} | {shape} | {c['launches']} | {least / 1e6:.2f} "
                  f"| {unique:.4f} | {'-' if once is None else f'{once:.4f}'} "
                  f"| {c['load_bytes'] / 1e6:.2f} | {efficiency:.3f} | {passes:.2f} |", flush=True)
            if unique > 1.05 or efficiency < 0.95 or c["launches"] != 1:
                bad.append(f"{op} {shape}: unique {unique}, efficiency {efficiency}, "
                           f"{c['launches']} launches")
            if once and not 0.99 < once < 1.04:
                bad.append(f"{op} {shape}: weights are asked for {once} times")
    leave(bad)


main()
