#!/usr/bin/env python3
"""Makes pseudocode.vectors: what AMD's pseudocode says each instruction gives, for inputs that the test
makes in the same way.

usage: make_vectors.py TINYGRAD OPCODES.DEF OUT      (TINYGRAD: an unpacked wheel of tinygrad 0.14.0)

The pseudocode is CDNA 4's; modifiers and modes are those of modifiers.py. Format of OUT, text: `template KIND
WORDS...`, `skip NAME REASON...`, and for each instruction `op NAME KIND TOLERANCE MODE A B C D WORDS`, then its
results, one line a lane: masked result and mask. NAME is the mnemonic, with `/VARIANT` if it has modifiers. KIND v:
a lane each, then a line with VCC and EXEC; s: a workgroup each, with SCC and EXEC."""
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import modifiers
import pseudocode
from modifiers import ACCUMULATES, PLAIN, TOLERANT, USUAL
from pseudocode import Machine, Mode, Unknown, V

SPECIAL = [0, 1, 0xffffffff, 0x80000000, 0x7fffffff, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000,
           0x7fa00000, 0x80000001, 0x007fffff, 0x00800000, 0x7f7fffff, 0x3c003c00, 0x7c00fc00, 0x7e007d00, 0x00010001,
           0x3f000000, 0xc0200000, 0x4f000000, 0xcf000000, 0x7bff8400, 0x000083ff, 0x55555555, 0xff00ff00, 31, 32]
SPECIAL64 = [0, 1, (1 << 64) - 1, 1 << 63, (1 << 63) - 1, 0x3ff0000000000000, 0xbff0000000000000, 0x7ff0000000000000,
             0xfff0000000000000, 0x7ff8000000000000, 0x7ff4000000000000, 0x000fffffffffffff, 0x0010000000000000,
             0x7fefffffffffffff, 0x41dfffffffc00000, 0xc1e0000000000000, 0x3fe0000000000000, 0x4004000000000000]
M64 = (1 << 64) - 1
LANES, GROUPS, SHOWN = 64, 32, 24 # SHOWN: lanes of variants
LITERAL = 0x40444240 # 3.066..., and 3.125 as f16


class Random:
    def __init__(self, name):
        h = 0xcbf29ce484222325
        for c in name.encode():
            h = (h ^ c) * 0x100000001b3 & M64
        self.x = h | 1

    def next(self):
        x = self.x
        x ^= x >> 12
        x ^= x << 25 & M64
        x ^= x >> 27
        self.x = x
        return x * 0x2545f4914f6cdd1d & M64

    def word(self):
        r = self.next()
        c = r >> 60
        if c < 5:
            return SPECIAL[(r >> 32) % len(SPECIAL)]
        if c < 8:
            return r & 63
        if c < 12:
            return r & 0x807fffff | (100 + (r >> 32 & 63)) << 23
        return r & 0xffffffff

    def pair(self):
        r, more = self.next(), self.next()
        c = r >> 60
        if c < 5:
            return SPECIAL64[(r >> 32) % len(SPECIAL64)]
        if c < 8:
            return r & 63
        if c < 12:
            return more & 0x800fffffffffffff | (1000 + (r >> 32 & 63)) << 52
        return more

    def operand(self, width):
        return self.pair() if width >= 2 else self.word()


