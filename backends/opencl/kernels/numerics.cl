/*
 * numerics.cl: put before every program. The rules of docs/numerics.md, and how a group of
 * work-items works in either form.
 *
 * FORM_CPU: a group is one work-item, which works on 16 floats at a time.
 * FORM_GPU: a group is 64 work-items, one for each stripe of rule 2, with barriers between steps.
 * A loop `for (i = LANE; i < n; i += LANES)` does its share of n things in both.
 *
 * Set by the host: FORM_CPU or FORM_GPU; PREFETCH where the device is a CPU and no simulator of
 * many kinds, which does not know it; BAD_INDEX, the fault word's value; SOFT_RCP and SOFT_SQRT
 * where the probe found the device's own not to be correctly rounded.
 * Tensors come as a buffer and a view in elements: offset, then up to three strides.
 */
#pragma OPENCL FP_CONTRACT OFF

#ifdef FORM_CPU
#define LANES 1
#define LANE 0
#define SYNC()
#define SYNC_GLOBAL()
#else
#define LANES 64
#define LANE ((int)get_local_id(0))
#define SYNC() barrier(CLK_LOCAL_MEM_FENCE)
#define SYNC_GLOBAL() barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE)
/* Between loads and what they are for: compilers that would move each to its use, to save registers,
 * leave them on their way together. */
#define LOADED() read_mem_fence(CLK_LOCAL_MEM_FENCE)
#endif

/* A function that is not put into its callers. PoCL puts a kernel with all it calls into three
 * wrappers, and would compile it three times; in the cpu form, which has no barriers, it need not. */
#ifdef FORM_CPU
#define APART __attribute__((noinline))
#else
#define APART
#endif

/* The same for what has no lanes and is called once or twice, on any device that is a CPU. */
#if defined(FORM_CPU) || defined(PREFETCH)
#define RARE __attribute__((noinline))
#else
#define RARE
#endif

/* In front of a loop that is not worth vectors or copies of itself, which take a compiler long. */
#ifdef FORM_CPU
#define COLD _Pragma("clang loop vectorize(disable) unroll(disable)")
#else
#define COLD
#endif

#define KERNEL kernel __attribute__((reqd_work_group_size(LANES, 1, 1)))
#define STRIPES 64
#define ROW1(tensor, i) ((tensor) + tensor##_view.s0 + (i) * tensor##_view.s1)
#define ROW2(tensor, i, j) (ROW1(tensor, i) + (j) * tensor##_view.s2)
#define TENSOR(type, name) global type *name, const long4 name##_view

/* Where stripe j comes in the order in which rule 2's fold is a binary counter: its six bits
 * reversed. */
int reversed(int j)
{
    int to = 0;
    for (int bit = 1; bit < STRIPES; bit *= 2, j /= 2)
        to = 2 * to + j % 2;
    return to;
}

/* ---- rule 4: correctly rounded rcp and sqrt ---- */

/* 1 / b by integers: q = floor(2^48 / m) has one bit more than a float, the rest says which way. */
float soft_rcp(float b)
{
    uint bits = as_uint(b), sign = bits & 0x80000000u, magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u)
        return b;
    if (magnitude == 0x7F800000u)
        return as_float(sign);
    if (magnitude == 0)
        return as_float(sign | 0x7F800000u);
    uint m = magnitude & 0x7FFFFFu;
    int e = (int)(magnitude >> 23);
    if (e) {
        m |= 0x800000u;
    } else {
        int shift = (int)clz(m) - 8;
        m <<= shift;
        e = 1 - shift;
    }
    ulong q = (1ul << 48) / m;
    uint rest = (1ul << 48) != q * m;
    int exponent = 253 - e, drop = exponent > 0 ? 1 : 2 - exponent;
    uint kept = (uint)(q >> drop), low = (uint)q & ((1u << drop) - 1), half_way = 1u << (drop - 1);
    if (low > half_way || (low == half_way && (rest || (kept & 1))))
        kept++;
    if (exponent >= 255)
        return as_float(sign | 0x7F800000u);
    return as_float(sign | (exponent > 0 ? ((uint)(exponent - 1) << 23) + kept : kept));
}

