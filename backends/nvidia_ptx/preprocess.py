#!/usr/bin/env python3
"""Preprocesses a kernel file and writes an assembly file that embeds the text.

usage: preprocess.py NAME SOURCE OUT.ptx OUT.S OUT.d COMPILER... -- DEFINE...

The C preprocessor keeps its line markers, which PTX compilers understand.
"""
import pathlib
import subprocess
import sys

HEAD = (".version", ".target", ".address_size")


def main():
    name, source, ptx, assembly, depfile = sys.argv[1:6]
    rest = sys.argv[6:]
    cut = rest.index("--")
    compiler, defines = rest[:cut], rest[cut + 1:]
    subprocess.run([*compiler, "-E", "-undef", "-nostdinc", "-x", "c", "-MD", "-MF", depfile,
                    "-MT", ptx, *defines, "-o", ptx, source], check=True)
    # Drivers know PTX by how it begins, so the directives go before the first line marker.
    lines = pathlib.Path(ptx).read_text().splitlines(keepends=True)
    head = [line for line in lines if line.startswith(HEAD)]
    body = ["\n" if line.startswith(HEAD) else line for line in lines]
    pathlib.Path(ptx).write_text("".join(head + body))
    path = pathlib.Path(ptx).resolve()
    pathlib.Path(assembly).write_text(
        f"    .section .rodata\n    .globl {name}\n    .hidden {name}\n{name}:\n"
        f'    .incbin "{path}"\n    .byte 0\n    .section .note.GNU-stack,"",%progbits\n')


main()
