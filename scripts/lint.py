#!/usr/bin/env python3
"""Static analysis: cppcheck over all sources, clang-tidy over those changed since main (or since the
commit before, on main itself), or over all with --all.

usage: lint.py BUILD-DIR [--all | FILE...]

Exit status: 0 clean, 1 findings, 77 a tool is missing (said on stdout).
"""
import concurrent.futures
import json
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDERS = ["hal", "model", "tools", "backends", "conformance"]
CPPCHECK = [
    "--enable=warning,performance,portability", "--std=c11", "--platform=unix64", "--quiet",
    "--inline-suppr", "--error-exitcode=1", "-D__x86_64__", "-D_GNU_SOURCE",
    "-I", "hal/include", "-I", "model/include",
    "--suppress=missingInclude",
    "--suppress=unknownMacro:*.def",  # tables, which whoever includes them defines
    "--suppress=arrayIndexThenCheck:*validate.c",  # compares two indices, neither of which is a limit
    "--suppress=comparePointers:*vectors_data.c",  # the ends of one embedded file
]


def output(*command):
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return done.stdout.decode() if done.returncode == 0 else None


def changed():
    """Sources that differ from where this branch left main; None: this is no git tree."""
    head = output("git", "rev-parse", "HEAD")
    base = output("git", "merge-base", "HEAD", "main") or output("git", "merge-base", "HEAD",
                                                                 "origin/main")
    if head is None:
        return None
    if base is None or base == head:
        base = output("git", "rev-parse", "HEAD~1") or head
    names = output("git", "diff", "--name-only", "--diff-filter=d", base.strip()) or ""
    return {os.path.join(ROOT, name) for name in names.split()}


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    build, wanted = os.path.abspath(sys.argv[1]), sys.argv[2:]
    tidy = shutil.which("clang-tidy-19") or shutil.which("clang-tidy")
    missing = [name for name, path in (("cppcheck", shutil.which("cppcheck")),
                                       ("clang-tidy", tidy)) if not path]
    if missing:
        print(f"SKIP: {' and '.join(missing)} not installed (apt-get install {' '.join(missing)})")
        return 77
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as file:
        known = {os.path.normpath(os.path.join(entry["directory"], entry["file"]))
                 for entry in json.load(file)}
    known = {path for path in known if path.endswith(".c")
             and os.path.relpath(path, ROOT).split(os.sep)[0] in FOLDERS}
    select = known if wanted == ["--all"] else (
        {os.path.abspath(name) for name in wanted} if wanted else changed())
    if select is None:
        print("clang-tidy: not a git tree, so what changed is not known; all is checked with --all")
        select = set()
    files = sorted(known & select)
    workers = os.cpu_count() or 1
    failed = subprocess.run(["cppcheck", f"-j{workers}", *CPPCHECK, *FOLDERS], cwd=ROOT).returncode
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        runs = pool.map(lambda path: subprocess.run(
            [tidy, "--quiet", "-p", build, path], cwd=ROOT, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL), files)
        for path, done in zip(files, runs):
            if done.returncode:
                failed = 1
                print(f"{os.path.relpath(path, ROOT)}:\n{done.stdout.decode('utf-8', 'replace')}")
    print(f"cppcheck: {', '.join(FOLDERS)}; clang-tidy: {len(files)} of {len(known)} files"
          f"{': findings above' if failed else ', clean'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
