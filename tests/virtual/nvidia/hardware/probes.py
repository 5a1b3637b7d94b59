#!/usr/bin/env python3
"""Writes probes.def: the table of instruction probes that hwvectors.c runs.

P(name, version, compare, inputs, outputs, n, body): a warp-uniform piece of PTX between loads of the
inputs into %i0.. and stores of %o0... `inputs` has a letter for each 32-bit word (hwvectors.c: which
values). `compare`: x bit for bit, a N units in the last place, m matrix sums."""

probes = []


def p(name, inputs, outputs, body, compare="x", version=80, n=1024):
    probes.append((name, version, compare, inputs, outputs, n, body))


def unary(name, instruction, kind, dst="f", src="f", **kw):
    """instruction %dst, %src with registers of types f, b (32 bits), h (16 bits), d, l (64 bits)."""
    body = load(src, "0", 0) + f"{instruction} {reg(dst, 1)}, {reg(src, 0)}; " + store(dst, 1)
    p(name, kind, words(dst), body, **kw)


def reg(t, i):
    return {"f": f"%f{i}", "b": f"%b{i}", "h": f"%h{i}", "d": f"%d{i}", "l": f"%l{i}"}[t]


def words(t):
    return 2 if t in "dl" else 1


def load(t, first, i):
    k = int(first)
    if t == "f":
        return f"mov.b32 %f{i}, %i{k}; "
    if t == "b":
        return f"mov.b32 %b{i}, %i{k}; "
    if t == "h":
        return f"cvt.u16.u32 %h{i}, %i{k}; "
    return f"mov.b64 {reg(t, i)}, {{%i{k}, %i{k + 1}}}; "


def store(t, i, k=0):
    if t in "fb":
        return f"mov.b32 %o{k}, {reg(t, i)}; "
    if t == "h":
        return f"cvt.u32.u16 %o{k}, %h{i}; "
    return f"mov.b64 {{%o{k}, %o{k + 1}}}, {reg(t, i)}; "


def nary(name, instruction, kinds, types, dst, **kw):
    """Several operands; `types` names their registers."""
    body, k = "", 0
    for i, t in enumerate(types):
        body += load(t, str(k), i)
        k += words(t)
    body += f"{instruction} {reg(dst, 7)}, " + ", ".join(reg(t, i) for i, t in enumerate(types))
    body += "; " + store(dst, 7)
    assert len(kinds) == k, name
    p(name, kinds, words(dst), body, **kw)


# ---- conversions ----
for r in "rn", "rz":
    unary(f"cvt_{r}_f16_f32", f"cvt.{r}.f16.f32", "f", "h", "f")
    unary(f"cvt_{r}_bf16_f32", f"cvt.{r}.bf16.f32", "f", "h", "f")
    for t in "f16x2", "bf16x2":
        nary(f"cvt_{r}_{t}_f32", f"cvt.{r}.{t}.f32", "ff", "ff", "b")
        nary(f"cvt_{r}_relu_{t}_f32", f"cvt.{r}.relu.{t}.f32", "ff", "ff", "b")
unary("cvt_rn_sat_f16_f32", "cvt.rn.sat.f16.f32", "f", "h", "f")
unary("cvt_rn_ftz_f16_f32", "cvt.rn.ftz.f16.f32", "f", "h", "f")
unary("cvt_f32_f16", "cvt.f32.f16", "u", "f", "h")
unary("cvt_ftz_f32_f16", "cvt.ftz.f32.f16", "u", "f", "h")
unary("cvt_f32_bf16", "cvt.f32.bf16", "u", "f", "h")
unary("cvt_rna_tf32_f32", "cvt.rna.tf32.f32", "f", "b", "f")
for t, r in ("s32", "rni"), ("s32", "rzi"), ("s32", "rmi"), ("s32", "rpi"), ("u32", "rzi"), ("u32", "rni"):
    unary(f"cvt_{r}_{t}_f32", f"cvt.{r}.{t}.f32", "f", "b", "f")
    unary(f"cvt_{r}_ftz_{t}_f32", f"cvt.{r}.ftz.{t}.f32", "f", "b", "f")
for t in "s64", "u64":
    unary(f"cvt_rzi_{t}_f32", f"cvt.rzi.{t}.f32", "f", "l", "f")
    unary(f"cvt_rni_{t}_f64", f"cvt.rni.{t}.f64", "dd", "l", "d")