VECTOR = """
s_load_dwordx4 s[4:7], s[0:1], 0x0
v_lshlrev_b32 v1, 2, v0
s_waitcnt lgkmcnt(0)
global_load_dword v8, v1, s[4:5]
global_load_dword v9, v1, s[4:5] offset:256
global_load_dword v10, v1, s[4:5] offset:512
global_load_dword v11, v1, s[4:5] offset:768
global_load_dword v12, v1, s[4:5] offset:1024
global_load_dword v13, v1, s[4:5] offset:1280
global_load_dword v14, v1, s[4:5] offset:1536
global_load_dword v15, v1, s[4:5] offset:1792
s_load_dwordx2 s[8:9], s[4:5], 0x800
s_load_dwordx2 s[10:11], s[4:5], 0x808
v_mov_b32 v16, 0
s_waitcnt vmcnt(0) lgkmcnt(0)
s_mov_b64 vcc, s[8:9]
s_mov_b64 exec, s[10:11]
s_nop 15
s_nop 15
s_nop 15
s_nop 15
s_nop 15
s_nop 15
s_nop 15
s_nop 15
s_nop 15
s_nop 15
s_nop 15
s_nop 15
s_mov_b64 s[12:13], exec
s_mov_b64 exec, -1
global_store_dword v1, v14, s[6:7]
global_store_dword v1, v15, s[6:7] offset:256
v_mov_b32 v2, vcc_lo
v_mov_b32 v3, vcc_hi
v_mov_b32 v4, s12
v_mov_b32 v5, s13
global_store_dwordx4 v16, v[2:5], s[6:7] offset:512
s_endpgm
"""
SCALAR = """
s_load_dwordx4 s[4:7], s[0:1], 0x0
s_lshl_b32 s3, s2, 6
v_mov_b32 v16, s3
s_waitcnt lgkmcnt(0)
s_add_u32 s4, s4, s3
s_addc_u32 s5, s5, 0
s_load_dwordx8 s[8:15], s[4:5], 0x0
s_waitcnt lgkmcnt(0)
s_mov_b64 s[20:21], exec
s_cmp_lg_u32 s14, 0
s_nop 15
s_nop 15
s_nop 15
s_nop 15
s_nop 15
s_nop 15
s_nop 15
s_nop 15
s_nop 15
s_nop 15
s_nop 15
s_nop 15
s_cselect_b32 s16, 1, 0
s_mov_b64 s[18:19], exec
s_mov_b64 exec, -1
v_mov_b32 v2, s12
v_mov_b32 v3, s13
v_mov_b32 v4, s16
v_mov_b32 v5, 0
v_mov_b32 v6, s18
v_mov_b32 v7, s19
global_store_dwordx4 v16, v[2:5], s[6:7]
global_store_dwordx2 v16, v[6:7], s[6:7] offset:16
s_endpgm
"""


def assemble(text):
    done = subprocess.run(["llvm-mc-19", "-triple=amdgcn-amd-amdhsa", "-mcpu=gfx942", "-show-encoding"], input=text,
                          stdout=subprocess.PIPE, check=True, text=True).stdout
    data = [int(b, 16) for m in re.findall(r"encoding: \[([^\]]*)\]", done) for b in m.split(",")]
    return [int.from_bytes(bytes(data[k:k + 4]), "little") for k in range(0, len(data), 4)]


def encode(row):
    """The short form."""
    enc, op = row["enc"], row["op"]
    v8, v10, v12 = 256 + 8, 256 + 10, 256 + 12
    if enc == "VOP1":
        return [0x7e000000 | op << 9 | 14 << 17 | v8]
    if enc == "VOP2":
        literal = [LITERAL] if row["flags"] & 0x8000 else []
        return [op << 25 | 14 << 17 | 10 << 9 | v8] + literal
    if enc == "VOPC":
        return [0x7c000000 | op << 17 | 10 << 9 | v8]
    if enc in ("VOP3", "VOP3P"):
        w0 = (0xd0000000 | op << 16 if enc == "VOP3" else 0xd3800000 | op << 16 | 1 << 14) | 14
        if row["flags"] & 0x8000:
            w0 |= 106 << 8
        w1 = (v8 if row["a"] else 0) | (v10 if row["b"] else 0) << 9 | (v12 if row["c"] else 0) << 18
        return [w0, w1 | (3 << 27 if enc == "VOP3P" else 0)]
    if enc == "SOP1":
        return [0xbe800000 | op << 8 | (12 << 16 if row["d"] else 0) | (8 if row["a"] else 0)]
    if enc == "SOP2":
        return [0x80000000 | op << 23 | 12 << 16 | 10 << 8 | 8]
    if enc == "SOPC":
        return [0xbf000000 | op << 16 | 10 << 8 | 8]
    return [0xb0000000 | op << 23 | 12 << 16 | row["simm"]]