/* The root of m * 2^26, bit by bit: 25 or 26 bits, and whether there is a rest. */
float soft_sqrt(float x)
{
    uint bits = as_uint(x);
    if (x != x || (bits & 0x7FFFFFFFu) == 0 || bits == 0x7F800000u)
        return x;
    if (bits >> 31)
        return as_float(0x7FC00000u);
    uint m = bits & 0x7FFFFFu;
    int e = (int)(bits >> 23);
    if (e) {
        m |= 0x800000u;
    } else {
        int shift = (int)clz(m) - 8;
        m <<= shift;
        e = 1 - shift;
    }
    if (e & 1) /* e - 150 is to be even */
        m <<= 1, e -= 1;
    ulong square = (ulong)m << 26, root = 0;
    for (ulong bit = 1ul << 25; bit; bit >>= 1)
        if ((root + bit) * (root + bit) <= square)
            root += bit;
    uint rest = root * root != square, drop = root >> 25 ? 2 : 1;
    uint kept = (uint)root >> drop, low = (uint)root & ((1u << drop) - 1), half_way = drop;
    if (low > half_way || (low == half_way && (rest || (kept & 1))))
        kept++;
    return as_float(((uint)((e - 150) / 2 + 136 + (int)drop) << 23) + kept);
}

#ifdef SOFT_RCP
#define RCP(b) soft_rcp(b)
#else
#define RCP(b) (1.0f / (b))
#endif
#ifdef SOFT_SQRT
#define SQRT(x) soft_sqrt(x)
#else
#define SQRT(x) sqrt(x)
#endif

/* ---- rule 5 ---- */

float exp_exact(float x)
{
    float t = fma(x, as_float(0x3FB8AA3B), 12582912.0f);
    uint i = as_uint(t) - 0x4B400000u;
    float n = t - 12582912.0f;
    float r = fma(n, -as_float(0x3F317200), x);
    r = fma(n, -as_float(0x35BFBE8E), r);
    float u = as_float(0x39502BDA);
    u = fma(u, r, as_float(0x3AB696C9));
    u = fma(u, r, as_float(0x3C0888A6));
    u = fma(u, r, as_float(0x3D2AAA7A));
    u = fma(u, r, as_float(0x3E2AAAAB));
    u = fma(u, r, as_float(0x3F000000));
    float square = r * r;
    float p = fma(square, u, r) + 1.0f;
    float value = as_float(as_uint(p) + (i << 23));
    value = x < -87.0f ? 0.0f : value;
    value = x > as_float(0x42B17217) ? INFINITY : value;
    return x != x ? x : value;
}

float sigmoid(float x)
{
    float z = -x;
    z = z > 87.0f ? 87.0f : z;
    return RCP(1.0f + exp_exact(z));
}

float swiglu_of(float gate, float up)
{
    float silu = gate * sigmoid(gate);
    return silu * up;
}

/* ---- rule 8: an integer that orders floats, -0 as +0, NaN below everything ---- */

