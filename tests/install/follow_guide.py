#!/usr/bin/env python3
"""Follows docs/porting.md: runs its console blocks in one shell and compares what they print.

usage: follow_guide.py GUIDE FOLDER     runs in FOLDER, with the environment's moehal
       follow_guide.py GUIDE --shown ROOT [--update]
                                        fences under `<!-- FILE -->` hold that file of ROOT
"""
import pathlib
import re
import subprocess
import sys

ANY = "…"


def console_blocks(text):
    """[(line, command, [expected lines])]"""
    steps = []
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            inside = line == "```console"
        elif inside and line.startswith("$ "):
            steps.append((number, line[2:], []))
        elif inside:
            steps[-1][2].append(line)
    return steps


def run(steps, folder):
    """Every step in one shell, so that cd and export last; [(status, output)]"""
    script = "".join(f"{{ {command}\n}} >out.{i} 2>&1; echo $? >status.{i}\n".replace(
        "out.", "$FOLLOW/out.").replace("status.", "$FOLLOW/status.")
        for i, (_, command, _) in enumerate(steps))
    notes = pathlib.Path(folder, ".follow")
    notes.mkdir()
    subprocess.run(["bash", "-c", f"FOLLOW='{notes}'\n{script}"], cwd=folder, check=True,
                   stdin=subprocess.DEVNULL, timeout=600)
    return [(int((notes / f"status.{i}").read_text()),
             (notes / f"out.{i}").read_text(encoding="utf-8", errors="replace"))
            for i in range(len(steps))]


def matches(expected, output):
    """A line of … stands for any lines, … within a line for any text."""
    pattern = ""
    for line in expected:
        pattern += r"(?:.*\n)*?" if line == ANY else ".*".join(
            re.escape(part) for part in re.sub(" +", " ", line).split(ANY)).rstrip(" \\") + " *\n"
    text = "".join(re.sub(" +", " ", line) + "\n" for line in output.splitlines() if line)
    return re.fullmatch(pattern, text) is not None


def follow(guide, folder):
    steps = console_blocks(guide.read_text(encoding="utf-8"))
    assert len(steps) >= 10, "the guide has no steps"
    failed = 0
    for (line, command, expected), (status, output) in zip(steps, run(steps, folder)):
        good = status == 0 and matches(expected or [], output)
        print("ok  " if good else "FAIL", f"line {line}: {command}")
        if not good:
            failed += 1
            print(f"exit status {status}; the guide has\n" + "\n".join(expected) +
                  f"\nbut it printed\n{output}")
    return failed


def shown(guide, root, update):
    text = guide.read_text(encoding="utf-8")
    stale = []

    def current(match):
        content = pathlib.Path(root, match[1]).read_text(encoding="utf-8").rstrip("\n")
        if match[3] != content:
            stale.append(match[1])
        return f"<!-- {match[1]} -->\n```{match[2]}\n{content}\n```"

    found = re.sub(r"<!-- (\S+) -->\n```(\w+)\n(.*?)\n?```", current, text, flags=re.S)
    for folder in {pathlib.PurePath(name).parent for name in re.findall(r"<!-- (\S+\.c) -->", text)}:
        for program in sorted(pathlib.Path(root, folder).glob("*.c")):
            if f"<!-- {folder}/{program.name} -->" not in text:
                stale.append(f"nothing of {folder}/{program.name}")
                update = False
    if update:
        guide.write_text(found, encoding="utf-8")
    elif stale:
        print(f"{guide}: shows another {', '.join(stale)}; tests/install/follow_guide.py "
              f"{guide} --shown {root} --update brings it up to date")
    return 0 if update else len(stale)


def main():
    guide = pathlib.Path(sys.argv[1])
    if sys.argv[2] == "--shown":
        sys.exit(1 if shown(guide, sys.argv[3], "--update" in sys.argv) else 0)
    sys.exit(1 if follow(guide, sys.argv[2]) else 0)


main()