for t in "s16", "u16":
    unary(f"cvt_rzi_{t}_f32", f"cvt.rzi.{t}.f32", "f", "h", "f")
for t in "s8", "u8":
    p(f"cvt_rzi_{t}_f32", "f", 1, f"mov.b32 %f0, %i0; cvt.rzi.{t}.f32 %b1, %f0; mov.b32 %o0, %b1; ")
    p(f"cvt_sat_{t}_s32", "u", 1, f"cvt.sat.{t}.s32 %b1, %i0; mov.b32 %o0, %b1; ")
unary("cvt_rzi_s32_f16", "cvt.rzi.s32.f16", "u", "b", "h")
unary("cvt_rni_s32_f64", "cvt.rni.s32.f64", "dd", "b", "d")
unary("cvt_rzi_u32_f64", "cvt.rzi.u32.f64", "dd", "b", "d")
for r in "rn", "rz", "rm", "rp":
    unary(f"cvt_{r}_f32_s32", f"cvt.{r}.f32.s32", "u", "f", "b")
    unary(f"cvt_{r}_f32_u32", f"cvt.{r}.f32.u32", "u", "f", "b")
    unary(f"cvt_{r}_f32_s64", f"cvt.{r}.f32.s64", "uu", "f", "l")
    unary(f"cvt_{r}_f32_u64", f"cvt.{r}.f32.u64", "uu", "f", "l")
    unary(f"cvt_{r}_f32_f64", f"cvt.{r}.f32.f64", "dd", "f", "d")
    unary(f"cvt_{r}_f64_s64", f"cvt.{r}.f64.s64", "uu", "d", "l")
unary("cvt_rn_ftz_f32_f64", "cvt.rn.ftz.f32.f64", "dd", "f", "d")
unary("cvt_f64_f32", "cvt.f64.f32", "f", "d", "f")
unary("cvt_rn_f16_s32", "cvt.rn.f16.s32", "u", "h", "b")
unary("cvt_rn_f16_f64", "cvt.rn.f16.f64", "dd", "h", "d")
for r in "rni", "rzi", "rmi", "rpi":
    unary(f"cvt_{r}_f32_f32", f"cvt.{r}.f32.f32", "f")
    unary(f"cvt_{r}_ftz_f32_f32", f"cvt.{r}.ftz.f32.f32", "f")
    unary(f"cvt_{r}_f64_f64", f"cvt.{r}.f64.f64", "dd", "d", "d")
unary("cvt_sat_f32_f32", "cvt.sat.f32.f32", "f")
unary("cvt_sat_ftz_f32_f32", "cvt.sat.ftz.f32.f32", "f")
for t in "e4m3x2", "e5m2x2":
    nary(f"cvt_rn_satfinite_{t}_f32", f"cvt.rn.satfinite.{t}.f32", "ff", "ff", "h", version=81, n=2048)
    nary(f"cvt_rn_satfinite_relu_{t}_f32", f"cvt.rn.satfinite.relu.{t}.f32", "ff", "ff", "h", version=81)
    unary(f"cvt_rn_satfinite_{t}_f16x2", f"cvt.rn.satfinite.{t}.f16x2", "h", "h", "b", version=81, n=2048)
    unary(f"cvt_rn_f16x2_{t}", f"cvt.rn.f16x2.{t}", "i", "b", "h", version=81, n=256)
    unary(f"cvt_rn_relu_f16x2_{t}", f"cvt.rn.relu.f16x2.{t}", "i", "b", "h", version=81, n=256)

# ---- arithmetic that is exact by IEEE ----
for r in "rn", "rz", "rm", "rp":
    nary(f"add_{r}_f32", f"add.{r}.f32", "ff", "ff", "f")
    nary(f"mul_{r}_f32", f"mul.{r}.f32", "ff", "ff", "f")
    nary(f"fma_{r}_f32", f"fma.{r}.f32", "fff", "fff", "f")
    nary(f"div_{r}_f32", f"div.{r}.f32", "ff", "ff", "f")
    unary(f"sqrt_{r}_f32", f"sqrt.{r}.f32", "f")
    unary(f"rcp_{r}_f32", f"rcp.{r}.f32", "f")
    nary(f"fma_{r}_f64", f"fma.{r}.f64", "dddddd", "ddd", "d", n=512)
    nary(f"div_{r}_f64", f"div.{r}.f64", "dddd", "dd", "d", n=512)
