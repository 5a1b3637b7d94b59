"""Modifiers of operands and results, and modes, as the CDNA 3 document defines them: what AMD's pseudocode
leaves out. make_vectors.py wraps the pseudocode of each instruction in a Variant."""
import math
import re

from pseudocode import FORMATS, Mode, decode_float, encode_float

USUAL = 0x3f0 # MODE: denormals, IEEE, DX10_CLAMP
IEEE, DX10, OVERFLOW = 1 << 9, 1 << 8, 1 << 23
ABS, NEG, CLAMP, OMOD, OPSEL, LONG = 7, 7 << 3, 1 << 6, 1 << 7, 15 << 8, 1 << 12 # flags of opcodes.def
SHORT = ("VOP1", "VOP2", "VOPC")
TOLERANT = re.compile(r"v_(exp|log|sin|cos|rsq|exp_legacy|log_legacy)_|v_frexp_mant|v_dot2")
ACCUMULATES = ("v_mac_f16", "v_fmac_f32", "v_fmac_f64", "v_pk_fmac_f16")


def result_kind(name):
    """Bits of the float that the result is, or 0; test_pseudocode.c says the same of it."""
    m = re.match(r"v_cvt_f(16|32|64)", name)
    if m:
        return int(m[1])
    if name.startswith(("v_cvt", "v_cmp")) or "frexp_exp" in name:
        return 0
    m = re.search(r"_f(16|32|64)$", name)
    return 32 if "dot2_f32" in name or "dot2c_f32" in name else int(m[1]) if m else 0


def is_packed(row):
    return row["enc"] == "VOP3P" and row["name"].startswith("v_pk")


class Variant:
    """Sources: op_sel picks a half, then |x|, then -x, then denormals are flushed. Results: the multiplier (where
    denormals of results are flushed and IEEE is off, else it does nothing; what becomes zero is +0), then clamp,
    then flush. Packed forms do so by halves. FP_DENORM: bit 0 lets denormal sources pass, bit 1 results."""

    def __init__(self, name, neg=0, absolute=0, clamp=0, omod=0, opsel=0, opsel_hi=7, neg_hi=0, mode=USUAL):
        self.name, self.neg, self.abs, self.clamp, self.omod = name, neg, absolute, clamp, omod
        self.opsel, self.opsel_hi, self.neg_hi, self.mode = opsel, opsel_hi, neg_hi, mode

    def passes(self, width, result):
        return self.mode >> (4 if width == 32 else 6) >> result & 1

    def flushed(self, bits, width, result):
        e_bits, m_bits = FORMATS[width]
        exponent = bits >> m_bits & ((1 << e_bits) - 1)
        return bits if exponent or self.passes(width, result) else bits & 1 << (width - 1)

    def part(self, bits, width, is_float, negative, absolute):
        top = 1 << (width - 1)
        bits &= (1 << width) - 1
        bits = bits & ~top if absolute else bits
        bits = bits ^ top if negative else bits
        return self.flushed(bits, width, 0) if is_float else bits

    def source(self, row, text, k, bits):
        """Source k as the lane's operation sees it."""
        if row["name"] == "v_pk_mov_b32": # its text does it
            return bits
        if "fma_mix" in row["name"]: # an f32, or a half that the text picks
            width = 16 if self.opsel_hi >> k & 1 else 32
            at = 16 if width == 16 and self.opsel >> k & 1 else 0
            one = (1 << width) - 1
            part = self.part(bits >> at, width, True, self.neg >> k & 1, self.abs >> k & 1)
            return bits & ~(one << at) | part << at
        if is_packed(row):
            width = 32 if row["name"].endswith("f32") else 16
            is_float = result_kind(row["name"]) != 0
            low = self.part(bits >> width * (self.opsel >> k & 1), width, is_float, self.neg >> k & 1, 0)
            high = self.part(bits >> width * (self.opsel_hi >> k & 1), width, is_float, self.neg_hi >> k & 1, 0)
            return low | high << width
        place = "D0" if k == 2 and row["name"] in ACCUMULATES else "S%d" % k
        kinds = re.findall(r"\b%s(?:\[\d+ : \d+\])?\.([fiu])(\d+)" % place, text)
        floats = {int(n) for letter, n in kinds if letter == "f"}
        width = min(floats or {int(n) for _, n in kinds} or {32})
        if width == 16 and self.opsel >> k & 1:
            bits >>= 16
        if row["name"] == "v_cndmask_b32": # the signs of a float, whatever it is
            return self.part(bits, width, False, self.neg >> k & 1, self.abs >> k & 1)
        if not floats:
            return bits
        rest = bits & 0xffff0000 if width == 16 else 0
        return rest | self.part(bits, width, True, self.neg >> k & 1, self.abs >> k & 1)

    def finish(self, bits, width):
        """What becomes of a float that is the result."""
        e_bits, m_bits = FORMATS[width]
        omod = self.omod if not self.passes(width, 1) and not self.mode & IEEE else 0
        v = decode_float(bits, width)
        if omod and math.isfinite(v):
            bits = encode_float(v * (1, 2, 4, 0.5)[omod], width)
            bits = bits if bits >> m_bits & ((1 << e_bits) - 1) else 0
            v = decode_float(bits, width)
        if self.clamp and v != v:
            bits = 0 if self.mode & DX10 else bits
        elif self.clamp:
            bits = encode_float(1.0 if v > 1 else v if v > 0 else 0.0, width)
        return self.flushed(bits, width, 1)

    def result(self, row, bits, mask, old):
        """The result and the mask of the bits that are written."""
        width = result_kind(row["name"])
        one = (1 << width) - 1
        if width and is_packed(row):
            return self.finish(bits & one, width) | self.finish(bits >> width & one, width) << width, mask
        if row["name"] == "v_fma_mixhi_f16":
            return self.finish(bits >> 16 & one, width) << 16, mask
        if width:
            bits = bits & ~one | self.finish(bits & one, width)
        if self.opsel & 8 and mask & 0xffffffff == 0xffff: # into the upper half
            return (bits & 0xffff) << 16 | old & 0xffff, 0xffffffff
        return bits, mask

    def rounding(self, row):
        saturate = self.clamp and not result_kind(row["name"])
        return Mode(self.mode & 3, self.mode >> 2 & 3, bool(self.mode & OVERFLOW), bool(saturate))


