/* The grammar: opcodes, the modifiers each may carry, its operands, and who decodes it. */
#include "decode.h"

#define ROUNDING (GROUP(ROUND) | GROUP(FTZ) | GROUP(SAT))
#define HINTS (GROUP(CACHE) | GROUP(EVICT1) | GROUP(EVICT2) | GROUP(HINT) | GROUP(PREFETCH))
#define MEMORY                                                                                     \
    (GROUP(SPACE) | GROUP(SEM) | GROUP(SCOPE) | GROUP(MMIO) | HINTS | GROUP(VEC) | GROUP(NC))
#define CONVERGED (GROUP(SYNC) | GROUP(ALIGNED))

#define ALU(op, groups, types, pattern)                                                            \
    {                                                                                              \
        op, groups, 0, types, pattern, "u", ptx_decode_plain                                       \
    }
#define TYPED(op, groups, types, pattern)                                                          \
    {                                                                                              \
        op, groups, 0, types, pattern, "k", ptx_decode_plain                                       \
    }
#define ROW(op, groups, types, fn)                                                                 \
    {                                                                                              \
        op, groups, 0, types, "", "k", fn                                                          \
    }
#define REFUSED(op, why)                                                                           \
    {                                                                                              \
        op, ~(uint64_t)0, 0, 255, why, "k", ptx_decode_refused                                     \
    }

