#!/usr/bin/env python3
"""Assembles every kernel with ptxas for sm_80, sm_89 and sm_90 and prints the table of docs/nvidia.md:
registers, static shared memory, and how many warps the registers leave a multiprocessor. Fails if a
kernel spills or uses local memory, there or on sm_100, or is past the budget in its file's header.

usage: ptxas_table.py BUILD [PTXAS]     BUILD: where the preprocessed *.ptx lie
"""
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys

KERNELS = pathlib.Path(__file__).resolve().parent / "kernels"
FORMATS = {"0": "", "1": "f32", "2": "f16", "3": "bf16", "4": "fp8"}
SMS = ["80", "89", "90"]
ALSO = "100"


def budgets():
    """{kernel: (most registers, static shared bytes)}: "// Budget: NAME REGISTERS [+ BYTES], ..." """
    found = {}
    for path in KERNELS.glob("*.ptx"):
        for line in re.findall(r"^// Budget: (.*(?:\n//    .*)*)", path.read_text(), re.M):
            for name, registers, shared in re.findall(r"(\w+) (\d+)(?: \+ (\d+))?", line):
                found[name] = int(registers), int(shared or 0)
    return found


def assemble(ptxas, path, sm):
    """({kernel: (registers, static shared bytes)}, what is wrong or None) of a file for one sm."""
    run = subprocess.run([ptxas, f"-arch=sm_{sm}", "-v", str(path), "-o", "/dev/null"],
                         capture_output=True, text=True, check=False)
    if run.returncode:
        return {}, f"{path.name}, sm_{sm}: {run.stderr.splitlines()[0]}"
    kernels, budget = {}, budgets()
    for part in re.split(r"Compiling entry function ", run.stderr)[1:]:
        name = re.search(r"'(\w+)'", part)[1]
        stack, spills = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill", part).groups()
        if int(stack) or int(spills):
            return kernels, f"{path.name}, sm_{sm}: {name} spills {spills} bytes, stack {stack}"
        shared = re.search(r"(\d+) bytes smem", part)
        used = int(re.search(r"Used (\d+) registers", part)[1]), int(shared[1] if shared else 0)
        kernels[name] = used
        if name not in budget or used[0] > budget[name][0] or used[1] != budget[name][1]:
            return kernels, (f"{path.name}, sm_{sm}: {name} has {used[0]} registers and {used[1]} bytes, "
                             f"its budget is {budget.get(name)}")
    return kernels, None


def assemble_all(ptxas, jobs):
    """What assemble says of each (path, sm)."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda job: assemble(ptxas, *job), jobs))


def warps(registers):
    """Of a multiprocessor with 65536 registers, given out by 256 a warp."""
    return min(64, 65536 // (-(-registers * 32 // 256) * 256))


def main():
    build = pathlib.Path(sys.argv[1])
    ptxas = sys.argv[2] if len(sys.argv) > 2 else "ptxas"
    jobs = [(path, sm) for path in sorted(build.glob("*.ptx")) for sm in (*SMS, ALSO)
            if int(sm) >= int(path.stem.rsplit("_", 1)[1])]
    said = dict(zip(jobs, assemble_all(ptxas, jobs)))
    print("| kernel | format | registers sm_80 / 89 / 90 | static shared | warps by registers, sm_90 |")
    print("|---|---|---|---|---|")
    for path in sorted({path for path, _ in jobs}):
        _, form, least = path.stem.rsplit("_", 2)
        tables = {sm: said[path, sm][0] for sm in SMS if (path, sm) in said}
        form_name = FORMATS[form] + ("" if least == "80" else f" (sm_{least} form)")
        for kernel, newest in tables[SMS[-1]].items():
            registers = " / ".join(str(tables[sm].get(kernel, "?")[0]) if sm in tables else "-" for sm in SMS)
            print(f"| {kernel} | {form_name} | {registers} | {newest[1]} | {warps(newest[0])} |")
    wrong = [why for _, why in said.values() if why]
    print("\n".join(wrong), file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
