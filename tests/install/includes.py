#!/usr/bin/env python3
"""Holds every #include of the tree against the walls of docs/architecture.md.

usage: includes.py SOURCE

Before it looks at the tree it tries the rules on the table CASES below, where each wall is broken
once: a rule that has stopped to bite fails here.
"""
import pathlib
import posixpath
import re
import sys

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.M)
VENDOR = re.compile(r"^(cuda|cu[A-Z]|nvml|nvrtc|driver_types|hip/|hip_|hsa/|rocm|CL/|OpenCL/"
                    r"|level_zero|ze_api|vulkan/|Metal/)")
PUBLIC = {"moehal": "hal/include/", "moehal-model": "model/include/"}
SUFFIXES = {".c", ".h", ".def", ".cpp", ".hpp", ".cl", ".hip"}


def walls(path):
    """Of the room `path` lies in: the public APIs and the folders it may include from, and whether
    it may see a vendor's headers. None where there are no walls (tests)."""
    parts = path.split("/")
    room = parts[0]
    if room == "backends":
        own = "/".join(parts[:2]) + "/"
        return {"moehal"}, [own, "backends/support/"], True
    return {
        "hal": ({"moehal"}, ["hal/"], False),
        "model": ({"moehal", "moehal-model"}, ["model/"], False),
        "conformance": ({"moehal", "moehal-model"}, ["conformance/"], False),
        "tools": ({"moehal", "moehal-model"}, ["tools/", "conformance/"], False),
        "transports": ({"moehal"}, ["transports/"], True),
        "virtual": (set(), ["virtual/"], True),
    }.get(room)


def complaint(path, quote, name, files):
    """Why the file `path` may not include `name`, or None. `files`: all paths of the tree."""
    rules = walls(path)
    if rules is None:
        return None
    public, folders, vendors = rules
    api = name.split("/")[0]
    if api in PUBLIC:
        if api not in public:
            return f"this room may not use {api}"
        return None if PUBLIC[api] + name in files else f"{PUBLIC[api]}{name} does not exist"
    if VENDOR.match(name) and not vendors:
        return "this room knows no vendor"
    if quote == "<":
        return "a system header does not climb folders" if ".." in name.split("/") else None

    beside = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
    roots = [beside] + [posixpath.normpath(folder + sub + name)
                        for folder in folders for sub in ("", "include/")]
    found = next((candidate for candidate in roots if candidate in files), None)
    if found:
        if any(found.startswith(folder) for folder in folders):
            return None
        return f"{found} belongs to another room"
    # Not in the tree at all: made by the build. In another room: behind a wall.
    elsewhere = [other for other in files if other.endswith("/" + posixpath.basename(name))]
    return f"{elsewhere[0]} belongs to another room" if elsewhere else None


TREE = {"hal/hal.h", "hal/include/moehal/base.h", "hal/include/moehal/backend.h", "model/graph.h",
        "model/include/moehal-model/config.h", "backends/host/pool.h", "backends/null/null.h",
        "backends/support/symbols.h", "virtual/common/ptx.h", "tools/progress.h"}
CASES = [  # file, include, is it allowed?
    ("model/graph.c", "<moehal/base.h>", True),
    ("model/graph.c", '"graph.h"', True),
    ("model/graph.c", "<moehal-model/config.h>", True),
    ("model/graph.c", "<jansson.h>", True),
    ("model/graph.c", '"made_by_the_build.h"', True),
    ("model/graph.c", "<moehal/no_such.h>", False),
    ("model/graph.c", '"hal.h"', False),
    ("model/graph.c", '"../hal/hal.h"', False),
    ("model/graph.c", "<../hal/hal.h>", False),
    ("model/graph.c", "<cuda.h>", False),
    ("model/graph.c", '"pool.h"', False),
    ("hal/device.c", '"hal.h"', True),
    ("hal/device.c", "<moehal/backend.h>", True),
    ("hal/device.c", "<moehal-model/config.h>", False),
    ("hal/device.c", "<CL/cl.h>", False),
    ("hal/device.c", "<hip/hip_runtime.h>", False),
    ("hal/device.c", '"../backends/host/pool.h"', False),
    ("hal/include/moehal/base.h", '"../../hal.h"', True),
    ("backends/null/null.c", '"null.h"', True),
    ("backends/null/null.c", '"symbols.h"', True),
    ("backends/null/null.c", "<moehal/backend.h>", True),
    ("backends/null/null.c", '"../host/pool.h"', False),
    ("backends/null/null.c", '"../../hal/hal.h"', False),
    ("backends/null/null.c", "<moehal-model/config.h>", False),
    ("backends/opencl/cl.c", "<CL/cl.h>", True),
    ("virtual/nvidia/driver.c", '"../common/ptx.h"', True),
    ("virtual/nvidia/driver.c", "<moehal/base.h>", False),
    ("tools/moehal.c", '"progress.h"', True),
    ("tools/moehal.c", "<moehal-model/config.h>", True),
    ("tools/moehal.c", '"hal.h"', False),
    ("tests/hal/test_x.c", '"../../hal/hal.h"', True),
]


def broken_rules():
    for path, line, allowed in CASES:
        (quote, name), = INCLUDE.findall(f"#include {line}")
        why = complaint(path, quote, name, TREE)
        if allowed != (why is None):
            yield f"rule of includes.py: {path} with {line}: {why or 'allowed, and should not be'}"


def main():
    source = pathlib.Path(sys.argv[1])
    rooms = ("hal", "model", "backends", "virtual", "conformance", "tools", "tests")
    paths = [p for room in rooms for p in (source / room).rglob("*") if p.suffix in SUFFIXES]
    files = {p.relative_to(source).as_posix() for p in paths}
    complaints = list(broken_rules())
    for path in sorted(files):
        text = (source / path).read_text(errors="replace")
        for match in INCLUDE.finditer(text):
            if why := complaint(path, match[1], match[2], files):
                line = text.count("\n", 0, match.start()) + 1
                complaints.append(f"{path}:{line}: {match[0].strip()}: {why}")
    if not files:
        complaints.append(f"{source}: no source files")
    print(*complaints, sep="\n", file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
