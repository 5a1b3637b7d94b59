#!/usr/bin/env python3
"""The sources of the kernels compile for other targets than gfx942: by clang 19, every file for gfx90a,
and those that do without matrix units for gfx906; and by Debian's hipRTC, an older clang with headers of
its own, where it is installed, with the names that the backend asks for.

usage: test_targets.py BACKEND CLANG [all]     BACKEND: the source folder; all: hipRTC gets the large files too
"""
import ctypes
import pathlib
import re
import subprocess
import sys
import tempfile

SUFFIXES = {"NONE": [""], "CACHE": ["_f32", "_bf16"], "ALL": ["_f32", "_f16", "_bf16", "_fp8"],
            "WIDE": ["_f32", "_f16", "_bf16"]}
TARGETS = {"EXACT": ["gfx90a", "gfx906"], "MATRIX": ["gfx90a"]}
OPTIONS = ["-std=c++17", "-O1", "-ffp-contract=off"]


def by_clang(clang, source, target):
    with tempfile.NamedTemporaryFile() as to:
        done = subprocess.run([clang, "-x", "hip", f"--offload-arch={target}", "--cuda-device-only",
                               "--no-gpu-bundle-output", "-nogpulib", "-nogpuinc", *OPTIONS, source, "-o",
                               to.name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False)
        return pathlib.Path(to.name).read_bytes(), done.stdout


def strings(values):
    return (ctypes.c_char_p * len(values))(*values)


def by_hiprtc(library, source, target):
    headers = [path for path in sorted(source.parent.iterdir()) if path.suffix in (".h", ".hiph")]
    options = [f"--offload-arch={target}".encode(), *(o.encode() for o in OPTIONS)]
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    library.hiprtcCreateProgram(ctypes.byref(program), source.read_bytes(), source.name.encode(),
                                len(headers), strings([path.read_bytes() for path in headers]),
                                strings([path.name.encode() for path in headers]))
    failed = library.hiprtcCompileProgram(program, len(options), strings(options))
    (library.hiprtcGetProgramLogSize if failed else library.hiprtcGetCodeSize)(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value + 1)
    (library.hiprtcGetProgramLog if failed else library.hiprtcGetCode)(program, text)
    library.hiprtcDestroyProgram(ctypes.byref(program))
    return (b"", text.value.decode(errors="replace")) if failed else (text.raw, "")


def main():
    backend, clang = pathlib.Path(sys.argv[1]), sys.argv[2]
    try:
        library = ctypes.CDLL("libamdhip64.so.5")
    except OSError as reason:
        print(f"without hipRTC: {reason} (Debian: libamdhip64-5)")
        library = None
    kernels = {}
    for file, name, formats in re.findall(r"^KERNEL\((\w+), (\w+), (\w+)\)",
                                          (backend / "kernels.def").read_text(), re.M):
        kernels.setdefault(file, []).extend(name + suffix for suffix in SUFFIXES[formats])
    bad = 0
    for file, units in re.findall(r"^FILE\((\w+), (\w+)\)", (backend / "files.def").read_text(), re.M):
        source = backend / f"kernels/{file}.hip"
        for target in TARGETS[units]:
            compilers = [("clang", lambda s, t: by_clang(clang, s, t))]
            if library and (len(sys.argv) > 3 or file in ("attention_mma", "move", "rows", "sample")):
                compilers.append(("hipRTC", lambda s, t: by_hiprtc(library, s, t)))
            for what, compiled in compilers:
                code, told = compiled(source, target)
                lacks = [name for name in kernels[file] if f"\0{name}.kd\0".encode() not in code]
                print(f"{file} for {target} by {what}: {len(code)} bytes", flush=True)
                if told or lacks:
                    print(f"{told[:2000]} lacks {lacks}")
                    bad += 1
    sys.exit(1 if bad else 0)


main()
