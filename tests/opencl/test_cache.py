#!/usr/bin/env python3
"""Entries of the cache of compiled programs: what is damaged is built again, a verdict that is missing is found again,
one that is there is believed, and what is whole is left as it is.

usage: test_cache.py MOEHAL ROOT NULL-DIR OPENCL-DIR
"""
import os
import pathlib
import struct
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tools"))
from command import MODULES, Folder, good, moehal

HEADER = struct.Struct("<8sQQQ")  # as in backends/support/cache.c
CASE = "add/f32/T3.N129/gaps/random/plain"


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1:]


# More kinds: tests/backends/test_support.c.
DAMAGE = {"a bit in the middle": lambda c, _: flipped(c, len(c) // 2), "cut": lambda c, _: c[:len(c) // 2],
          "empty": lambda c, _: b"", "another's": lambda _, other: other}


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def parts(entry):
    """Key, verdicts by kernel, binary."""
    magic, key_size, size, told = HEADER.unpack_from(entry)
    key, content = entry[HEADER.size:HEADER.size + key_size], entry[HEADER.size + key_size:]
    assert magic == b"mhcache1" and len(content) == size and told == fnv(key + content)
    text, binary = content.split(b"\0", 1)
    return key, dict(line.split(": ", 1) for line in text.decode().splitlines()), binary


def entry_of(key, verdicts, binary):
    text = "".join(f"{kernel}: {wrong}\n" for kernel, wrong in verdicts.items())
    content = text.encode() + b"\0" + binary
    return HEADER.pack(b"mhcache1", len(key), len(content), fnv(key + content)) + key + content


class Cache(Folder):
    def check(self):
        """The driver's own cache makes building again quick."""
        for name in ("cache", "driver"):
            os.makedirs(self.path(name), exist_ok=True)
        return moehal("check", "--device", "opencl:0", "--filter", CASE,
                      env={"MOEHAL_BACKENDS": MODULES, "MOEHAL_CACHE": self.path("cache"),
                           "POCL_CACHE_DIR": self.path("driver")})

    def entries(self):
        return {path: path.read_bytes() for path in sorted(pathlib.Path(self.path("cache")).rglob("*"))
                if path.is_file()}

    def filled(self):
        status, out, err = self.check()
        self.assertEqual(status, 0, out + err)
        whole = self.entries()
        with_verdict = [path for path, entry in whole.items() if "add" in parts(entry)[1]]
        self.assertEqual((len(whole), len(with_verdict)), (2, 1))  # the probe's, and that of `ops`
        self.assertEqual(parts(whole[with_verdict[0]])[1], {"add": ""})
        return whole, with_verdict[0]

    def test_entries(self):
        whole, ops = self.filled()
        key, _, binary = parts(whole[ops])
        before = {path: path.stat().st_mtime_ns for path in whole}
        with self.subTest("whole entries are left as they are"):
            self.assertEqual(self.check()[0], 0)
            self.assertEqual({path: path.stat().st_mtime_ns for path in whole}, before)
        others = list(whole.values())[::-1]
        for what, damage in DAMAGE.items():
            with self.subTest(what):
                for (path, content), other in zip(whole.items(), others):
                    path.write_bytes(damage(content, other))
                status, out, err = self.check()
                self.assertEqual(status, 0, out + err)
                again = self.entries()
                self.assertEqual(again.keys(), whole.keys())
                self.assertEqual([parts(again[path])[:2] for path in whole],
                                 [parts(content)[:2] for content in whole.values()])
        for what, text in {"no verdict": {}, "another kernel's": {"copy": ""}}.items():
            with self.subTest(what):
                ops.write_bytes(entry_of(key, text, binary))
                self.assertEqual(self.check()[0], 0)
                self.assertEqual(parts(ops.read_bytes())[1], {"add": "", **text})
        with self.subTest("a kernel that was found wrong"):
            told = entry_of(key, {"add": "y, byte 7 of 64, is 00, must be 01"}, binary)
            ops.write_bytes(told)
            status, out, err = self.check()
            self.assertIn("kernel add: y, byte 7 of 64, is 00, must be 01", out + err)
            self.assertNotEqual(status, 0)
            self.assertEqual(ops.read_bytes(), told)
        with self.subTest("whole, and not a program"):
            ops.write_bytes(entry_of(key, {"add": ""}, b"no program"))
            self.assertEqual(self.check()[0], 0)
            self.assertGreater(len(parts(ops.read_bytes())[2]), 100)


if __name__ == "__main__":
    if " opencl:0 " not in good("devices", env={"MOEHAL_BACKENDS": MODULES}):
        print("SKIP: there is no opencl:0")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