PLAIN = Variant("")


def selections(row, r):
    """Two sets of modifiers of sources, of which the one has what the other has not."""
    flags, name = row["flags"], row["name"]
    neg, absolute, opsel = flags >> 3 & 7, flags & 7, flags >> 8 & 15
    if "ldexp" in name: # what a sign is to a whole number is not said
        neg, absolute = neg & ~2, absolute & ~2
    packed = row["enc"] == "VOP3P"
    if packed:
        sources = 7 if row["c"] else 3
        neg = absolute = sources if result_kind(name) else 0
        opsel = sources
    elif row["d"] > 1 or re.match(r"v_mad_(u32_u16|i32_i16)", name):
        opsel &= 7
    for flip in (0, -1):
        x = r ^ flip
        found = {"neg": x & neg, "opsel": x >> 8 & opsel}
        if "fma_mix" in name:
            found.update({"absolute": x >> 24 & absolute, "opsel_hi": x >> 16 & 7})
        elif packed:
            found.update({"neg_hi": x >> 24 & absolute, "opsel_hi": 0 if "mov" in name else x >> 16 & 7})
        else:
            found["absolute"] = x >> 24 & absolute
        yield found


def variants(row, text, r):
    """Those of an instruction: each modifier of each source, and each mode, at least once. r: random."""
    flags, name, enc = row["flags"], row["name"], row["enc"]
    kind = result_kind(name)
    if enc not in SHORT + ("VOP3", "VOP3P") or name.startswith("v_dot") or (enc in SHORT and not flags & LONG):
        return
    some, other = selections(row, r)
    if any(some.values()) or any(other.values()) or enc in SHORT:
        yield Variant("long", **some)
        yield Variant("other", **other)
    if flags & CLAMP and not re.match(r"v_cmp|v_m?qsad|v_pack_b32_f16|v_pk_(mul_lo|lshlrev)", name):
        yield Variant("clamp", clamp=1)
        if kind:
            yield Variant("clamp-nan", clamp=1, mode=USUAL & ~DX10)
    if not re.search(r"\.f(16|32|64)", text) or TOLERANT.match(name) or "_class_" in name or enc == "VOPC" or "v_pack" in name:
        return
    yield Variant("flush", mode=IEEE, neg=some["neg"])
    yield Variant("flush-sources", mode=USUAL & ~0x50)
    if kind and flags & OMOD and enc != "VOP3P":
        for omod in (1, 2, 3):
            yield Variant("omod%d" % omod, omod=omod, mode=0)
        yield Variant("omod-ieee", omod=1 + r % 3, mode=IEEE)
        yield Variant("omod-denormals", omod=1 + r % 3, mode=USUAL & ~IEEE)
    if kind and not re.match(r"v_(div|sqrt|cube)", name): # several steps, or approximate
        for direction in (1, 2, 3):
            yield Variant("round%d" % direction, mode=USUAL | direction * 5)
        if kind == 16:
            yield Variant("overflow", mode=USUAL | OVERFLOW)
            yield Variant("overflow-up", mode=USUAL | OVERFLOW | 5)


def encode(row, how):
    """The words of the long form: v[8:9], v[10:11] and v[12:13] to v[14:15], masks in VCC."""
    enc, name = row["enc"], row["name"]
    w1 = (256 + 8 if row["a"] else 0) | (256 + 10 if row["b"] else 0) << 9 | how.neg << 29
    third = 256 + 12 if row["c"] else 0
    if enc == "VOP3P":
        hi = how.abs if "fma_mix" in name else how.neg_hi
        w0 = 0xd3800000 | row["op"] << 16 | hi << 8 | how.opsel << 11 | how.opsel_hi >> 2 << 14 | how.clamp << 15
        return [w0 | 14, w1 | third << 18 | (how.opsel_hi & 3) << 27]
    opcode = row["op"] + {"VOPC": 0, "VOP2": 0x100, "VOP1": 0x140, "VOP3": 0}[enc]
    w0 = 0xd0000000 | opcode << 16 | how.abs << 8 | how.opsel << 11 | how.clamp << 15
    w0 |= 106 if enc == "VOPC" else 14
    if row["flags"] & 0x8000 or "_co_u32" in name: # VCC too
        w0 |= 106 << 8
    if enc != "VOP3":
        third = 106 if re.match(r"v_(cndmask|addc|subb|subbrev)", name) else 0
    return [w0, w1 | third << 18 | how.omod << 27]