for op in "add", "mul", "div":
    nary(f"{op}_rn_ftz_f32", f"{op}.rn.ftz.f32", "ff", "ff", "f")
nary("fma_rn_ftz_f32", "fma.rn.ftz.f32", "fff", "fff", "f")
nary("fma_rn_sat_f32", "fma.rn.sat.f32", "fff", "fff", "f")
nary("add_sat_f32", "add.sat.f32", "ff", "ff", "f")
unary("sqrt_rn_ftz_f32", "sqrt.rn.ftz.f32", "f")
unary("sqrt_rn_f64", "sqrt.rn.f64", "dd", "d", "d")
for op in "min", "max":
    for m in "f32", "ftz.f32", "NaN.f32", "NaN.xorsign.abs.f32", "f64":
        t = "d" if m == "f64" else "f"
        k = "dddd" if m == "f64" else "ff"
        nary(f"{op}_{m.replace('.', '_')}", f"{op}.{m}", k, t * 2, t)
    for m, k in (("f16x2", "h"), ("NaN.f16x2", "h"), ("ftz.f16x2", "h"), ("bf16x2", "c"), ("NaN.bf16x2", "c")):
        nary(f"{op}_{m.replace('.', '_')}", f"{op}.{m}", k * 2, "bb", "b")
for op in "add", "sub", "mul":
    nary(f"{op}_f16x2", f"{op}.f16x2", "hh", "bb", "b")
    nary(f"{op}_ftz_f16x2", f"{op}.ftz.f16x2", "hh", "bb", "b")
    nary(f"{op}_sat_f16x2", f"{op}.sat.f16x2", "hh", "bb", "b")
    nary(f"{op}_bf16x2", f"{op}.bf16x2", "cc", "bb", "b")
for m, k in (("rn.f16x2", "h"), ("rn.ftz.f16x2", "h"), ("rn.sat.f16x2", "h"), ("rn.relu.f16x2", "h"),
             ("rn.bf16x2", "c"), ("rn.relu.bf16x2", "c")):
    nary(f"fma_{m.replace('.', '_')}", f"fma.{m}", k * 3, "bbb", "b")
for c in "eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan":
    p(f"setp_{c}_f32", "ff", 1, f"mov.b32 %f0, %i0; mov.b32 %f1, %i1; setp.{c}.f32 %p0, %f0, %f1; "
      "selp.b32 %o0, 1, 0, %p0; ", n=512)
p("set_eq_f16x2", "hh", 1, "set.eq.f16x2.f16x2 %o0, %i0, %i1; ")
p("testp", "f", 6, "mov.b32 %f0, %i0; " + "".join(
    f"testp.{t}.f32 %p0, %f0; selp.b32 %o{i}, 1, 0, %p0; "
    for i, t in enumerate(("finite", "infinite", "number", "notanumber", "normal", "subnormal"))), n=512)
unary("neg_f32", "neg.f32", "f")
unary("abs_ftz_f32", "abs.ftz.f32", "f")
unary("neg_ftz_f32", "neg.ftz.f32", "f")
unary("neg_f16x2", "neg.f16x2", "h", "b", "b")
nary("copysign_f32", "copysign.f32", "ff", "ff", "f")

# ---- approximations ----
for op in "ex2", "lg2", "sin", "cos", "rcp", "rsqrt", "sqrt", "tanh":
    unary(f"{op}_approx_f32", f"{op}.approx.f32", "g" if op in ("sin", "cos") else "f", compare="a")
    if op != "tanh":
        unary(f"{op}_approx_ftz_f32", f"{op}.approx.ftz.f32", "g" if op in ("sin", "cos") else "f", compare="a")
nary("div_approx_f32", "div.approx.f32", "FF", "ff", "f", compare="a")
nary("div_full_f32", "div.full.f32", "ff", "ff", "f", compare="a")
unary("ex2_approx_f16x2", "ex2.approx.f16x2", "h", "b", "b", compare="a")
unary("ex2_approx_ftz_bf16x2", "ex2.approx.ftz.bf16x2", "c", "b", "b", compare="a")
unary("tanh_approx_f16x2", "tanh.approx.f16x2", "h", "b", "b", compare="a")
unary("tanh_approx_bf16x2", "tanh.approx.bf16x2", "c", "b", "b", compare="a")
unary("rcp_approx_ftz_f64", "rcp.approx.ftz.f64", "dd", "d", "d", compare="a")
unary("rsqrt_approx_f64", "rsqrt.approx.f64", "dd", "d", "d", compare="a")