uint selection_key(float value)
{
    uint bits = as_uint(value);
    if (value != value)
        return 0;
    if (bits == 0x80000000u)
        bits = 0;
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* Of several the largest key, of equal ones the lowest index: the maximum of these. Never 0. */
ulong ranked(float value, int index)
{
    return (ulong)selection_key(value) << 32 | (uint)~index;
}

int index_of_rank(ulong rank)
{
    return (int)~(uint)rank;
}

/* ---- rule 1: bf16 and f16 ---- */

ushort to_bf16(float value)
{
    uint bits = as_uint(value);
    if (value != value)
        return 0x7FC0;
    return (ushort)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

float from_bf16(ushort half_bits)
{
    return as_float((uint)half_bits << 16);
}

/* Exact; 2^112 moves the exponent's bias and makes halves' denormals normal. */
float from_f16(uint bits)
{
    uint rest = bits & 0x7FFF;
    float value = as_float(rest << 13) * 0x1p112f;
    return as_float(as_uint(value) | (rest >= 0x7C00 ? 0x7F800000u : 0) | (bits & 0x8000) << 16);
}

/* ---- what a group does together ---- */

void raise_fault(global uint *fault)
{
    if (LANE == 0)
        atomic_xchg(fault, BAD_INDEX);
}

/* Where expert `e` lies in the bank: a slot, -1 elsewhere, -2 out of range. */
APART int expert_slot(global const int *map, const long4 map_view, int has_map, long count,
                      long resident, int e)
{
    if (e < 0 || e >= count)
        return -2;
    int slot = has_map ? map[map_view.s0 + e * map_view.s1] : e;
    return slot < -1 || slot >= resident ? -2 : slot;
}

/* The experts of tokens, and which of them the bank has. */
#define SLOTS                                                                                      \
    TENSOR(const int, experts), TENSOR(const int, map), const int has_map, const long count,       \
        const long resident, const long slots

#define EXPERT(t, j) expert_slot(map, map_view, has_map, count, resident, *ROW2(experts, t, j))

#ifdef FORM_CPU
typedef float16 wide; /* stripes or columns that one work-item has at once */
#define WIDE 16

/* Vector i of those that begin at `at`, which is aligned as its elements are: one instruction. PoCL's
 * vload16 is 16 loads, which its compiler puts together again, and that takes it long. */
typedef struct __attribute__((packed, may_alias)) {
    float16 v;
} float_vector;
typedef struct __attribute__((packed, may_alias)) {
    uint16 v;
} uint_vector;
typedef struct __attribute__((packed, may_alias)) {
    ushort16 v;
} ushort_vector;
typedef struct __attribute__((packed, may_alias)) {
    uchar16 v;
} uchar_vector;
#define VECTOR(space, type, at, i) (((space type##_vector *)(at))[i].v)

/* Rule 2's fold. */
float fold_wide(float16 a0, float16 a1, float16 a2, float16 a3)
{
    float16 b = (a0 + a2) + (a1 + a3);
    float8 c = b.lo + b.hi;
    float4 d = c.lo + c.hi;
    float2 e = d.lo + d.hi;
    return (e.x + e.y) + 0.0f;
}

float fold_stripes(const float *a)
{
    return fold_wide(VECTOR(const, float, a, 0), VECTOR(const, float, a, 1),
                     VECTOR(const, float, a, 2), VECTOR(const, float, a, 3));
}

APART float group_dot(global const float *x, global const float *w, long count,
                      local float *stripes)
{
    float16 a0 = 0, a1 = 0, a2 = 0, a3 = 0;
    long k = 0;
    for (; k + STRIPES <= count; k += STRIPES) {
        global const float *u = x + k, *v = w + k;
        a0 = fma(VECTOR(global const, float, u, 0), VECTOR(global const, float, v, 0), a0);
        a1 = fma(VECTOR(global const, float, u, 1), VECTOR(global const, float, v, 1), a1);
        a2 = fma(VECTOR(global const, float, u, 2), VECTOR(global const, float, v, 2), a2);
        a3 = fma(VECTOR(global const, float, u, 3), VECTOR(global const, float, v, 3), a3);
    }
    if (k == count)
        return fold_wide(a0, a1, a2, a3);
    float a[STRIPES];
    VECTOR(, float, a, 0) = a0, VECTOR(, float, a, 1) = a1;
    VECTOR(, float, a, 2) = a2, VECTOR(, float, a, 3) = a3;
    COLD for (int j = 0; k < count; j++, k++)
        a[j] = fma(x[k], w[k], a[j]);
    return fold_stripes(a);
}

#define GROUP_MAX(value, space) (value)
#define GROUP_SUM(value, space) (value)

#else
typedef float wide;
#define WIDE 1

/* Rule 2's fold is a tree: eight values that lie `apart`, in three of its six levels. */
float fold_8(local const float *p, int apart)
{
    return ((p[0] + p[4 * apart]) + (p[2 * apart] + p[6 * apart])) +
           ((p[apart] + p[5 * apart]) + (p[3 * apart] + p[7 * apart]));
}

/* Of several sums, whose stripes lie PITCH apart, the upper three levels; after the call every lane
 * may read the lower ones with fold_8(of, 1). PITCH keeps lanes in different banks. */
#define PITCH (STRIPES + 8)

void fold_upper(local float *stripes, int sums)
{
    SYNC();
    for (int i = LANE; i < 8 * sums; i += LANES) {
        local float *at = stripes + i / 8 * PITCH + i % 8;
        *at = fold_8(at, 8);
    }
    SYNC();
}

/* Where numbers lie side by side a lane has eight neighbouring stripes, 16 bytes of two, and eight
 * lanes, a team, have all of them. */
#define TEAM 8
#define TEAMS (LANES / TEAM)

/* Eight neighbours of `bytes` bytes, from an aligned place on, as they lie there. `bytes` is a
 * constant where it is called. */
__attribute__((always_inline)) uint8 load_raw(const int bytes, global const uchar *at)
{
    uint8 raw = 0;
    if (bytes == 1)
        raw.s01 = *(global const uint2 *)at;
    else
        raw.lo = *(global const uint4 *)at;
    if (bytes == 4)
        raw.hi = *(global const uint4 *)(at + 16);
    return raw;
}

float8 bf16_of_raw(uint8 v)
{
    return as_float8((uint8)(v.s0 << 16, v.s0 & 0xFFFF0000u, v.s1 << 16, v.s1 & 0xFFFF0000u,
                             v.s2 << 16, v.s2 & 0xFFFF0000u, v.s3 << 16, v.s3 & 0xFFFF0000u));
}

float8 load_8(global const float *at)
{
    return as_float8(load_raw(4, (global const uchar *)at));
}

/* The first `many` of eight, from any place on; the others are +0. `load` is of element i. */
#define FIRST_OF_8(many, load)                                                                     \
    float to[TEAM];                                                                                \
    _Pragma("unroll") for (int n = 0; n < TEAM; n++)                                               \
    {                                                                                              \
        long i = min((long)n, many - 1);                                                           \
        to[n] = n < many ? load : 0.0f;                                                            \
    }                                                                                              \
    return vload8(0, to);

float8 load_some(global const float *at, long many)
{
    FIRST_OF_8(many, at[i])
}

/* A lane's stripes into its team's of `stripes`, so that those a lane folds are neighbours; then of
 * several sums the upper three levels. After that every lane may read the lower ones with
 * fold_8(of, FOLDED). */
#define FOLDED (TEAM + 1)

void put_stripes(local float *stripes, float8 a)
{
    local float *to = stripes + LANE % TEAM;
    to[0] = a.s0, to[FOLDED] = a.s1, to[2 * FOLDED] = a.s2, to[3 * FOLDED] = a.s3;
    to[4 * FOLDED] = a.s4, to[5 * FOLDED] = a.s5, to[6 * FOLDED] = a.s6, to[7 * FOLDED] = a.s7;
}

void fold_teams(local float *stripes, int sums)
{
    SYNC();
    for (int i = LANE; i < TEAM * sums; i += LANES) {
        local float *at = stripes + i / TEAM * PITCH + i % TEAM * FOLDED;
        *at = fold_8(at, 1);
    }
    SYNC();
}

/* Rule 2's fold of one value a lane; all lanes get it. Nobody may still read the stripes. */
float group_fold(float value, local float *stripes)
{
    stripes[LANE] = value;
    fold_upper(stripes, 1);
    return fold_8(stripes, 1) + 0.0f;
}

APART float group_dot(global const float *x, global const float *w, long count,
                      local float *stripes)
{
    float a = 0;
#pragma unroll 8
    for (long k = LANE; k < count; k += STRIPES)
        a = fma(x[k], w[k], a);
    return group_fold(a, stripes);
}

/* All lanes read all values: two barriers instead of a tree's eight. */
#define GROUP_REDUCE(value, space, combine)                                                        \
    ulong all = 0;                                                                                 \
    SYNC();                                                                                        \
    space[LANE] = value;                                                                           \
    SYNC();                                                                                        \
    for (int i = 0; i < LANES; i++)                                                                \
        all = combine(all, space[i]);                                                              \
    return all;

#define PLUS(a, b) ((a) + (b))

ulong group_max(ulong value, local ulong *space)
{
    GROUP_REDUCE(value, space, max)
}

ulong group_sum(ulong value, local ulong *space)
{
    GROUP_REDUCE(value, space, PLUS)
}

#define GROUP_MAX(value, space) group_max(value, space)
#define GROUP_SUM(value, space) group_sum(value, space)
#endif
