#!/usr/bin/env python3
"""Writes docs/ops.md from ops.def and op.h, so that there is no second list of ops.

usage: ops_reference.py SOURCE_ROOT [--update]     without --update: exit 1 if the page is stale
"""
import pathlib
import re
import sys

HEAD = """# The ops

Made from `moehal/ops.def` by `scripts/ops_reference.py --update`; the contracts are in `moehal/op.h`.
A letter of a shape is a size: the same letter is the same size throughout an op, T (rows) may be 0,
and the last dimension of activations is dense. Weights are `[out, in]` or banks `[slots, out, in]`, in
any format of `moehal/formats.def`. Fused ops equal their expansion bit for bit under exact.

"""
DTYPES = {"ONLY_F32": "f32", "ONLY_I32": "i32", "ONLY_U32": "u32", "F32_OR_BF16": "f32, bf16",
          "FLOATS": "f32, f16, bf16", "ANY": "any"}
ACCESS = {"OUT": "out", "OPT_OUT": "out, optional", "IN": "in", "OPT_IN": "in, optional",
          "INOUT": "in and out", "WEIGHT": "weight", "OPT_WEIGHT": "weight, optional"}


def contracts(header):
    """The comment above each struct."""
    found = {}
    for match in re.finditer(r"/\*((?:(?!\*/).)*)\*/\s*typedef struct mh_op_(\w+) \{", header, re.S):
        text = re.sub(r"\n \*\s?", " ", match.group(1)).strip()
        found[match.group(2)] = re.sub(r"\s+", " ", text).replace("|", "\\|")
    return found


def page(root):
    include = pathlib.Path(root, "hal/include/moehal")
    table = (include / "ops.def").read_text()
    table = table.replace("MH_FAULT_OPERAND(op) ", "")
    notes = contracts((include / "op.h").read_text())
    out = HEAD
    entry = re.compile(r'MH_OP\((\d+), (\w+), (\w+), (\w+), "([^"]*)",(.*?)\)\n(?=MH_OP|\n#undef)', re.S)
    for number, _, name, kind, doc, operands in entry.findall(table):
        out += f"## {number} `{name}`{' (fused)' if kind == 'FUSED' else ''}\n\n{doc[0].upper()}{doc[1:]}. "
        out += notes.get(name, "") + "\n\n| operand | access | dtype | shape |\n|---|---|---|---|\n"
        for macro, arguments in re.findall(r"MH_(\w+)\(([^)]*)\)?", operands):
            parts = [p.strip().strip('"') for p in arguments.split(",")]
            if macro == "FAULT_OPERAND":
                parts, macro = [name, "fault", "ONLY_U32", "1"], "INOUT"
            dtype = "any format" if macro.endswith("WEIGHT") else DTYPES[parts[2]]
            shape = "any" if parts[-1] == "*" else "[" + ", ".join(parts[-1]) + "]"
            out += f"| `{parts[1]}` | {ACCESS[macro]} | {dtype} | {shape} |\n"
        out += "\n"
    return out.rstrip("\n") + "\n"


def main():
    root = sys.argv[1]
    path = pathlib.Path(root, "docs/ops.md")
    wanted = page(root)
    if "--update" in sys.argv:
        path.write_text(wanted)
    elif not path.exists() or path.read_text() != wanted:
        print("docs/ops.md does not match ops.def: run scripts/ops_reference.py . --update")
        return 1
    return 0


sys.exit(main())
