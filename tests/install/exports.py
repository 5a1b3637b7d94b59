#!/usr/bin/env python3
"""Compares the symbols a shared library exports with a checked-in list and with the functions that
its public headers declare MH_API.

usage: exports.py LIBRARY --list FILE --headers FOLDER [--update]
       exports.py LIBRARY --only SYMBOL
"""
import argparse
import pathlib
import re
import subprocess
import sys


def exported(library):
    """Defined dynamic symbols, functions and data alike."""
    output = subprocess.run(["nm", "-D", "--defined-only", "--format=posix", library],
                            check=True, capture_output=True, text=True).stdout
    return {line.split()[0].split("@")[0] for line in output.splitlines()}


def declared(folder):
    names = set()
    for header in folder.glob("*.h"):
        text = header.read_text().replace("\\\n", " ")
        text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.S)
        text = re.sub(r"^\s*#.*$", "", text, flags=re.M)
        names.update(re.findall(r"\bMH_API\b[^;(]*?\b(mh_\w+)\s*(?=[(;\[])", text))
    return names


def differences(wanted, found, wanted_from, found_in):
    return ([f"  {name}: in {wanted_from}, not in {found_in}" for name in sorted(wanted - found)] +
            [f"  {name}: in {found_in}, not in {wanted_from}" for name in sorted(found - wanted)])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("library", type=pathlib.Path)
    parser.add_argument("--list", type=pathlib.Path)
    parser.add_argument("--headers", type=pathlib.Path)
    parser.add_argument("--only")
    parser.add_argument("--update", action="store_true")
    arguments = parser.parse_args()

    found = exported(arguments.library)
    name = arguments.library.name
    if arguments.only:
        complaints = differences({arguments.only}, found, "the contract of modules", name)
    else:
        if arguments.update:
            arguments.list.write_text("".join(f"{symbol}\n" for symbol in sorted(found)))
        listed = set(arguments.list.read_text().split())
        complaints = differences(listed, found, arguments.list.name, name)
        complaints += differences(declared(arguments.headers), found, "the headers", name)
    if not complaints:
        return 0
    print(f"{name} exports other symbols than it should:", *complaints, sep="\n", file=sys.stderr)
    if arguments.list:
        print("The list is part of the ABI. If the change is meant: tests/install/exports.py",
              f"{arguments.library} --list {arguments.list} --headers {arguments.headers} --update",
              file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