SKIP = [
    (r"s_(getpc|setpc|swappc|rfe|call|cbranch\w*|getreg|setreg|setvskip|set_gpr|movrel)\w*", "changes the flow or reads "
     "the machine's state: tested by itself"),
    (r"v_(readlane|writelane|readfirstlane|swap)\w*|v_accvgpr\w+|v_(nop|clrexcp)", "more than a lane: tested by itself"),
    (r"v_(mfma|smfmac)\w+", "matrix: mfma-layouts.txt"),
    (r"v_cvt_\w*(fp8|bf8)\w*", "FP8 is CDNA 4's there: tested exhaustively"),
    (r"v_cvt_pkrtz_f16_f32", "rounds toward zero: tested exhaustively"),
    (r"v_cvt_off_f32_i4", "the pseudocode has no table: tested by itself"),
    (r"v_mqsad_u32_u8|v_trig_preop_f64", "more bits than are modelled here: tested by itself"),
    (r"v_screen\w*", "not implemented"),
    (r"v_cvt_pkaccum\w*|v_cvt_pk_u8_f32", "the pseudocode does not say how it rounds: tested by itself"),
]


ALIKE = {"v_exp_legacy_f32": "v_exp_f32", "v_log_legacy_f32": "v_log_f32",
         "v_div_fixup_legacy_f16": "v_div_fixup_f16"} # where there is no text, or a loose one


def texts(pcode):
    out = {}
    for op, text in pcode.items():
        kind = type(op).__name__[:-2]
        if kind in ("VOP1", "VOP2", "VOP3", "VOP3P", "VOP3SD", "VOPC", "SOP1", "SOP2", "SOPC", "SOPK"):
            name = re.sub(r"_E(32|64)$", "", op.name).lower()
            out.setdefault(name, text)
    for name in ("_f32", "lo_f16", "hi_f16"): # fused, on gfx942
        text = out["v_mad_mix" + name].replace("in[0] * in[1] + in[2]", "fma(in[0], in[1], in[2])")
        out["v_fma_mix" + name] = text.replace("declare S : 32'B[3];\n", "")
    out["v_pk_mov_b32"] = re.sub(r"(S\d)\.u32\[", r"\1[", out["v_pk_mov_b32"]) # of all 64 bits
    for name, alike in ALIKE.items():
        out[name] = out[alike]
    return out


def library(found):
    def make(name):
        def f(machine, args):
            state = {"S%d" % k: V("b", max(a.width, 32), a.bits()) for k, a in enumerate(args)}
            state["D0"] = V("b", 64, 0)
            state["WAVE_MODE"] = V("b", 16, 0)
            m = start(found[name], state, machine.vars["IEEE_MODE"].raw << 9)
            m.run()
            kind = re.search(r"_(f|i|u)(\d+)$", name)
            if not kind:
                return V("u", 32, m.vars["D0"].raw & 0xffffffff)
            return pseudocode.view(m.vars["D0"], kind[1], int(kind[2]))
        return f
    for name in found:
        pseudocode.LIBRARY[name] = make(name)
    pseudocode.LIBRARY["v_sad_u8"] = lambda m, a: V("u", 32, a[2].bits() + sum(
        abs((a[0].bits() >> k & 255) - (a[1].bits() >> k & 255)) for k in (0, 8, 16, 24)))
    pseudocode.LIBRARY["v_msad_u8"] = lambda m, a: V("u", 32, a[2].bits() + sum(
        abs((a[0].bits() >> k & 255) - (a[1].bits() >> k & 255)) for k in (0, 8, 16, 24) if a[1].bits() >> k & 255))


