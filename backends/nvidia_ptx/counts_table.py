#!/usr/bin/env python3
"""What the ops of a decode step ask of memory on the virtual GPU, at the real shapes of DeepSeek-V2-Lite
(bf16) and V3 (FP8), one row: prints the table of docs/nvidia.md, and fails where a count is past its
limit. Counts are exact: another run gives the same. With one row the fast profile differs in attention
alone, which is counted in both.

usage: counts_table.py MOEHAL [v2-lite] [v3]     (environment as for `moehal --virtual`)

Unique sectors: 32-byte sectors that are touched at all, over what weights, cache, inputs and outputs
come to (and attention's partial results); at most 1.05. Weights: bytes that loads ask for, less the inputs
that each block stages, over the weights' own; 1 means that each is asked for once (what it is more are
numbers of experts, which every lane looks up); at most 1.04. Coalescing: the fewest sectors that the
loads' bytes fit in, over those touched; at least 0.95. Blocks: 132 at least where the rows allow it.
Launches: one an op, so 8 or 9 a layer.
"""
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from decode_layers import ONE_LAYER, head, leave, measured, sizes


def inputs(op, fp8, d, blocks):
    """Bytes that blocks stage, and that lanes ask for scales; None: not told apart from the weights."""
    rows, scales = {
        "norm_linear": lambda: (2 * d["I"], (d["O"] + d["U"]) * d["I"]),
        "mla_qkv": lambda: (d["N"], 128 * d["H"] * d["L"]),  # a column's scale, eight times a head
        "linear_add": lambda: (d["I"], d["O"] * d["I"]),
        "head_linear": lambda: (d["B"], d["H"] * d["C"] * d["B"]),
        "norm_router": lambda: (2 * d["I"], d["E"] * d["I"]),
        "moe_gate_up": lambda: (d["D"], 2 * (d["J"] * d["I"] + d["N"]) * d["D"]),
        "moe_down_combine": lambda: (d["J"] * d["I"] + d["N"], d["D"] * (d["J"] * d["I"] + d["N"])),
    }.get(op, lambda: (None, None))()
    if rows is None:
        return None
    if op == "moe_gate_up":  # blocks of the shared experts' rows that the routed do not have leave
        tile = max(d["I"], d["N"]) * (d["J"] + 1) / blocks
        blocks = (d["J"] * d["I"] + d["N"]) / tile
    if op == "mla_qkv":  # the last two tiles of each head rotate, and write the cache
        blocks -= 2 * d["H"]
    return 4 * rows * blocks + (scales / 128 * 8 * 4 if fp8 else 0)


def partial(d, keys, blocks, profile):
    """Bytes of an attention's partial results, and how many blocks its heads and keys allow."""
    if profile == "exact":  # a head leaves its sums, maximum and columns for each segment of 256 keys
        segments = -(-keys // 256)
        return (4 * d["H"] * (d["L"] + 4) * segments if segments > 1 else 0), 132
    groups, room = -(-d["H"] // 16), d["P"] * d["M"] // 64  # of heads; tiles of keys that the cache holds
    each = -(-(-(-keys // 64)) // (blocks // groups))
    parts = -(-keys // (64 * each))
    return (4 * groups * 16 * (d["L"] + 2) * parts if parts > 1 else 0), min(132, groups * room)


def main():
    moehal, models = sys.argv[1], sys.argv[2:] or list(ONE_LAYER)
    bad = []
    head("part of a layer | op | case | launches | blocks | least MB | unique sectors / least "
         "| weights asked for | all loads MB | coalescing")
    for model in models:
        layer = [(*row, "exact") for row in ONE_LAYER[model]]
        for part, op, shape, variant, profile in layer + [(*row[:4], "fast") for row in layer
                                                          if row[1] == "attention"]:
            r = measured(moehal, "nvidia:0", op, shape, variant, profile)
            c, fp8 = r["counters"], shape.startswith("fp8")
            d = sizes(shape)
            least, blocks = r["bytes"], 0 if op == "norm_router" else 132  # whose rows are too few
            if op == "attention":
                keys = round(r["flop"] / (2 * d["H"] * (2 * d["L"] + d["R"])))
                left, blocks = partial(d, keys, c["blocks"], profile)
                least += left
                part += f", {keys} keys" + (", fast" if profile == "fast" else "")
            unique = 32 * c["unique_sectors"] / least
            coalescing = min(1, c["ideal_load_sectors"] / c["load_sectors"])
            beside = inputs(op, fp8, d, c["blocks"])
            # The scales are among the weights' bytes once.
            once = None if beside is None else (
                c["load_bytes"] - beside + (r["weight_bytes"] * 4 / 16388 if fp8 else 0)) / r["weight_bytes"]
            print(f"| {model}: {part} | {op} | {shape} | {c['launches']} | {c['blocks']} "
                  f"| {least / 1e6:.2f} | {unique:.4f} | {'-' if once is None else f'{once:.4f}'} "
                  f"| {c['load_bytes'] / 1e6:.2f} | {coalescing:.3f} |", flush=True)
            if unique > 1.05 or coalescing < 0.95 or c["launches"] != 1:
                bad.append(f"{op} {shape}: unique {unique}, coalescing {coalescing}, {c['launches']} launches")
            if once and not 0.99 < once < 1.04:
                bad.append(f"{op} {shape}: weights are asked for {once} times")
            if c["blocks"] < blocks:
                bad.append(f"{op} {shape}: {c['blocks']} blocks")
    leave(bad)


main()