# ---- integers and bits ----
for t in "s32", "u32":
    nary(f"mul_hi_{t}", f"mul.hi.{t}", "uu", "bb", "b", n=512)
    nary(f"mul_wide_{t}", f"mul.wide.{t}", "uu", "bb", "l", n=512)
    nary(f"mad_hi_{t}", f"mad.hi.{t}", "uuu", "bbb", "b", n=512)
    nary(f"mul24_lo_{t}", f"mul24.lo.{t}", "uu", "bb", "b", n=512)
    nary(f"mul24_hi_{t}", f"mul24.hi.{t}", "uu", "bb", "b", n=512)
    nary(f"sad_{t}", f"sad.{t}", "uuu", "bbb", "b", n=512)
    nary(f"bfe_{t}", f"bfe.{t}", "uss", "bbb", "b")
    unary(f"bfind_{t}", f"bfind.{t}", "u", "b", "b", n=512)
    unary(f"bfind_shiftamt_{t}", f"bfind.shiftamt.{t}", "u", "b", "b", n=512)
    nary(f"shr_{t}", f"shr.{t}", "us", "bb", "b", n=512)
    nary(f"div_{t}", f"div.{t}", "un", "bb", "b", n=512)
    nary(f"rem_{t}", f"rem.{t}", "un", "bb", "b", n=512)
    nary(f"dp4a_{t}_{t}", f"dp4a.{t}.{t}", "uuu", "bbb", "b", n=512)
    nary(f"dp2a_lo_{t}_{t}", f"dp2a.lo.{t}.{t}", "uuu", "bbb", "b", n=512)
    nary(f"dp2a_hi_{t}_{t}", f"dp2a.hi.{t}.{t}", "uuu", "bbb", "b", n=512)
nary("add_sat_s32", "add.sat.s32", "uu", "bb", "b", n=512)
nary("mad_hi_sat_s32", "mad.hi.sat.s32", "uuu", "bbb", "b", n=512)
nary("shl_b32", "shl.b32", "us", "bb", "b", n=512)
nary("bfi_b32", "bfi.b32", "uuss", "bbbb", "b")
for m in "clamp", "wrap":
    nary(f"shf_l_{m}", f"shf.l.{m}.b32", "uus", "bbb", "b")
    nary(f"shf_r_{m}", f"shf.r.{m}.b32", "uus", "bbb", "b")
    nary(f"bmsk_{m}", f"bmsk.{m}.b32", "ss", "bb", "b")
for m in "", ".f4e", ".b4e", ".rc8", ".ecl", ".ecr", ".rc16":
    nary(f"prmt{m.replace('.', '_')}", f"prmt.b32{m}", "uuu", "bbb", "b", n=512)
for imm in 0x96, 0xe8, 0xca, 0x1b:
    p(f"lop3_{imm:02x}", "uuu", 1, f"lop3.b32 %o0, %i0, %i1, %i2, {imm}; ", n=128)
for op in "clz", "popc", "brev", "cnot", "not":
    unary(f"{op}_b32", f"{op}.b32", "u", "b", "b", n=512)
p("add_carry_chain", "uuuu", 3, "add.cc.u32 %o0, %i0, %i2; addc.cc.u32 %o1, %i1, %i3; addc.u32 %o2, 0, 0; ")
p("sub_borrow_chain", "uuuu", 3, "sub.cc.u32 %o0, %i0, %i2; subc.cc.u32 %o1, %i1, %i3; subc.u32 %o2, 0, 0; ")
p("mad_carry_chain", "uuuu", 2, "mad.lo.cc.u32 %o0, %i0, %i1, %i2; madc.hi.u32 %o1, %i0, %i1, %i3; ")
p("vabsdiff4", "uuu", 1, "vabsdiff4.u32.u32.u32.add %o0, %i0, %i1, %i2; ", n=512)

# ---- across a warp ----
for mode in "idx", "up", "down", "bfly":
    p(f"shfl_{mode}", "uss", 2, "and.b32 %b0, %i2, 0x1f1f; mov.u32 %b3, %laneid; "
      f"shfl.sync.{mode}.b32 %o0|%p0, %i0, %i1, %b0, 0xffffffff; selp.b32 %o1, 1, 0, %p0; ")
