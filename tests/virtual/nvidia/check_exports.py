#!/usr/bin/env python3
"""The library exports the vendor's entry points and the few of moehal_virtual.h, and nothing else.

usage: check_exports.py LIBRARY DRIVER-SOURCE PUBLIC-HEADER [TOOLKIT-STUB]"""
import pathlib
import re
import subprocess
import sys


def symbols(library):
    lines = subprocess.run(["nm", "-D", "--defined-only", library], check=True,
                           capture_output=True, text=True).stdout.splitlines()
    return {line.split()[-1].split("@")[0] for line in lines}


library, source, header, *stub = sys.argv[1:]
source = pathlib.Path(source)
listed = set()
for name, letter in (("exports.def", "X"), ("unsupported.def", "U")):
    listed |= set(re.findall(rf"^{letter}\((\w+)\)", (source / name).read_text(), re.M))
public = set(re.findall(r"\b(moehal_virtual_\w+)(?=\(|\[)", pathlib.Path(header).read_text()))
have = symbols(library)
problems = [f"not exported: {name}" for name in sorted(listed - have)]
problems += [f"exported, and in no list: {name}" for name in sorted(have - listed - public)]
problems += [f"in {header}, and not exported: {name}" for name in sorted(public - have)]
if stub:
    wanted = {name for name in symbols(stub[0]) if name.startswith("cu")}
    problems += [f"the toolkit's stub has it: {name}" for name in sorted(wanted - have)]
    print(f"the toolkit's stub has {len(wanted)} entry points")
print(f"{len(have)} symbols")
print("\n".join(problems))
sys.exit(bool(problems))
