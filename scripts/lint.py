#!/usr/bin/env python3
"""Static analysis of the tree's C: cppcheck, then clang-tidy with the checks of .clang-tidy on every
file that BUILD-DIR compiles, or on FILEs.

usage: lint.py BUILD-DIR [--analyze] [FILE...]

--analyze adds clang's path-sensitive analyzer, ten minutes of a processor's time for the whole tree.
Exit status: 0 clean, 1 findings, 77 a tool is missing (said on stdout).
"""
import concurrent.futures
import json
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDERS = ["hal", "model", "tools", "backends", "conformance", "transports", "virtual"]
WORKERS = min(2, os.cpu_count() or 1)
CPPCHECK = [
    "--enable=warning,performance,portability", "--std=c11", "--platform=unix64", "--quiet",
    "--inline-suppr", "--error-exitcode=1", "-D__x86_64__", "-D_GNU_SOURCE",
    "-I", "hal/include", "-I", "model/include", "-i", "backends/opencl/kernels",
    "--suppress=missingInclude",
    "--suppress=unknownMacro:*.def",  # tables, which whoever includes them defines
    "--suppress=arrayIndexThenCheck:*validate.c",  # compares two indices, neither of which is a limit
    "--suppress=comparePointers:*vectors_data.c",  # the ends of one embedded file
    # What cppcheck 2.10 does not follow: functions that do not return (vn_fault, ptx_error), arrays
    # filled by way of a pointer, loops that find something at once, numbers like 0x1p63.
    "--suppress=nullPointerRedundantCheck:virtual/*",
    "--suppress=nullPointer:virtual/nvidia/exec/block.c",
    "--suppress=ctunullpointer:virtual/*",
    "--suppress=arrayIndexOutOfBoundsCond:virtual/nvidia/ptx/variable.c",
    "--suppress=uninitvar:virtual/*",
    "--suppress=negativeIndex:virtual/nvidia/exec/warp.c",
    "--suppress=shiftTooManyBitsSigned:virtual/nvidia/exec/*",  # gcc and clang shift the sign in
    "--suppress=incorrectLogicOperator:virtual/nvidia/exec/arith.h",
    "--suppress=unknownEvaluationOrder:virtual/*",
]


def compiled(build):
    """The C files of FOLDERS that the build compiles."""
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as file:
        paths = {os.path.normpath(os.path.join(entry["directory"], entry["file"]))
                 for entry in json.load(file)}
    return sorted(path for path in paths if path.endswith(".c")
                  and os.path.relpath(path, ROOT).split(os.sep)[0] in FOLDERS)


def main():
    arguments = sys.argv[1:]
    analyze = "--analyze" in arguments
    if analyze:
        arguments.remove("--analyze")
    if not arguments:
        sys.exit(__doc__)
    build = os.path.abspath(arguments[0])
    tidy = shutil.which("clang-tidy-19")
    missing = [name for name, path in (("cppcheck", shutil.which("cppcheck")),
                                       ("clang-tidy-19", tidy)) if not path]
    if missing:
        print(f"SKIP: {' and '.join(missing)} not installed (apt-get install {' '.join(missing)})")
        return 77
    files = [os.path.abspath(name) for name in arguments[1:]] or compiled(build)
    # Other warnings than those of the checks are the compilers' own business.
    command = [tidy, "--quiet", "-p", build, "--extra-arg=-Wno-error"]
    if not analyze:
        command.append("--checks=-clang-analyzer-*")
    failed = subprocess.run(["cppcheck", f"-j{WORKERS}", *CPPCHECK, *FOLDERS], cwd=ROOT).returncode
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        runs = pool.map(lambda path: subprocess.run(
            [*command, path], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL), files)
        for path, done in zip(files, runs):
            if done.returncode:
                failed = 1
                print(f"{os.path.relpath(path, ROOT)}:\n{done.stdout.decode('utf-8', 'replace')}")
    print(f"cppcheck: {', '.join(FOLDERS)}; clang-tidy{' and its analyzer' if analyze else ''}: "
          f"{len(files)} files{': findings above' if failed else ', clean'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