p("vote", "u", 4, "and.b32 %b0, %i0, 7; setp.ne.u32 %p0, %b0, 0; vote.sync.ballot.b32 %o0, %p0, 0xffffffff; "
  "vote.sync.any.pred %p1, %p0, 0xffffffff; selp.b32 %o1, 1, 0, %p1; vote.sync.all.pred %p1, %p0, 0xffffffff; "
  "selp.b32 %o2, 1, 0, %p1; vote.sync.uni.pred %p1, %p0, 0xffffffff; selp.b32 %o3, 1, 0, %p1; ")
p("match", "u", 3, "and.b32 %b0, %i0, 3; match.any.sync.b32 %o0, %b0, 0xffffffff; "
  "match.all.sync.b32 %o1|%p0, %b0, 0xffffffff; selp.b32 %o2, 1, 0, %p0; ")
for op in "add.s32", "min.s32", "max.s32", "min.u32", "max.u32", "and.b32", "or.b32", "xor.b32":
    p(f"redux_{op.replace('.', '_')}", "u", 1, f"redux.sync.{op} %o0, %i0, 0xffffffff; ")

# ---- matrices ----
smem = "mov.u32 %b4, smem; mov.u32 %b5, %tid.x; shr.u32 %b5, %b5, 5; shl.b32 %b5, %b5, 9; add.u32 %b4, %b4, %b5; " \
       "mov.u32 %b6, %laneid; shl.b32 %b6, %b6, 4; add.u32 %b6, %b4, %b6; " \
       "st.shared.v4.b32 [%b6], {%i0, %i1, %i2, %i3}; bar.warp.sync 0xffffffff; "
for x, regs in ("x1", "{%o0}"), ("x2", "{%o0, %o1}"), ("x4", "{%o0, %o1, %o2, %o3}"):
    for trans in "", ".trans":
        n = int(x[1])
        p(f"ldmatrix_{x}{trans.replace('.', '_')}", "uuuu", n,
          smem + f"ldmatrix.sync.aligned.m8n8.{x}{trans}.shared.b16 {regs}, [%b6]; ", n=128)
p("stmatrix_x4_trans", "uuuu", 4, smem +
  "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%b6], {%i0, %i1, %i2, %i3}; bar.warp.sync 0xffffffff; "
  "ld.shared.v4.b32 {%o0, %o1, %o2, %o3}, [%b6]; ", n=128)
p("movmatrix", "u", 1, "movmatrix.sync.aligned.m8n8.trans.b16 %o0, %i0; ", n=128)


def mma(name, shape, types, a, b, c, kind_a, kind_b, kind_c, extra="", version=80, cases=32, out=None):
    """a, b, c: registers of each; types as PTX has them: d.a.b.c"""
    regs = [f"%i{i}" for i in range(a + b + c)]
    body = f"mma.sync.aligned.{shape}.row.col{extra}.{types} "
    d = ", ".join(f"%o{i}" for i in range(c))
    if types.startswith("f32"):
        for i in range(c):
            body = f"mov.b32 %f{i}, %i{a + b + i}; " + body
        regs[a + b:] = [f"%f{i}" for i in range(c)]
        d = ", ".join(f"%f{i + 8}" for i in range(c))
    body += f"{{{d}}}, {{{', '.join(regs[:a])}}}, {{{', '.join(regs[a:a + b])}}}, {{{', '.join(regs[a + b:])}}}; "
    if types.startswith("f32"):
        body += "".join(f"mov.b32 %o{i}, %f{i + 8}; " for i in range(c))
    p(name, kind_a * a + kind_b * b + kind_c * c, c, body, compare="m" if "s32" not in types else "x",
      version=version, n=32 * cases)


for kind, word in (("H", ""), ("J", "_ints"), ("h", "_edges")):
    c = {"H": "F", "J": "K", "h": "f"}[kind]
    mma(f"mma_m16n8k16_f32_f16{word}", "m16n8k16", "f32.f16.f16.f32", 4, 2, 4, kind, kind, c)
    mma(f"mma_m16n8k8_f32_f16{word}", "m16n8k8", "f32.f16.f16.f32", 2, 1, 4, kind, kind, c)
    mma(f"mma_m16n8k16_f16_f16{word}", "m16n8k16", "f16.f16.f16.f16", 4, 2, 2, kind, kind, kind)
