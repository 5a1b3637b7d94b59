#!/usr/bin/env python3
"""Sums up Meson's test reports: lists what was skipped, with the reason, and what failed, with the
end of what it printed, and ends with the line `N passed, N failed, N skipped`. Exit status 1 on a
failure, or if nothing ran.

usage: count_tests.py [--also-failed N] FOLDER     (FOLDER: RUN.json, each a meson testlog.json)

A test program skips with exit status 77, a cmocka test with skip(); either says why beforehand on
a line `SKIP: reason`.
"""
import argparse
import json
import pathlib
import re
import sys

CMOCKA_SKIPPED = re.compile(r"^\[  SKIPPED \] (\S+)$")
REASON = re.compile(r"^SKIP: (.+)$")
NO_REASON = "it gives no reason"
LAST_LINES, LINE_LENGTH = 10, 200


def program_reason(output):
    reasons = [m[1] for m in map(REASON.match, output.splitlines()) if m]
    return reasons[-1] if reasons else NO_REASON


def skipped_within(output):
    """The cmocka tests of a program that were skipped: name -> reason."""
    found, reason = {}, NO_REASON
    for line in output.splitlines():
        if match := REASON.match(line):
            reason = match[1]
        elif match := CMOCKA_SKIPPED.match(line):
            found.setdefault(match[1], reason)
            reason = NO_REASON
    return found


def print_failure(where, test, output):
    print(f"FAILED   {where} ({test['result'].lower()}, status {test.get('returncode')}, "
          f"{test.get('duration', 0):.0f} s)")
    for line in output.strip().splitlines()[-LAST_LINES:]:
        print(f"         | {line[:LINE_LENGTH]}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--also-failed", type=int, default=0)
    parser.add_argument("folder", type=pathlib.Path)
    arguments = parser.parse_args()

    passed, failed, skipped = 0, arguments.also_failed, 0
    for report in sorted(arguments.folder.glob("*.json")):
        for line in report.read_text(errors="replace").splitlines():
            test = json.loads(line)
            where = f"{report.stem}: {test['name'].split(' / ')[-1]}"
            output = (test.get("stdout") or "") + "\n" + (test.get("stderr") or "")
            if test["result"] in ("OK", "EXPECTEDFAIL"):
                passed += 1
                for name, reason in skipped_within(output).items():
                    skipped += 1
                    print(f"skipped  {where}, {name}: {reason}")
            elif test["result"] == "SKIP":
                skipped += 1
                print(f"skipped  {where}: {program_reason(output)}")
            else:
                failed += 1
                print_failure(where, test, output)
    if passed + failed == 0:
        print("no test ran")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