def start(text, state, mode=USUAL):
    # The product with 2 pi is not rounded: arguments are turns.
    text = re.sub(r"(sin|cos)\((S0\.f\d+) \* \d+'F\(PI \* 2\.0\)\)", r"\1_of_turns(\2)", text)
    text = text.replace("WAVE_MODE.IEEE", "IEEE_MODE").replace("WAVE_MODE.DX10_CLAMP", "0")
    m = Machine(text, state)
    m.vars["IEEE_MODE"] = V("u", 1, mode >> 9 & 1)
    m.fixed, m.written = {"VCC", "SCC", "EXEC", "D1"}, {}
    return m


def run(row, text, state, how):
    m = start(text, state, how.mode)
    pseudocode.set_mode(how.rounding(row))
    try:
        m.run()
    finally:
        pseudocode.set_mode(Mode())
    d = m.vars["D0"]
    mask = m.written.get("D0", None)
    if mask is None:
        mask = (1 << d.width) - 1 if d is not state.get("_old") else 0
    return m.vars, d.raw & mask & M64, mask & M64


def vector(row, text, rnd, how=PLAIN):
    sizes = [row["a"], row["b"] or 1, row["c"] or 1, row["d"] or 2]
    lanes = [[rnd.operand(n) for n in sizes] for _ in range(LANES)]
    vcc, execution = rnd.next(), rnd.next() | rnd.next()
    out, vcc_out, exec_out = [], vcc, execution
    compare = row["enc"] == "VOPC"
    if compare:
        vcc_out = 0
    carry = bool(re.search(r"_co_u32|mad_(u64_u32|i64_i32)|div_scale", row["name"]))
    if carry:
        vcc_out = 0
    if row["name"].startswith("v_cmpx"):
        exec_out = 0
    for lane, (s0, s1, s2, d) in enumerate(lanes):
        if not execution >> lane & 1:
            out.append((d, (1 << 32 * max(row["d"], 1)) - 1))
            continue
        if how is not PLAIN:
            s0, s1, s2 = (how.source(row, text, k, s) for k, s in enumerate((s0, s1, s2)))
        raw = d
        if row["name"] in ACCUMULATES:
            d = how.source(row, text, 2, d)
        old = V("b", 64, d)
        state = {"S0": V("b", 64, s0), "S1": V("b", 64, s1), "S2": V("b", 64, s2), "D0": old, "_old": old,
                 "VCC": V("u", 64, vcc), "EXEC": V("u", 64, execution), "laneId": V("u", 32, lane),
                 "D1": V("u", 1, 0), "OPSEL": V("u", 4, how.opsel),
                 "OPSEL_HI": V("u", 3, how.opsel_hi), "SCC": V("u", 1, 0)}
        if "fma_mix" in row["name"]:
            state["S"] = [V("b", 32, s) for s in (s0, s1, s2)]
        for width in (16, 32):
            state["SIMM%d" % width] = V("b", width, LITERAL & (1 << width) - 1)
        if row["name"] == "v_mad_u64_u32" or row["name"] == "v_mad_i64_i32":
            sign = row["name"][6] == "i"
            x, y = (s - (1 << 32) if sign and s >> 31 else s for s in (s0, s1))
            z = s2 - (1 << 64) if sign and s2 >> 63 else s2
            r = x * y + z
            out.append((r & M64, M64))
            over = not -(1 << 63) <= r < 1 << 63 if sign else r > M64
            vcc_out |= over << lane
            continue
        if compare:
            state["D0"] = V("u", 64, 0)
            variables, _, _ = run(row, text, state, how)
            vcc_out |= (variables["D0"].raw >> lane & 1) << lane
            if row["name"].startswith("v_cmpx"):
                exec_out |= (variables["D0"].raw >> lane & 1) << lane
            out.append((0, 0))
            continue
        if "div_scale" in row["name"]:
            state["VCC"] = V("u", 64, 0)
            variables, r, mask = run(row, text, state, how)
            if variables["D0"] is old:
                r, mask = (s0, (1 << 32 * row["d"]) - 1)
            vcc_out |= (variables["VCC"].raw & 1) << lane
        else:
            variables, r, mask = run(row, text, state, how)
            if how is not PLAIN:
                r, mask = how.result(row, r, mask, raw)
            if carry:
                vcc_out |= (variables["VCC"].raw >> lane & 1) << lane
        out.append((r & ((1 << 32 * row["d"]) - 1), mask & ((1 << 32 * row["d"]) - 1)))
    lines = ["%x %x" % line for line in (out if how is PLAIN else out[:SHOWN])]
    return lines + ["%x %x" % (vcc_out, exec_out)]


