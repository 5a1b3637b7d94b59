#!/usr/bin/env python3
"""No file of the tree may name a folder of somebody's machine, or the host of a package registry:
both work in one place only. The vectors of tests/data and the models are data, and left out.

usage: tree.py SOURCE
"""
import os
import pathlib
import re
import subprocess
import sys

# Written so that this file passes its own check.
FOLDERS = ["work", "home", "root", "Users", "mnt"]
HOSTS = ["pypi", "pythonhosted", "npmjs", "crates", "huggingface", "proxy.golang", "deb.debian"]
FORBIDDEN = [
    re.compile(rb"(?:(?<![\w.$}*/-])|(?<=-[IL]))/(" + "|".join(FOLDERS).encode() + rb")/"),
    re.compile(rb"\b(" + "|".join(map(re.escape, HOSTS)).encode() + rb")\.(org|com|io|co|dev)\b"),
]
DATA = ("tests/data/", "models/")
NOT_OURS = re.compile(r"^(\.git|\.cache|__pycache__|build.*)$")

CASES = [  # line, is it allowed?
    (b"-I/" + b"work/include", False),
    (b'"/' + b'home/someone/x"', False),
    (b"cd /" + b"root/x", False),
    (b"https://py" + b"pi.org/simple", False),
    (b"http://deb." + b"debian.org/debian", False),
    (b"build/work/x and $HOME/work/x and ../work/x", True),
    (b"/usr/include /tmp/x /proc/cpuinfo", True),
]


def tracked(source):
    """The files git knows, or would know; where there is no git, all that are not built."""
    listing = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", str(source), "ls-files", "-z", "--cached",
         "--others", "--exclude-standard"], capture_output=True, check=False)
    if listing.returncode == 0 and listing.stdout:
        return [name.decode() for name in listing.stdout.split(b"\0") if name]
    found = []
    for folder, folders, names in os.walk(source):
        folders[:] = [name for name in folders if not NOT_OURS.match(name)]
        found += [os.path.relpath(os.path.join(folder, name), source) for name in names]
    return found


def offence(line):
    return next((match[0] for match in (p.search(line) for p in FORBIDDEN) if match), None)


def main():
    source = pathlib.Path(sys.argv[1])
    complaints = [f"rule of tree.py: {line!r} is {'refused' if allowed else 'allowed'}"
                  for line, allowed in CASES if allowed != (offence(line) is None)]
    names = [name for name in tracked(source) if not name.startswith(DATA)]
    for name in sorted(names):
        path = source / name
        if not path.is_file() or path.is_symlink():
            continue
        for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
            if found := offence(line):
                complaints.append(f"{name}:{number}: {found.decode()}")
    if not names:
        complaints.append(f"{source}: no files")
    print(*complaints, sep="\n", file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
