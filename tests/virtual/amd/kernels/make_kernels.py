#!/usr/bin/env python3
"""Compiles the test kernels with clang for gfx942 and packs the code objects into kernels.tar.xz, which
is checked in: no compiler is needed to run the tests. Made with clang 19.1.7.

Besides, of bugs.hip: bugs.txt, a line a kernel: its name, the check, blocks, threads, bytes of dynamic
LDS, and the offsets in the text of the instructions of its marked lines.

usage: make_kernels.py    (in this folder)
"""
import io
import lzma
import pathlib
import re
import subprocess
import tarfile
import tempfile

CLANG, OBJDUMP = "clang-19", "llvm-objdump-19"
FLAGS = ["-x", "hip", "--offload-arch=gfx942", "--cuda-device-only", "--no-gpu-bundle-output",
         "-nogpulib", "-nogpuinc", "-fuse-cuid=none", "-ffp-contract=off", "-std=c++17"]


def compile_kernels(source, out, *flags):
    subprocess.run([CLANG, *FLAGS, *flags, source, "-o", out], check=True)


def marks(source):
    """{kernel: (check, blocks, threads, lds, lines)}"""
    found, kernel = {}, None
    for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), 1):
        begin = re.match(r"BUG\((\w+)\)", line)
        if begin:
            kernel = begin.group(1)
        mark = re.search(r"// BUG ([\w-]+) (\d+) (\d+) (\d+)", line)
        if mark:
            found.setdefault(kernel, (*mark.groups(), []))[4].append(number)
    return found


def offsets(code):
    """{(kernel, line): offsets in the text of instructions of that line}"""
    text = subprocess.run([OBJDUMP, "-d", "-l", "--mcpu=gfx942", code], check=True,
                          capture_output=True, text=True).stdout
    headers = subprocess.run([OBJDUMP, "-h", code], check=True, capture_output=True, text=True).stdout
    base = int(re.search(r"\.text\s+\w+\s+(\w+)", headers).group(1), 16)
    found, kernel, line = {}, None, 0
    for row in text.splitlines():
        label = re.match(r"[0-9a-f]+ <(\w+)>:", row)
        place = re.match(r"; .*bugs\.hip:(\d+)", row)
        other = re.match(r"; .*:(\d+)$", row)
        address = re.search(r"// ([0-9A-F]{12}):", row)
        if label:
            kernel = label.group(1)
        elif place:
            line = int(place.group(1))
        elif other: # an inlined function of device.h: belongs to the line that called it
            pass
        elif address and kernel:
            found.setdefault((kernel, line), []).append(int(address.group(1), 16) - base)
    return found


def table(source, code):
    at, rows = offsets(code), []
    for kernel, (check, blocks, threads, lds, lines) in marks(source).items():
        places = sorted({offset for line in lines for offset in at.get((kernel, line), [])})
        if not places:
            raise SystemExit(f"{kernel}: no instruction has a marked line")
        rows.append(" ".join([kernel, check, blocks, threads, lds, *(f"{p:x}" for p in places)]))
    return "\n".join(rows) + "\n"


def main():
    here = pathlib.Path(".")
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder)
        for name in ("basic", "matrix"):
            for level in ("O0", "O3"):
                compile_kernels(here / f"{name}.hip", out / f"{name}-{level}.co", f"-{level}")
        compile_kernels(here / "devices.hip", out / "devices.co", "-O2")
        compile_kernels(here / "bugs.hip", out / "bugs.co", "-O1", "-gline-tables-only",
                        "-fdebug-compilation-dir=.")
        (out / "bugs.txt").write_text(table(here / "bugs.hip", out / "bugs.co"), encoding="utf-8")
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path in sorted(out.iterdir()):
                info = tar.gettarinfo(path, path.name)
                info.uid = info.gid = info.mtime = 0
                info.uname = info.gname = ""
                with path.open("rb") as file:
                    tar.addfile(info, file)
        packed = lzma.compress(archive.getvalue(), preset=9 | lzma.PRESET_EXTREME)
        (here / "kernels.tar.xz").write_bytes(packed)
        print(f"kernels.tar.xz: {len(packed)} bytes")


main()
