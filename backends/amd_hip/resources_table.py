#!/usr/bin/env python3
"""Reads the code objects of the AMD backend and prints the table of docs/amd.md: registers, static LDS,
and how many waves the registers leave a SIMD of gfx942 (8 is the most). Fails if a kernel uses
scratch memory.

usage: resources_table.py BUILD     BUILD: where *.co lie, backends/amd_hip of a build
"""
import pathlib
import struct
import sys

METADATA = 32  # NT_AMDGPU_METADATA


def unpack(data, at=0):
    """A value of MessagePack, as much of it as metadata has, and where the next begins."""
    b = data[at]
    at += 1
    if b < 0x80:
        return b, at
    if b < 0x90 or b in (0xDE, 0xDF):
        count, at = (b & 15, at) if b < 0x90 else number(data, at, 2 if b == 0xDE else 4)
        result = {}
        for _ in range(count):
            key, at = unpack(data, at)
            result[key], at = unpack(data, at)
        return result, at
    if b < 0xA0 or b in (0xDC, 0xDD):
        count, at = (b & 15, at) if b < 0xA0 else number(data, at, 2 if b == 0xDC else 4)
        result = []
        for _ in range(count):
            value, at = unpack(data, at)
            result.append(value)
        return result, at
    if b < 0xC0 or b in (0xD9, 0xDA):
        size, at = (b & 31, at) if b < 0xC0 else number(data, at, b - 0xD8)
        return data[at:at + size].decode(), at + size
    if b in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[b], at
    if 0xCC <= b <= 0xCF:
        return number(data, at, 1 << (b - 0xCC))
    if b >= 0xE0:
        return b - 256, at
    raise ValueError(f"MessagePack 0x{b:02x}")


def number(data, at, size):
    return int.from_bytes(data[at:at + size], "big"), at + size


def kernels(path):
    """The metadata of an object's kernels, from its note (ELF, 64 bits, little-endian)."""
    elf = path.read_bytes()
    table, = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    for i in range(count):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", elf, table + i * size)
        if kind != 4:  # PT_NOTE
            continue
        at = offset
        while at < offset + length:
            name, text, note = struct.unpack_from("<III", elf, at)
            begin = at + 12 + (name + 3) // 4 * 4
            if note == METADATA:
                return unpack(elf[begin:begin + text])[0]["amdhsa.kernels"]
            at = begin + (text + 3) // 4 * 4
    sys.exit(f"{path}: no metadata")


def waves(vector, scalar):
    """Of a SIMD: 512 vector registers a lane, given out by 8; scalar ones leave 7 above 100."""
    return min(8 if scalar <= 100 else 7, 512 // max(8, -(-vector // 8) * 8))


def main():
    bad = []
    print("| kernel | VGPR | AGPR | SGPR | static LDS | scratch | waves a SIMD |")
    print("|---|---|---|---|---|---|---|")
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.co")):
        for k in sorted(kernels(path), key=lambda k: k[".name"]):
            scratch = k[".private_segment_fixed_size"]
            spills = k[".vgpr_spill_count"]  # scalar registers spill into lanes of vector ones
            vector, scalar = k[".vgpr_count"], k[".sgpr_count"]
            print(f"| {k['.name']} | {vector - k.get('.agpr_count', 0)} | {k.get('.agpr_count', 0)} "
                  f"| {scalar} | {k['.group_segment_fixed_size']} | {scratch} | {waves(vector, scalar)} |")
            if scratch or spills or k.get(".uses_dynamic_stack"):
                bad.append(f"{path.name}: {k['.name']}: {scratch} bytes of scratch, {spills} spills")
    print("\n".join(bad), file=sys.stderr)
    sys.exit(1 if bad else 0)


main()