for kind, word in (("B", ""), ("L", "_ints"), ("c", "_edges")):
    c = {"B": "F", "L": "K", "c": "f"}[kind]
    mma(f"mma_m16n8k16_f32_bf16{word}", "m16n8k16", "f32.bf16.bf16.f32", 4, 2, 4, kind, kind, c)
    mma(f"mma_m16n8k8_f32_bf16{word}", "m16n8k8", "f32.bf16.bf16.f32", 2, 1, 4, kind, kind, c)
for kind, word in (("F", ""), ("K", "_ints"), ("f", "_edges")):
    mma(f"mma_m16n8k8_f32_tf32{word}", "m16n8k8", "f32.tf32.tf32.f32", 4, 2, 4, kind, kind, kind)
    mma(f"mma_m16n8k4_f32_tf32{word}", "m16n8k4", "f32.tf32.tf32.f32", 2, 1, 4, kind, kind, kind)
for ta in "s8", "u8":
    for tb in "s8", "u8":
        mma(f"mma_m16n8k32_{ta}_{tb}", "m16n8k32", f"s32.{ta}.{tb}.s32", 4, 2, 4, "u", "u", "u")
mma("mma_m16n8k16_s8_s8", "m16n8k16", "s32.s8.s8.s32", 2, 1, 4, "u", "u", "u")
mma("mma_m8n8k16_s8_s8", "m8n8k16", "s32.s8.s8.s32", 1, 1, 2, "u", "u", "u")
mma("mma_m16n8k32_s8_satfinite", "m16n8k32", "s32.s8.s8.s32", 4, 2, 4, "u", "u", "u", extra="@")
for ta in "e4m3", "e5m2":
    for tb in "e4m3", "e5m2":
        mma(f"mma_m16n8k32_{ta}_{tb}", "m16n8k32", f"f32.{ta}.{tb}.f32", 4, 2, 4, "8", "8", "F", version=84)
        mma(f"mma_m16n8k32_{ta}_{tb}_any", "m16n8k32", f"f32.{ta}.{tb}.f32", 4, 2, 4, "u", "u", "f", version=84)
p("mma_m8n8k4_f64", "DDDDDDDD", 4, load("d", 0, 0) + load("d", 2, 1) + load("d", 4, 2) + load("d", 6, 3) +
  "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%d4, %d5}, {%d0}, {%d1}, {%d2, %d3}; " +
  store("d", 4) + store("d", 5, 2), compare="m", n=512)

# ---- atomics: one address a lane, so that the result has one meaning ----
for space, address in ("global", "%l7"), ("shared", "%b6"):
    at = "" if space == "global" else "mov.u32 %b4, smem; mov.u32 %b5, %tid.x; shl.b32 %b5, %b5, 4; add.u32 %b6, %b4, %b5; "
    back = f"ld.{space}.b32 %o1, [{address}]; "
    for op, k, setup, arg in (
            ("add.f32", "ff", "mov.b32 %f0, %i1; ", "%f0"), ("add.noftz.f16x2", "hh", "", "%i1"),
            ("add.noftz.bf16x2", "cc", "", "%i1"), ("inc.u32", "us", "", "%i1"), ("dec.u32", "us", "", "%i1"),
            ("min.s32", "uu", "", "%i1"), ("max.u32", "uu", "", "%i1"), ("exch.b32", "uu", "", "%i1"),
            ("xor.b32", "uu", "", "%i1"), ("cas.b32", "uuu", "", "%i1, %i2")):
        old = "mov.b32 %o0, %f9; " if op == "add.f32" else ""
        dst = "%f9" if op == "add.f32" else "%o0"
        p(f"atom_{space}_{op.replace('.', '_')}", k, 2, at + setup +
          f"st.{space}.b32 [{address}], %i0; atom.{space}.{op} {dst}, [{address}], {arg}; " + old + back, n=512)

with open("probes.def", "w") as f:
    f.write("/* Written by probes.py, which says what it means. */\n")
    for name, version, compare, inputs, outputs, n, body in probes:
        if "col@" in body:  # .satfinite stands behind the layouts
            body = body.replace("col@", "col.satfinite")
        f.write(f'P({name}, {version}, {compare}, "{inputs}", {outputs}, {n},\n  "{body.strip()}")\n')
print(len(probes), "probes,", sum(o * n * 4 for _, _, _, _, o, n, _ in probes), "bytes")
