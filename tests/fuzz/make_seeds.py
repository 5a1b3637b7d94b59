#!/usr/bin/env python3
"""Writes the seeds that are not simply copies: make_seeds.py DIR"""
import json
import pathlib
import struct
import sys

root = pathlib.Path(sys.argv[1])


def put(target, name, data):
    (root / target).mkdir(parents=True, exist_ok=True)
    (root / target / name).write_bytes(data)


def header(entries):
    return json.dumps(entries, separators=(",", ":")).encode()


one = header({"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}})
put("safetensors", "file", b"\0" + struct.pack("<Q", len(one)) + one + bytes(16))
put("safetensors", "header", b"\1" + one)
put("safetensors", "several", b"\1" + header({
    "__metadata__": {"format": "pt"},
    "x": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]},
    "y": {"dtype": "F8_E4M3", "shape": [], "data_offsets": [6, 7]},
    "empty": {"dtype": "I64", "shape": [0, 9], "data_offsets": [7, 7]}}))


def spelled(byte):
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return chr(byte if byte in printable else 256 + others.index(byte))


def tokenizer(pre, added=(), **model):
    vocabulary = {spelled(b): b for b in range(256)} | {"ab": 256, "abc": 257, "\u0120a": 258}
    return json.dumps({
        "version": "1.0", "added_tokens": list(added), "normalizer": None, "pre_tokenizer": pre,
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": vocabulary,
                  "merges": ["a b", "ab c", "\u0120 a"], **model}}, ensure_ascii=False).encode()


level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
split = {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}|[\\r\\n]+|\\s+(?!\\S)"},
         "behavior": "Isolated", "invert": False}
marks = [{"id": 259, "content": "<s>", "special": True, "lstrip": True, "rstrip": False,
          "normalized": False, "single_word": False}]
put("tokenizer", "plain", tokenizer(level))
put("tokenizer", "split", tokenizer(
    {"type": "Sequence", "pretokenizers": [
        split, {"type": "Digits", "individual_digits": True}, level]}, marks, ignore_merges=True)
    + b'\0{"add_bos_token":true,"bos_token":"<s>","chat_template":"{{bos_token}}"}\0 ab 12abc<s>')
put("tokenizer", "pairs", tokenizer(level, marks, merges=[["a", "b"], ["ab", "c"]]) + b"\0{}\0x")

saved = (b"MOEHALSQ" + struct.pack("<IIQQIIIIIIQiI", 1, 128, 0, 0, 1, 0, 3, 40, 256, 1, 3, 7, 0)
         + struct.pack("<fIIIQ", 0.5, 60000, 40, 0, 9)).ljust(128, b"\0")
put("saved", "header", b"\1" + saved)
put("saved", "repaired", b"\7" + saved + bytes(range(64)))
put("saved", "shapes", b"\3" + saved)
put("saved", "full", b"\7" + saved[:56] + struct.pack("<Q", 64) + saved[64:] + b"\xff" * 300)
