#!/usr/bin/env python3
"""What the virtual runtime exports: every symbol of its version script with its version, nothing
else; against Debian's library, where that is installed, symbol by symbol. What it does not support
says so and is named in the log.

usage: check_exports.py LIBRARY MAP UNSUPPORTED
"""
import ctypes
import os
import pathlib
import re
import subprocess
import sys
import tempfile

# Of Debian's library and not of ours: a compiler's helpers and a debugger's.
ABSENT = {"__gnu_f2h_ieee", "__gnu_h2f_ieee", "amd_dbgapi_get_build_id",
          "amd_dbgapi_get_build_name", "amd_dbgapi_get_git_hash"}
# Of ours alone: declared by HIP 5.2's header, exported from 5.3 on.
EARLY = {"hipLaunchHostFunc"}
NOT_SUPPORTED = 801
DEBIAN = pathlib.Path("/usr/lib/x86_64-linux-gnu/libamdhip64.so.5")


def exported(library):
    """{symbol: version} of a library's own symbols."""
    table = subprocess.run(["objdump", "-T", library], capture_output=True, text=True, check=True)
    found = {}
    for line in table.stdout.splitlines():
        words = line.split()
        if len(words) < 4 or "*UND*" in words or "*ABS*" in words:
            continue
        version = words[-2].strip("()")
        if re.match(r"hip_\d|MOEHAL", version):
            found[words[-1]] = version
    return found


def named(path):
    """The same of a version script."""
    found, version = {}, None
    for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
        begin = re.match(r"(\w+(?:\.\d+)?) \{", line)
        if begin:
            version = begin.group(1)
        symbol = re.match(r"\s+(\w+);", line)
        if symbol:
            found[symbol.group(1)] = version
    return found


def refusals(library, table):
    """What the unsupported entry points do wrong: each says so, and is named in the log."""
    with tempfile.TemporaryDirectory() as folder:
        log = os.path.join(folder, "log")
        os.environ["MOEHAL_VIRTUAL_LOG"] = log
        os.environ["MOEHAL_VIRTUAL_DEVICES"] = "1"
        hip = ctypes.CDLL(library)
        bad = []
        for kind, name in table:
            result = getattr(hip, name)()
            if kind == "U" and result != NOT_SUPPORTED:
                bad.append(f"{name}: {result}, not hipErrorNotSupported")
        said = pathlib.Path(log).read_text(encoding="utf-8")
    return bad + [f"{name}: not named in the log" for _, name in table
                  if f"{name}: not supported" not in said]


def main():
    ours, script = exported(sys.argv[1]), named(sys.argv[2])
    virtual = {name for name in ours if name.startswith("moehal_virtual_")}
    bad = []
    for name, version in script.items():
        if ours.get(name) != version:
            bad.append(f"{name}: exported as {ours.get(name)}, not {version}")
    bad += [f"{name}: exported and not in the script" for name in set(ours) - set(script) - virtual]
    if "moehal_virtual_driver" not in virtual:
        bad.append("moehal_virtual_driver: not exported")
    table = pathlib.Path(sys.argv[3]).read_text(encoding="utf-8")
    unsupported = re.findall(r"^(\w)\((\w+)\)", table, re.M)
    bad += refusals(sys.argv[1], unsupported)
    if DEBIAN.exists():
        theirs = exported(DEBIAN)
        for name, version in theirs.items():
            if name not in ABSENT and ours.get(name) != version:
                bad.append(f"{name}: {version} in Debian's library, {ours.get(name)} in ours")
        bad += [f"{name}: not in Debian's library" for name in
                set(ours) - set(theirs) - virtual - EARLY]
    else:
        print(f"{DEBIAN}: not installed, not compared")
    print("\n".join(bad))
    print(f"{len(script)} entry points, {len(script) - len(unsupported)} of them supported")
    sys.exit(1 if bad else 0)


main()
