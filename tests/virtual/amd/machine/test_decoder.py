#!/usr/bin/env python3
"""The decoder against LLVM's disassembler: whether a word is an instruction, its length, its text.

usage: test_decoder.py DISASSEMBLE FOLDERS [WORDS [SEED]]

Every instruction of gfx942's code objects in FOLDERS (separated by colons), the modifiers of short forms, then WORDS random ones: of
each encoding, and those of the code objects with some bits changed. What differs must be in KNOWN, which says why.
"""
import collections
import ctypes
import glob
import os
import random
import re
import subprocess
import sys

OPCODES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../../virtual/amd/isa/opcodes.def")
# Mnemonic (a pattern) and why the decoder differs from LLVM 19 there.
KNOWN = [
    (r"buffer_(wbinvl1|wbinvl1_vol|inv|wbl2)", "bits that mean nothing: LLVM wants other ones zero"),
    (r"s_(atomic|buffer_atomic|store|buffer_store|scratch|dcache|atc_probe|memtime|memrealtime|rfe"
     r"|cbranch_g_fork|cbranch_i_fork|cbranch_join)\w*", "gfx942 has none, or only the debugger's"),
    (r"s_sendmsg(halt)?", "names of graphics messages"),
    (r"ds_(gws_\w+|nop|permute_b32|bpermute_b32)", "bits that mean nothing"),
    (r"s_(swappc|setpc)_b64|s_movrel\w+", "a constant as a register"),
    (r"v_(mqsad_u32_u8|cvt_sr_\w+|cvt_pk_u8_f32|dot\dc_\w+|madmk_f16|madak_f16|pk_\w+16|pack_b32_f16|ldexp_\w+|trig_preop_f64|add_i16|sub_i16)",
     "operands that LLVM restricts or spells in its own way"),
    (r"v_(smfmac|mfma)\w+", "scalar sources, which LLVM accepts in some"),
    (r"v_(addc|subb|subbrev)_co_u32|v_cndmask_b32|v_readlane_b32|v_swap_b32|v_sat_pk_u8_i16", "masks and results that are no SGPRs"),
    (r"v_cvt_(rpi|flr)_i32_f32|v_interp\w+", "forms that were renamed"),
    (r"v_(lshl|lshr|ashr)rev_[bi]16", "LLVM writes a literal of 16 bits as the f32 of all its 32"),
]
# What LLVM accepts with a warning, or accepts though the registers are not there.
REFUSED = re.compile(r"/\*|Warning|\bnull\b|lds_direct|pops_exiting|v_readfirstlane_b32 \S+ src_|v_cmpx?_\w+ src_"
                     r"|v_accvgpr_mov_b32 a\d+, src"
                     r"|s\[\d+:10[2-9]\]|s\[\d+:11\d\]")


class Llvm:
    def __init__(self):
        lib = None
        for name in ("libLLVM-19.so", "libLLVM-19.so.1", "libLLVM.so.19.1"):
            try:
                lib = ctypes.CDLL(name)
                break
            except OSError:
                continue
        if lib is None:
            print("SKIP: libLLVM-19 is not installed (apt-get install libllvm19)")
            sys.exit(77)
        for part in ("TargetInfo", "Target", "TargetMC", "Disassembler"):
            getattr(lib, "LLVMInitializeAMDGPU" + part)()
        lib.LLVMCreateDisasmCPU.restype = ctypes.c_void_p
        lib.LLVMCreateDisasmCPU.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p,
                                            ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
        lib.LLVMDisasmInstruction.restype = ctypes.c_size_t
        lib.LLVMDisasmInstruction.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint64,
                                              ctypes.c_uint64, ctypes.c_char_p, ctypes.c_size_t]
        self.lib = lib
        self.context = lib.LLVMCreateDisasmCPU(b"amdgcn-amd-amdhsa", b"gfx942", None, 0, None, None)
        self.text = ctypes.create_string_buffer(1024)

    def __call__(self, words):
        data = b"".join(word.to_bytes(4, "little") for word in words)
        size = self.lib.LLVMDisasmInstruction(self.context, data, len(data), 0, self.text, 1024)
        text = re.sub(r"\s+", " ", self.text.value.decode(errors="replace")).strip()
        if not size or REFUSED.search(text):
            return 0, ""
        return size // 4, text


def harmless(words):
    """LLVM 19 crashes on SDWA with selections that do not exist."""
    if words[0] >> 31 == 0 and words[0] & 511 == 249:
        words[1] &= ~0x07071f00
    return words


