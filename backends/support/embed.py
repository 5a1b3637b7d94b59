#!/usr/bin/env python3
"""Prints files as C arrays that end with a NUL.

usage: embed.py NAME=FILE...
"""
import pathlib
import sys


def literal(byte):
    """A byte as a char, whose sign is the compiler's affair."""
    return f"{byte}," if byte < 128 else f"'\\x{byte:02x}',"


def main():
    for argument in sys.argv[1:]:
        name, _, path = argument.partition("=")
        data = pathlib.Path(path).read_bytes() + b"\0"
        print(f"extern const char {name}[];\nconst char {name}[] = {{")
        for at in range(0, len(data), 20):
            print("    " + " ".join(literal(byte) for byte in data[at:at + 20]))
        print("};")


main()