def scalar(row, text, rnd):
    lines = []
    row["simm"] = rnd.next() & 0xffff
    for _ in range(GROUPS):
        s0, s1, d = (rnd.operand(n) for n in (row["a"] or 1, row["b"] or 1, row["d"] or 1))
        scc = rnd.next() & 1
        old = V("b", 64, d)
        state = {"S0": V("b", 64, s0), "S1": V("b", 64, s1), "D0": old, "_old": old, "SCC": V("u", 1, scc),
                 "EXEC": V("u", 64, M64), "VCC": V("u", 64, 0), "SIMM16": V("b", 16, row["simm"])}
        if row["enc"] == "SOPK":
            if row["name"].startswith("s_cmpk"):
                state["S0"], state["S1"] = V("b", 64, d), V("b", 16, row["simm"])
            else:
                state["S0"] = V("b", 16, row["simm"])
        m = start(text, state)
        m.run()
        width = (1 << 32 * row["d"]) - 1 if row["d"] and not row["name"].startswith("s_cmpk") else 0
        lines.append("%x %x %x %x" % (m.vars["D0"].raw & width, width, m.vars["SCC"].raw & 1, m.vars["EXEC"].raw))
    return lines


def put(out, row, how, words, lines):
    name = row["name"] + ("/" + how.name if how.name else "")
    print("op", name, name[0], 1 if TOLERANT.match(name) else 0, "%x" % how.mode, row["a"], row["b"] or 1,
          row["c"] or 1, row["d"], *("%x" % w for w in words), file=out)
    print("\n".join(lines), file=out)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.path.insert(0, sys.argv[1])
    from tinygrad.runtime.autogen.amd.cdna.str_pcode import PCODE
    found = texts(PCODE)
    library(found)
    rows = []
    for line in open(sys.argv[2], encoding="ascii"):
        m = re.match(r"O\((\w+), (\d+), (\w+), (\d), (\d), (\d), (\d), 0x(\w+)\)", line)
        if m and m[1] in ("VOP1", "VOP2", "VOPC", "VOP3", "VOP3P", "SOP1", "SOP2", "SOPC", "SOPK"):
            rows.append({"enc": m[1], "op": int(m[2]), "name": m[3], "d": int(m[4]), "a": int(m[5]), "b": int(m[6]),
                         "c": int(m[7]), "flags": int(m[8], 16)})
        elif line.startswith("O(VOP3P") or line.startswith("O(SOP"):
            pass
    with open(sys.argv[3], "w", encoding="ascii") as out:
        print("template v", *("%x" % w for w in assemble(VECTOR)), file=out)
        print("template s", *("%x" % w for w in assemble(SCALAR)), file=out)
        for row in rows:
            name, rnd = row["name"], Random(row["name"])
            reason = next((why for pattern, why in SKIP if re.fullmatch(pattern, name)), None)
            if not reason and name not in found:
                reason = "no pseudocode: CDNA 4 has it not, or under another name"
            if not reason:
                try:
                    kind = "s" if name[0] == "s" else "v"
                    lines = (scalar if kind == "s" else vector)(row, found[name], rnd)
                except (Unknown, ValueError, KeyError, TypeError, AttributeError, OverflowError, IndexError) as why:
                    reason = f"pseudocode not understood: {why}"
            if reason:
                print("skip", name, reason, file=out)
                continue
            put(out, row, PLAIN, encode(row), lines)
            for how in modifiers.variants(row, found[name], Random(name + "/variants").next()):
                lines = vector(row, found[name], Random(name + "/" + how.name), how)
                put(out, row, how, modifiers.encode(row, how), lines)


if __name__ == "__main__":
    main()
