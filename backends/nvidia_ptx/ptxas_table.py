#!/usr/bin/env python3
"""Assembles every kernel with ptxas for sm_80, sm_89 and sm_90 and prints the table of docs/nvidia.md:
registers, static shared memory, and how many warps the registers leave a multiprocessor. Fails if a
kernel spills or uses local memory, there or on sm_100.

usage: ptxas_table.py BUILD [PTXAS]     BUILD: where the preprocessed *.ptx lie
"""
import pathlib
import re
import subprocess
import sys

FORMATS = {"0": "", "1": "f32", "2": "f16", "3": "bf16", "4": "fp8"}
SMS = ["80", "89", "90"]
ALSO = "100"


def assemble(ptxas, path, sm):
    """{kernel: (registers, static shared bytes)} of a file for one sm."""
    run = subprocess.run([ptxas, f"-arch=sm_{sm}", "-v", str(path), "-o", "/dev/null"],
                         capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(f"{path.name}, sm_{sm}: {run.stderr.splitlines()[0]}")
    kernels = {}
    for part in re.split(r"Compiling entry function ", run.stderr)[1:]:
        name = re.search(r"'(\w+)'", part)[1]
        stack, spills = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill", part).groups()
        if int(stack) or int(spills):
            sys.exit(f"{path.name}, sm_{sm}: {name} spills {spills} bytes, stack {stack}")
        shared = re.search(r"(\d+) bytes smem", part)
        kernels[name] = int(re.search(r"Used (\d+) registers", part)[1]), int(shared[1] if shared else 0)
    return kernels


def warps(registers):
    """Of a multiprocessor with 65536 registers, given out by 256 a warp."""
    return min(64, 65536 // (-(-registers * 32 // 256) * 256))


def main():
    build = pathlib.Path(sys.argv[1])
    ptxas = sys.argv[2] if len(sys.argv) > 2 else "ptxas"
    print("| kernel | format | registers sm_80 / 89 / 90 | static shared | warps by registers, sm_90 |")
    print("|---|---|---|---|---|")
    for path in sorted(build.glob("*.ptx")):
        family, form, least = path.stem.rsplit("_", 2)
        tables = {sm: assemble(ptxas, path, sm) for sm in SMS if sm >= least}
        newest = tables[SMS[-1]]
        assemble(ptxas, path, ALSO)
        for kernel in newest:
            registers = " / ".join(str(tables[sm][kernel][0]) if sm in tables else "-" for sm in SMS)
            form_name = FORMATS[form] + (" (sm_89 form)" if least == "89" else "")
            print(f"| {kernel} | {form_name} | {registers} | {newest[kernel][1]} "
                  f"| {warps(newest[kernel][0])} |")


main()