const struct ptx_row ptx_rows[] = {
    /* the commonest first */
    ROW("mov", GROUP(VEC), 1, ptx_decode_mov),
    ALU("add", ROUNDING | GROUP(CARRY), 1, "dss"),
    ROW("ld", MEMORY, 1, ptx_decode_load),
    ROW("cvt", ROUNDING | GROUP(SATFINITE) | GROUP(RELU), 2, ptx_decode_cvt),
    ALU("mul", ROUNDING | GROUP(WIDTH), 1, "dss"),
    ALU("fma", ROUNDING | GROUP(RELU) | GROUP(OOB), 1, "dsss"),
    ROW("st", MEMORY | GROUP(ASYNC), 1, ptx_decode_store),
    ROW("setp", GROUP(CMP) | GROUP(WIDTH) | GROUP(OP) | GROUP(FTZ), 1, ptx_decode_setp),
    ROW("bra", GROUP(UNI), 0, ptx_decode_bra),
    {"shl", 0, 0, 1, "dsu", "b", ptx_decode_plain},
    ROW("shfl", GROUP(SYNC) | GROUP(SHFL), 1, ptx_decode_shfl),
    ROW("and", 0, 1, ptx_decode_logic),
    ROW("or", 0, 1, ptx_decode_logic),
    ROW("xor", 0, 1, ptx_decode_logic),
    ROW("not", 0, 1, ptx_decode_logic),
    {"shr", 0, 0, 1, "dsu", "k", ptx_decode_plain},
    ALU("sub", ROUNDING | GROUP(CARRY), 1, "dss"),
    ROW("selp", 0, 1, ptx_decode_selp),
    ALU("mad", ROUNDING | GROUP(WIDTH) | GROUP(CARRY), 1, "dsss"),
    ROW("cvta", GROUP(TO) | GROUP(SPACE), 1, ptx_decode_cvta),
    ROW("mma",
        CONVERGED | GROUP(SHAPE) | GROUP(LAYOUT) | GROUP(LAYOUT2) | GROUP(SATFINITE) |
            GROUP(ROUND) | GROUP(OP),
        4, ptx_decode_mma),
    ALU("prmt", GROUP(PRMT), 1, "dsss"),
    TYPED("dp4a", 0, 2, "Ustu"),
    TYPED("dp2a", GROUP(WIDTH), 2, "Ustu"),
    ROW("bar", GROUP(SYNC) | GROUP(BAROP) | GROUP(WARP) | GROUP(OP) | GROUP(SCOPE) | GROUP(ALIGNED),
        255, ptx_decode_bar),
    ROW("barrier",
        GROUP(SYNC) | GROUP(BAROP) | GROUP(OP) | GROUP(SCOPE) | GROUP(ALIGNED) | GROUP(SEM) |
            GROUP(GRIDDEP),
        255, ptx_decode_bar),
    ROW("ldmatrix", CONVERGED | GROUP(SHAPE) | GROUP(NUM) | GROUP(TRANS) | GROUP(SPACE), 1,
        ptx_decode_ldmatrix),
    ROW("stmatrix", CONVERGED | GROUP(SHAPE) | GROUP(NUM) | GROUP(TRANS) | GROUP(SPACE), 1,
        ptx_decode_ldmatrix),
    ROW("movmatrix", CONVERGED | GROUP(SHAPE) | GROUP(TRANS), 1, ptx_decode_ldmatrix),
    ROW("wmma",
        CONVERGED | GROUP(WMMA) | GROUP(MATRIX) | GROUP(SHAPE) | GROUP(LAYOUT) | GROUP(LAYOUT2) |
            GROUP(SPACE) | GROUP(SATFINITE) | GROUP(ROUND),
        255, ptx_decode_wmma),
    TYPED("max", GROUP(FTZ) | GROUP(NANMODE) | GROUP(XORSIGN) | GROUP(ABS) | GROUP(RELU), 1, "dss"),
    TYPED("min", GROUP(FTZ) | GROUP(NANMODE) | GROUP(XORSIGN) | GROUP(ABS) | GROUP(RELU), 1, "dss"),
    TYPED("ex2", GROUP(APPROX) | GROUP(FTZ), 1, "ds"),
    TYPED("div", ROUNDING | GROUP(APPROX), 1, "dss"),
    ROW("ret", GROUP(UNI), 0, ptx_decode_bra),
    ROW("exit", 0, 0, ptx_decode_bra),
    ROW("trap", 0, 0, ptx_decode_bra),
    ROW("brkpt", 0, 0, ptx_decode_bra),
    ROW("cp", GROUP(ASYNC) | GROUP(GROUPOP) | GROUP(SPACE) | HINTS, 0, ptx_decode_cp),
    ALU("bmsk", GROUP(WRAP), 1, "dsu"),
    ROW("griddepcontrol", GROUP(GRIDDEP), 0, ptx_decode_hint),
    ROW("vote", GROUP(SYNC) | GROUP(VOTE) | GROUP(UNI), 1, ptx_decode_vote),
    TYPED("abs", GROUP(FTZ), 1, "ds"),
    TYPED("neg", GROUP(FTZ), 1, "ds"),
    TYPED("tanh", GROUP(APPROX), 1, "ds"),
    ROW("atom",
        GROUP(SEM) | GROUP(SCOPE) | GROUP(SPACE) | GROUP(OP) | GROUP(NOFTZ) | GROUP(VEC) |
            GROUP(HINT),
        1, ptx_decode_atom),
    ROW("red",
        GROUP(SEM) | GROUP(SCOPE) | GROUP(SPACE) | GROUP(OP) | GROUP(NOFTZ) | GROUP(VEC) |
            GROUP(HINT),
        1, ptx_decode_atom),
    TYPED("rcp", ROUNDING | GROUP(APPROX), 1, "ds"),
    TYPED("lg2", GROUP(APPROX) | GROUP(FTZ), 1, "ds"),
    {"popc", 0, 0, 1, "Us", "b", ptx_decode_plain},
    TYPED("rem", 0, 1, "dss"),
    ROW("bfi", 0, 1, ptx_decode_bfi),
    TYPED("bfe", 0, 1, "dsuu"),
    TYPED("rsqrt", GROUP(APPROX) | GROUP(FTZ), 1, "ds"),
    ROW("call", GROUP(UNI), 0, ptx_decode_call),
    TYPED("sqrt", ROUNDING | GROUP(APPROX), 1, "ds"),
    TYPED("copysign", 0, 1, "dss"),
    {"clz", 0, 0, 1, "Us", "b", ptx_decode_plain},
    TYPED("sin", GROUP(APPROX) | GROUP(FTZ), 1, "ds"),
    TYPED("cos", GROUP(APPROX) | GROUP(FTZ), 1, "ds"),
    ROW("membar", GROUP(SCOPE), 0, ptx_decode_fence),
    ROW("fence", GROUP(SEM) | GROUP(SCOPE), 0, ptx_decode_fence),
    ROW("redux", GROUP(SYNC) | GROUP(OP) | GROUP(ABS) | GROUP(NANMODE), 1, ptx_decode_redux),
    ROW("nanosleep", 0, 1, ptx_decode_hint),
    {"brev", 0, 0, 1, "ds", "b", ptx_decode_plain},
    TYPED("bfind", GROUP(SHIFTAMT), 1, "Us"),
    ALU("shf", GROUP(SIDE) | GROUP(WRAP), 1, "dsss"),
    ROW("activemask", 0, 1, ptx_decode_hint),
    ROW("match", GROUP(SYNC) | GROUP(VOTE), 1, ptx_decode_match),
    ROW("lop3", GROUP(OP), 1, ptx_decode_lop3),
    ROW("brx", GROUP(SHFL), 0, ptx_decode_brx),
    ROW("isspacep", GROUP(SPACE), 0, ptx_decode_isspacep),
    ROW("set", GROUP(CMP) | GROUP(WIDTH) | GROUP(OP) | GROUP(FTZ), 2, ptx_decode_set),
    {"slct", GROUP(FTZ), 0, 2, "dsst", "u", ptx_decode_plain},
    TYPED("sad", 0, 1, "dsss"),
    TYPED("mul24", GROUP(WIDTH), 1, "dss"),
    TYPED("mad24", GROUP(WIDTH), 1, "dsss"),
    {"cnot", 0, 0, 1, "ds", "b", ptx_decode_plain},
    ALU("addc", GROUP(CARRY), 1, "dss"),
    ALU("subc", GROUP(CARRY), 1, "dss"),
    ALU("madc", GROUP(WIDTH) | GROUP(CARRY), 1, "dsss"),
    {"testp", GROUP(CMP), 0, 1, "ps", "k", ptx_decode_plain},
    ROW("prefetch", GROUP(SPACE) | GROUP(LEVEL) | GROUP(EVICT2), 0, ptx_decode_hint),
    ROW("prefetchu", GROUP(LEVEL), 0, ptx_decode_hint),
    ROW("applypriority", GROUP(SPACE) | GROUP(EVICT2), 0, ptx_decode_hint),
    ROW("discard", GROUP(SPACE) | GROUP(LEVEL), 0, ptx_decode_hint),
    ROW("createpolicy", GROUP(POLICY) | GROUP(EVICT2) | GROUP(SPACE), 1, ptx_decode_hint),
    ROW("pmevent", 0, 0, ptx_decode_hint),
    ROW("ldu", GROUP(SPACE) | GROUP(VEC), 1, ptx_decode_load),
    /* what the virtual device refuses, by name */
    REFUSED("mbarrier", "mbarrier objects are not modelled"),
    REFUSED("wgmma", "warpgroup matrix operations are not modelled"),
    REFUSED("tcgen05", "tensor memory is not modelled"),
    REFUSED("mapa", "clusters are not modelled"),
    REFUSED("getctarank", "clusters are not modelled"),
    REFUSED("elect", "elect.sync is not modelled"),
    REFUSED("setmaxnreg", "register reallocation is not modelled"),
    REFUSED("multimem", "multimem is not modelled"),
    REFUSED("clusterlaunchcontrol", "clusters are not modelled"),
    REFUSED("tensormap", "tensor maps are not modelled"),
    REFUSED("tex", "textures are not modelled"),
    REFUSED("tld4", "textures are not modelled"),
    REFUSED("txq", "textures are not modelled"),
    REFUSED("suld", "surfaces are not modelled"),
    REFUSED("sust", "surfaces are not modelled"),
    REFUSED("sured", "surfaces are not modelled"),
    REFUSED("suq", "surfaces are not modelled"),
    REFUSED("istypep", "textures are not modelled"),
    REFUSED("alloca", "alloca is not modelled"),
    REFUSED("stacksave", "alloca is not modelled"),
    REFUSED("stackrestore", "alloca is not modelled"),
    REFUSED("fns", "fns is not modelled"),
    REFUSED("szext", "szext is not modelled"),
    REFUSED("vadd", "video instructions are not modelled"),
    REFUSED("vsub", "video instructions are not modelled"),
    REFUSED("vabsdiff", "video instructions are not modelled"),
    REFUSED("vmin", "video instructions are not modelled"),
    REFUSED("vmax", "video instructions are not modelled"),
    REFUSED("vshl", "video instructions are not modelled"),
    REFUSED("vshr", "video instructions are not modelled"),
    REFUSED("vmad", "video instructions are not modelled"),
    REFUSED("vset", "video instructions are not modelled"),
    REFUSED("vadd2", "video instructions are not modelled"),
    REFUSED("vsub2", "video instructions are not modelled"),
    REFUSED("vavrg2", "video instructions are not modelled"),
    REFUSED("vabsdiff2", "video instructions are not modelled"),
    REFUSED("vmin2", "video instructions are not modelled"),
    REFUSED("vmax2", "video instructions are not modelled"),
    REFUSED("vset2", "video instructions are not modelled"),
    REFUSED("vadd4", "video instructions are not modelled"),
    REFUSED("vsub4", "video instructions are not modelled"),
    REFUSED("vavrg4", "video instructions are not modelled"),
    REFUSED("vabsdiff4", "video instructions are not modelled"),
    REFUSED("vmin4", "video instructions are not modelled"),
    REFUSED("vmax4", "video instructions are not modelled"),
    REFUSED("vset4", "video instructions are not modelled"),
};
const uint32_t ptx_row_count = sizeof ptx_rows / sizeof *ptx_rows;
