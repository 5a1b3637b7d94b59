#!/usr/bin/env python3
"""What the `tokenizers` library does with small tokenizers: behaviours.json beside this file.

usage: make_behaviours.py > behaviours.json      (pip install tokenizers; made with 0.23.3)

Every case starts from the tokenizer of tests/model/mini_tokenizer.c (one token a byte, id = byte,
and seven merges) and replaces the fields in `change`; `ids` is what the library makes of `text`
and `decoded` what it makes of the ids.
"""
import json
import random
import sys

from tokenizers import Tokenizer

MERGES = ["a b", "ab c", "Ġ a", "1 2", "12 3", "a a", "aa aa"]


def alphabet():
    chars, extra = {}, 0
    for b in range(256):
        if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174:
            chars[b] = chr(b)
        else:
            chars[b] = chr(256 + extra)
            extra += 1
    return chars


def mini():
    vocab = {c: b for b, c in alphabet().items()}
    for i, merge in enumerate(MERGES):
        vocab[merge.replace(" ", "")] = 256 + i
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "added_tokens": [], "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                  "ignore_merges": False, "vocab": vocab, "merges": MERGES},
    }


def byte_level(prefix=False, regex=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def split(pattern, behavior, invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def added(*tokens):
    keys = ("content", "normalized", "lstrip", "rstrip", "special")
    vocab, rows = mini()["model"]["vocab"], []
    for token in tokens:  # the ids the library will give, whatever the file says
        rows.append(dict(zip(keys, token), single_word=False, id=vocab.setdefault(token[0], len(vocab))))
    return rows


TEXTS = ["", " ", "abcabc", "ab  abc 123\n\n aab", "aaaaaaa aaaa", "abc--abc-- -", "--", "-abc",
         "12123 1234 ١٢ab", "é̀ 漢字 \u180e\u2003\u0085x\u00a0", "a\nb\n", "abc\n\nabc\r\n", "it's they'LL", " aaa"]

STEPS = {
    "none": byte_level(),
    "gpt2": byte_level(False, True),
    "gpt2 with a prefix space": byte_level(True, True),
    "prefix space": byte_level(True, False),
    "prefix space on every piece": sequence(split("-+", "Isolated"), byte_level(True, False)),
    "digits": sequence({"type": "Digits", "individual_digits": False}, byte_level()),
    "single digits": sequence({"type": "Digits", "individual_digits": True}, byte_level()),
    "white space": sequence(split(r"\s+", "Isolated"), byte_level()),
    "not white space": sequence(split(r"\S", "Removed"), byte_level()),
    "white space in a set": sequence(split(r"[\s-]", "Removed"), byte_level()),
    "not white space in a set": sequence(split(r"[^\S\n]", "Removed"), byte_level()),
    "end of line": sequence(split(r"\s+$", "Removed"), byte_level()),
    "begin of line": sequence(split(r"^.", "Removed"), byte_level()),
    "script": sequence(split(r"\p{Han}", "Removed"), byte_level()),
    "empty matches": sequence(split(r"-*", "Isolated"), byte_level()),
    "lookahead": sequence(split(r"(?=b)", "Isolated"), byte_level()),
    "caseless": sequence(split(r"(?i:'ll|T)", "Removed"), byte_level()),
    "u escape": sequence(split(r"[\u0041-\u007a]\x2d", "Removed"), byte_level()),
    "literal": sequence(split("-", "Removed", kind="String"), byte_level()),
    "literal of a pattern": sequence(split("b.", "Removed", kind="String"), byte_level()),
    "nested": sequence(sequence(split(" ", "Removed")), byte_level()),
}
for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
    for invert in (False, True):
        STEPS[f"{behavior}{' inverted' if invert else ''}"] = sequence(split("-|b", behavior, invert), byte_level())

ADDED = {
    "longest": added(("<a>", False, False, False, True), ("<a><b>", False, False, False, False)),
    "two rounds": added(("<a><b>", True, False, False, False), ("<b>", False, False, False, True)),
    "lstrip": added(("<a>", False, True, False, True), ("<b>", True, True, False, False)),
    "rstrip": added(("<a>", False, False, True, True), ("<b>", True, False, True, False)),
    "both": added(("<a>", False, True, True, True), ("<b>", True, True, True, False)),
    "ascii letters": added(("ab", False, False, False, True), ("b", False, False, False, False)),
    "bytes as characters": added(("éÿ", False, False, False, False), ("Ġ", False, False, False, False)),
}
ADDED_TEXTS = ["<a>", "x<a><b>y", "<a <a><a><b><b>", " \u2003\n<a>  <b>\t <a>ab b", "<b> <a>\u3000", "aabbab", "éÿ Ġ\u00e9"]


def case(name, change, text):
    description = mini()
    for path, value in change.items():
        at, keys = description, path.split(".")
        for key in keys[:-1]:
            at = at[key]
        at[keys[-1]] = value
    tokenizer = Tokenizer.from_str(json.dumps(description))
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    return {"name": name, "change": change, "text": text, "ids": ids,
            "decoded": tokenizer.decode(ids, skip_special_tokens=False),
            "decoded_without_special": tokenizer.decode(ids, skip_special_tokens=True)}


def decode_case(ids):
    tokenizer = Tokenizer.from_str(json.dumps(mini()))
    text = tokenizer.decode(ids, skip_special_tokens=False)
    return {"name": "decode", "change": {}, "ids": ids, "decoded": text, "decoded_without_special": text}


def main():
    rows = [case(name, {"pre_tokenizer": step}, text) for name, step in STEPS.items() for text in TEXTS]
    rows += [case(name, {"added_tokens": tokens}, text) for name, tokens in ADDED.items() for text in ADDED_TEXTS]
    rows += [case("ignore_merges", {"model.ignore_merges": True, "model.merges": [["a", "a"], ["Ġ", "a"]]}, text)
             for text in ("abc", "aaaa", " a", "12", "aab")]
    # Bytes that are no UTF-8: every kind of truncation, overlong forms, surrogates, past U+10FFFF.
    rng = random.Random(0)
    pool = [0x41, 0x80, 0xbf, 0xc0, 0xc2, 0xe0, 0xa0, 0xed, 0x9f, 0xef, 0xf0, 0x90, 0x9f, 0x98, 0x80, 0xf4, 0x8f, 0xf5, 0xff]
    rows += [decode_case([rng.choice(pool) for _ in range(rng.randint(1, 12))]) for _ in range(120)]
    json.dump(rows, sys.stdout, ensure_ascii=True, separators=(",", ":"))
    sys.stdout.write("\n")


main()