def texts_of(folders):
    """Words of the executable sections of the code objects."""
    # In an order that does not depend on where the folders lie: the random words follow from it.
    for path in (p for folder in folders.split(":") for p in sorted(glob.glob(folder + "/*.co"))):
        with open(path, "rb") as file:
            data = file.read()
        if data[48] != 0x4c: # e_flags: gfx942
            continue
        u64 = lambda at: int.from_bytes(data[at:at + 8], "little")
        shoff, count = u64(40), int.from_bytes(data[60:62], "little")
        for k in range(count):
            at = shoff + 64 * k
            kind, flags = int.from_bytes(data[at + 4:at + 8], "little"), u64(at + 8)
            if kind == 1 and flags & 4:
                begin, size = u64(at + 24), u64(at + 32)
                yield [int.from_bytes(data[x:x + 4], "little")
                       for x in range(begin, begin + size - size % 4, 4)]


PREFIXES = [(0x7e000000, 25), (0x7c000000, 25), (0xbe800000, 23), (0xbf000000, 23), (0xbf800000, 23),
            (0xb0000000, 28), (0xc0000000, 26), (0xd0000000, 26), (0xd1000000, 26), (0xd3800000, 23),
            (0xd8000000, 26), (0xdc000000, 26), (0xe0000000, 26), (0xe8000000, 26), (0x80000000, 30),
            (0x00000000, 31)]


def random_words(source, known):
    if source.random() < 0.5 or not known:
        prefix, free = source.choice(PREFIXES)
        return [prefix | source.getrandbits(free), source.getrandbits(32), source.getrandbits(32)]
    words = list(source.choice(known))
    for _ in range(source.randint(1, 3)):
        k = source.randrange(2)
        shift = source.choice((0, 8, 9, 16, 17, 18, 24))
        words[k] = (words[k] & ~(255 << shift) | source.getrandbits(8) << shift) & 0xffffffff
    return words


def edges():
    """What random words seldom are: the forms of short instructions that exchange lanes or take parts, with each modifier and
    control and with registers at the end of the file; and long ones whose registers end behind it."""
    for line in open(OPCODES, encoding="ascii"):
        m = re.match(r"O\((VOP1|VOP2|VOPC|VOP3|VOP3P), (\d+), (\w+), .*, 0x(\w+)\)", line)
        if not m:
            continue
        encoding, op, flags = m[1], int(m[2]), int(m[4], 16)
        if encoding in ("VOP3", "VOP3P"):
            for d in (2, 255):
                for a in (2, 255):
                    yield [(0xd0000000 if encoding == "VOP3" else 0xd3804000) | op << 16 | d, 0x1c000000 * (encoding == "VOP3P")
                           | 260 << 18 | 258 << 9 | 256 + a, 0]
            continue
        short = {"VOP1": 0x7e000000 | op << 9 | 4 << 17, "VOP2": op << 25 | 4 << 17 | 6 << 9,
                 "VOPC": 0x7c000000 | op << 17 | 6 << 9}[encoding]
        if flags & 0x2000:
            for k in range(512): # sext, neg, abs of each source; clamp, omod; a scalar
                word = 0x06060002 | (0 if encoding == "VOPC" else 0x600 | (k >> 6 & 1) << 13 | (k >> 7 & 1) << 14)
                yield [short | 249, word | (k & 7) << 19 | (k >> 3 & 7) << 27 | (k >> 8) << 31, 0]
        if flags & 0x4000:
            for control in range(0, 512, 5):
                yield [short | 250, 0xff000000 | control << 8 | (255 if control % 2 else 3), 0]


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 60000
    source = random.Random(int(sys.argv[4]) if len(sys.argv) > 4 else 1)
    llvm = Llvm()
    known = []
    for text in texts_of(sys.argv[2]):
        at = 0
        while at < len(text):
            words = (text[at:at + 3] + [0, 0])[:3]
            length, _ = llvm(words)
            known.append(words)
            at += length or 1
    tried = known + list(edges()) + [harmless(random_words(source, known)) for _ in range(count)]
    lines = "".join("%x %x %x\n" % tuple(words) for words in tried)
    ours = subprocess.run([sys.argv[1]], input=lines, stdout=subprocess.PIPE, text=True,
                          check=True).stdout.splitlines()
    assert len(ours) == len(tried)
    accepted, differ, unknown = 0, collections.Counter(), []
    for k, (words, line) in enumerate(zip(tried, ours)):
        mine, text = line.split(" ", 1)
        length, want = llvm(words)
        accepted += length != 0
        if int(mine) == length and (not length or text == want):
            continue
        name = re.sub(r"_(e32|e64|sdwa|dpp)$", "", (want or text).split()[0])
        reason = next((why for pattern, why in KNOWN if re.fullmatch(pattern, name)), None)
        if reason and k >= len(known):
            differ[reason] += 1
        else:
            unknown.append((["%08x" % w for w in words], mine, text, length, want))
    print(f"{len(known)} instructions of code objects, {count} random words: "
          f"LLVM accepts {accepted} in all")
    for reason, times in differ.most_common():
        print(f"known differences: {times}: {reason}")
    for line in unknown[:20]:
        print("DIFFERS:", *line)
    print(f"{len(unknown)} unknown differences")
    return 1 if unknown or len(known) < 1000 else 0


if __name__ == "__main__":
    sys.exit(main())
