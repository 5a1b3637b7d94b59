/* Vector operations: operands, modifiers, and what is more than a function of one lane. */
#include <fenv.h>

#include "lanes.h"

extern const struct va_vector_op VA_NAME(elements)[VA_OP_COUNT];
extern const va_compare_fn VA_NAME(compares)[VA_OP_COUNT];
bool VA_NAME(bind_vector)(struct va_insn *insn);

typedef uint32_t row[VA_LANES] __attribute__((aligned(64)));

VA_INLINE void fill(uint32_t *d, uint32_t v)
{
    FOR_LANES d[l] = v;
}

/* A constant or scalar register, as an operand of that kind sees it. */
static void broadcast(const struct va_wave *w, const struct va_insn *i, uint32_t code,
                      enum va_kind kind, uint32_t *d)
{
    if (kind >= VA_K_B64) {
        uint64_t v = va_scalar64(w, i, code, kind == VA_K_I64);
        if (code == VA_LITERAL && kind == VA_K_F64)
            v = (uint64_t)i->literal << 32;
        fill(d, (uint32_t)v);
        fill(d + VA_LANES, (uint32_t)(v >> 32));
        return;
    }
    uint32_t v = va_scalar(w, i, code);
    if ((kind == VA_K_F16 || kind == VA_K_B16) && code >= 240 && code <= 248) {
        static const uint16_t halves[] = {0x3800, 0xb800, 0x3c00, 0xbc00, 0x4000,
                                          0xc000, 0x4400, 0xc400, 0x3118};
        v = halves[code - 240];
    }
    fill(d, v);
}

/* Where the operand's lanes are; `room` holds them if they are not a register's. */
VA_INLINE const uint32_t *fetch(const struct va_wave *w, const struct va_insn *i, uint32_t code,
                                enum va_kind kind, uint32_t *room)
{
    if (VA_LIKELY(code >= VA_V0))
        return va_row(w, code);
    broadcast(w, i, code, kind, room);
    return room;
}

VA_INLINE void count_flops(struct va_wave *w, const struct va_insn *i)
{
    if (i->flops)
        w->worker->valu_flops += i->flops * (uint64_t)__builtin_popcountll(va_exec(w));
}

/* ---- the simple way: no modifiers, usual mode ---- */

static void run_full(struct va_wave *w, const struct va_insn *i);

VA_INLINE void store(struct va_wave *w, uint32_t *d, const uint32_t *out, unsigned width)
{
    uint64_t exec = va_exec(w);
    for (unsigned k = 0; k < width; k++)
        blend(d + k * VA_LANES, d + k * VA_LANES, out + k * VA_LANES, exec);
}

static void run_simple(struct va_wave *w, const struct va_insn *i)
{
    row room[6], out[2];
    if (VA_UNLIKELY(w->slow)) {
        run_full(w, i);
        return;
    }
    va_lane_fn fn = i->fn;
    const uint32_t *a = fetch(w, i, i->a, i->kinds[1], room[0]), *b = NULL, *c = NULL;
    if (i->b != VA_NONE)
        b = fetch(w, i, i->b, i->kinds[2], room[2]);
    if (i->c != VA_NONE)
        c = fetch(w, i, i->c, i->kinds[3], room[4]);
    uint32_t *d = va_row(w, i->d);
    count_flops(w, i);
    if (VA_LIKELY(va_exec(w) == UINT64_MAX)) {
        fn(d, a, b, c, w);
    } else {
        fn(out[0], a, b, c, w);
        store(w, d, out[0], i->wd);
    }
}

/* ---- modifiers ---- */

static const uint8_t widths[] = {1, 1, 1, 1, 1, 2, 2, 2};

static void negate(uint32_t *d, enum va_kind kind, bool neg, bool abs)
{
    uint32_t bit = kind == VA_K_F16 || kind == VA_K_B16 ? 0x8000 : 0x80000000;
    uint32_t *top = kind >= VA_K_B64 ? d + VA_LANES : d;
    if (abs)
        FOR_LANES top[l] &= ~bit;
    if (neg)
        FOR_LANES top[l] ^= bit;
}

/* Denormals become zeros of their sign. */
static void flush(uint32_t *d, enum va_kind kind)
{
    if (kind == VA_K_F32)
        FOR_LANES d[l] = d[l] & 0x7f800000 ? d[l] : d[l] & 0x80000000;
    else if (kind == VA_K_F16)
        FOR_LANES d[l] = d[l] & 0x7c00 ? d[l] : d[l] & 0xffff8000;
    else if (kind == VA_K_F64)
        FOR_LANES
        {
            bool zero = !(d[l + VA_LANES] & 0x7ff00000);
            d[l] = zero ? 0 : d[l];
            d[l + VA_LANES] = zero ? d[l + VA_LANES] & 0x80000000 : d[l + VA_LANES];
        }
}

static bool flushes(const struct va_wave *w, enum va_kind kind, bool output)
{
    uint32_t m = kind == VA_K_F32 ? w->mode >> 4 : w->mode >> 6;
    return (kind == VA_K_F32 || kind == VA_K_F16 || kind == VA_K_F64) && !(m >> output & 1);
}

static uint32_t select_part(uint32_t v, uint32_t part, bool sext)
{
    if (part < 4) {
        v = v >> 8 * part & 255;
        return sext ? (uint32_t)(int8_t)v : v;
    }
    if (part < 6) {
        v = v >> 16 * (part - 4) & 0xffff;
        return sext ? (uint32_t)(int16_t)v : v;
    }
    return v;
}

/* The lane that each lane reads, -1: none. */
static int dpp_lane(uint32_t control, int l)
{
    int in_row = l & 15, first = l & ~15;
    if (control < 0x100)
        return (l & ~3) | (int)(control >> 2 * (l & 3) & 3);
    int n = (int)control & 15;
    if (control < 0x110)
        return in_row + n < 16 ? l + n : -1;
    if (control < 0x120)
        return in_row - n >= 0 ? l - n : -1;
    if (control < 0x130)
        return first + ((in_row - n) & 15);
    switch (control) {
    case 0x130:
        return l < 63 ? l + 1 : -1;
    case 0x134:
        return (l + 1) & 63;
    case 0x138:
        return l - 1;
    case 0x13c:
        return (l - 1) & 63;
    case 0x140:
        return first + 15 - in_row;
    case 0x141:
        return (l & ~7) + 7 - (l & 7);
    case 0x142: /* the last lane of the row before */
        return first ? first - 1 : -1;
    case 0x143:
        return l >= 32 ? 31 : -1;
    default: /* row_newbcast */
        return first + n;
    }
}

/* Reads other lanes into d; returns the lanes that may be written. */
static uint64_t dpp(const struct va_wave *w, const struct va_insn *i, const uint32_t *from,
                    uint32_t *d, unsigned width)
{
    uint32_t word = i->raw[1], control = word >> 8 & 511;
    uint64_t exec = va_exec(w), enabled = 0;
    bool zero = word >> 19 & 1;
    for (int l = 0; l < VA_LANES; l++) {
        int s = dpp_lane(control, l);
        bool valid = s >= 0 && exec >> s & 1;
        for (unsigned k = 0; k < width; k++)
            d[l + k * VA_LANES] = valid ? from[s + (int)(k * VA_LANES)] : 0;
        bool masked = (word >> 28 >> l / 16 & 1) && (word >> 24 >> (l / 4 & 3) & 1);
        enabled |= (uint64_t)(masked && (valid || zero)) << l;
    }
    return enabled;
}

/* A source with all that may be done to it. */
static void prepare(const struct va_wave *w, const struct va_insn *i, int which, enum va_kind kind,
                    uint32_t *d, uint64_t *enabled)
{
    uint16_t code = which == 0 ? i->a : which == 1 ? i->b : i->c;
    row room[2];
    uint32_t modes = w->gpr_index >> 12;
    if (VA_UNLIKELY(w->mode & VA_MODE_GPR_IDX) && code >= VA_V0 && code < VA_A0 &&
        modes >> which & 1)
        code = (uint16_t)(code + (w->gpr_index & 255));
    if (code >= VA_V0 && code < VA_A0 && (uint32_t)(code - VA_V0) >= w->vgprs)
        va_fault((struct va_wave *)w, VA_REGISTER, "register", -1, 0, 0,
                 "relative register v%u: the kernel has %u", code - VA_V0, w->vgprs);
    const uint32_t *from = fetch(w, i, code, kind, room[0]);
    unsigned width = widths[kind];
    if (which == 0 && i->extension == VA_IS_DPP)
        *enabled = dpp(w, i, from, d, width);
    else
        memcpy(d, from, width * sizeof(row));
    if (i->extension == VA_IS_SDWA && which < 2) {
        uint32_t word = i->raw[1] >> 8 * which;
        uint32_t part = word >> 16 & 7;
        bool sext = word >> 19 & 1;
        FOR_LANES d[l] = select_part(d[l], part, sext);
    }
    if (i->encoding == VA_VOP3 && (kind == VA_K_F16 || kind == VA_K_B16) && i->opsel >> which & 1)
        FOR_LANES d[l] >>= 16;
    if ((i->neg | i->abs) >> which & 1)
        negate(d, kind, i->neg >> which & 1, i->abs >> which & 1);
    if (w->slow && flushes(w, kind, false))
        flush(d, kind);
}

static uint32_t clamp32(uint32_t v, bool dx10)
{
    float f = float_of(v);
    return f > 1 ? 0x3f800000 : f > 0 ? v : f == f || dx10 ? 0 : v;
}

/* What has no exponent is flushed, and loses its sign. */
VA_INLINE uint32_t positive_zero(uint32_t v, uint32_t exponent)
{
    return v & exponent ? v : 0;
}

/* Output multiplier, clamp, flush. */
static void finish(const struct va_wave *w, const struct va_insn *i, enum va_kind kind, uint32_t *d)
{
    static const float by[] = {1, 2, 4, 0.5f};
    bool dx10 = w->mode & VA_MODE_DX10_CLAMP, flushed = w->slow && flushes(w, kind, true);
    /* The multiplier is not IEEE's: it works where denormals of results are flushed, and IEEE is
     * off. */
    unsigned omod = flushed && !(w->mode & VA_MODE_IEEE) ? i->omod : 0;
    if (kind == VA_K_F32) {
        if (omod)
            FOR_LANES d[l] = positive_zero(bits_of(float_of(d[l]) * by[omod]), 0x7f800000);
        if (i->clamp)
            FOR_LANES d[l] = clamp32(d[l], dx10);
    } else if (kind == VA_K_F16) {
        bool hold = w->mode & VA_MODE_FP16_OVFL;
        if (omod)
            FOR_LANES
            {
                float v = half_value(d[l] & 0xffff) * by[omod];
                d[l] = positive_zero(va_half_rounded((double)v, w->mode >> 2 & 3, hold), 0x7c00);
            }
        if (i->clamp)
            FOR_LANES d[l] = half_bits(float_of(clamp32(bits_of(half_value(d[l] & 0xffff)), dx10)));
    } else if (kind == VA_K_F64 && (omod || i->clamp)) {
        for (int l = 0; l < VA_LANES; l++) {
            double v = double_of(d[l] | (uint64_t)d[l + VA_LANES] << 32) * (double)by[omod];
            if (omod && fabs(v) < 0x1p-1022)
                v = 0;
            if (i->clamp)
                v = v > 1 ? 1 : v > 0 ? v : v == v || dx10 ? 0 : v;
            d[l] = (uint32_t)bits_of64(v);
            d[l + VA_LANES] = (uint32_t)(bits_of64(v) >> 32);
        }
    }
    if (flushed)
        flush(d, kind);
}

static int rounding(const struct va_wave *w, enum va_kind kind)
{
    static const int directions[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    return directions[(kind == VA_K_F32 ? w->mode : w->mode >> 2) & 3];
}

/* Calls fn under the rounding of MODE. */
static void call(struct va_wave *w, const struct va_insn *i, va_lane_fn fn, uint32_t *d,
                 const uint32_t *a, const uint32_t *b, const uint32_t *c)
{
    enum va_kind rounded = i->kinds[0] == VA_K_B32 ? i->kinds[1] : i->kinds[0];
    int direction = w->slow ? rounding(w, rounded) : FE_TONEAREST;
    bool hold = w->mode & VA_MODE_FP16_OVFL;
    bool by_hand = i->kinds[0] == VA_K_F16 && w->slow && (direction != FE_TONEAREST || hold);
    if (by_hand)
        fn = VA_NAME(elements)[i->op].wide;
    if (direction != FE_TONEAREST)
        fesetround(direction);
    fn(d, a, b, c, w);
    if (direction != FE_TONEAREST)
        fesetround(FE_TONEAREST);
    if (by_hand)
        FOR_LANES d[l] = va_half_rounded((double)float_of(d[l]), w->mode >> 2 & 3, hold);
}

static void insert(const struct va_insn *i, uint32_t *out, const uint32_t *old)
{
    uint32_t word = i->raw[1], part = word >> 8 & 7, unused = word >> 11 & 3;
    if (part == 6)
        return;
    uint32_t bits = part < 4 ? 8 : 16, shift = part < 4 ? 8 * part : 16 * (part - 4);
    uint32_t mask = ((1u << bits) - 1) << shift;
    FOR_LANES
    {
        uint32_t v = out[l] << shift & mask, rest = 0;
        if (unused == 2)
            rest = old[l] & ~mask;
        else if (unused == 1 && v >> (shift + bits - 1) & 1 && shift + bits < 32)
            rest = ~0u << (shift + bits);
        out[l] = v | rest;
    }
}

static void run_full(struct va_wave *w, const struct va_insn *i)
{
    row a[2], b[2], c[2], out[2];
    uint64_t enabled = UINT64_MAX;
    const struct va_vector_op *op = &VA_NAME(elements)[i->op];
    va_lane_fn fn = i->clamp && op->saturating ? op->saturating : i->fn;
    uint16_t code = i->d;
    if (VA_UNLIKELY(w->mode & VA_MODE_GPR_IDX) && w->gpr_index >> 15 & 1 && code < VA_A0) {
        code = (uint16_t)(code + (w->gpr_index & 255));
        if ((uint32_t)(code - VA_V0) >= w->vgprs)
            va_fault(w, VA_REGISTER, "register", -1, 0, 0,
                     "relative register v%d: the kernel has %u", code - VA_V0, w->vgprs);
    }
    prepare(w, i, 0, i->kinds[1], a[0], &enabled);
    if (i->b != VA_NONE)
        prepare(w, i, 1, i->kinds[2], b[0], &enabled);
    if (i->c != VA_NONE)
        prepare(w, i, 2, i->kinds[3], c[0], &enabled);
    uint32_t *d = va_row(w, code);
    memcpy(out, d, i->wd * sizeof(row));
    count_flops(w, i);
    call(w, i, fn, out[0], a[0], b[0], c[0]);
    if (!op->saturating)
        finish(w, i, i->kinds[0], out[0]);
    bool short_result = i->kinds[0] == VA_K_F16 || i->kinds[0] == VA_K_B16;
    if (i->extension == VA_IS_SDWA && !va_reads_part(i->op))
        insert(i, out[0], d);
    else if (short_result && i->encoding == VA_VOP3 && i->opsel & 8)
        FOR_LANES out[0][l] = out[0][l] << 16 | (d[l] & 0xffff);
    else if (short_result && op->keeps)
        FOR_LANES out[0][l] = (out[0][l] & 0xffff) | (d[l] & 0xffff0000);
    for (unsigned k = 0; k < i->wd; k++)
        blend(d + k * VA_LANES, d + k * VA_LANES, out[k], va_exec(w) & enabled);
}

/* ---- packed ---- */

/* Sources of one half: of a 16-bit operation the lower or upper 16 bits, of a 32-bit one a
 * register. */
static void halves(const struct va_wave *w, const struct va_insn *i, int which, enum va_kind kind,
                   uint32_t *d, bool upper)
{
    uint16_t code = which == 0 ? i->a : which == 1 ? i->b : i->c;
    bool select = (upper ? i->opsel_hi : i->opsel) >> which & 1;
    bool neg = (upper ? i->abs : i->neg) >> which & 1;
    row room[2];
    if (kind == VA_K_F32) {
        if (code >= VA_V0)
            memcpy(d, va_row(w, code + select), sizeof(row));
        else
            fill(d, code < 128 ? w->s[code + select] : va_scalar(w, i, code));
    } else {
        const uint32_t *from = fetch(w, i, code, kind, room[0]);
        uint32_t shift = select ? 16 : 0;
        FOR_LANES d[l] = from[l] >> shift;
    }
    if (neg)
        negate(d, kind, true, false);
    if (w->slow && flushes(w, kind, false))
        flush(d, kind);
}

static void run_packed(struct va_wave *w, const struct va_insn *i)
{
    row a, b, c, out[2];
    const struct va_vector_op *op = &VA_NAME(elements)[i->op];
    va_lane_fn fn = i->clamp && op->saturating ? op->saturating : i->fn;
    uint32_t *d = va_row(w, i->d);
    count_flops(w, i);
    for (int upper = 0; upper < 2; upper++) {
        halves(w, i, 0, i->kinds[1], a, upper);
        if (i->b != VA_NONE)
            halves(w, i, 1, i->kinds[2], b, upper);
        if (i->c != VA_NONE)
            halves(w, i, 2, i->kinds[3], c, upper);
        call(w, i, fn, out[upper], a, b, c);
        if (!op->saturating)
            finish(w, i, i->kinds[0], out[upper]);
    }
    if (i->kinds[0] == VA_K_F32) {
        store(w, d, out[0], 2);
    } else {
        FOR_LANES out[0][l] = (out[0][l] & 0xffff) | out[1][l] << 16;
        store(w, d, out[0], 1);
    }
}

/* v_pk_fma_f32 and its like, on registers as they lie. */
static void run_packed_simple(struct va_wave *w, const struct va_insn *i)
{
    if (VA_UNLIKELY(w->slow) || va_exec(w) != UINT64_MAX ||
        (i->d == i->a && (i->opsel | !(i->opsel_hi & 1))) || i->d == i->b || i->d == i->c) {
        run_packed(w, i);
        return;
    }
    va_lane_fn fn = i->fn;
    uint32_t *d = va_row(w, i->d);
    count_flops(w, i);
    for (unsigned upper = 0; upper < 2; upper++) {
        unsigned s = upper ? i->opsel_hi : i->opsel;
        fn(d + upper * VA_LANES, va_row(w, i->a + (s & 1)), va_row(w, i->b + (s >> 1 & 1)),
           i->c == VA_NONE ? NULL : va_row(w, i->c + (s >> 2 & 1)), w);
    }
}

static void run_pk_mov(struct va_wave *w, const struct va_insn *i)
{
    row out[2];
    for (int k = 0; k < 2; k++) {
        uint16_t code = k ? i->b : i->a;
        bool select = i->opsel >> k & 1;
        if (code >= VA_V0)
            memcpy(out[k], va_row(w, code + select), sizeof(row));
        else
            fill(out[k], code < 128 ? w->s[code + select] : va_scalar(w, i, code));
    }
    store(w, va_row(w, i->d), out[0], 2);
}

/* Sources are f32, or a half of f16. */
static void run_mix(struct va_wave *w, const struct va_insn *i)
{
    row s[3], out;
    for (int k = 0; k < 3; k++) {
        uint16_t code = k == 0 ? i->a : k == 1 ? i->b : i->c;
        bool is_half = i->opsel_hi >> k & 1, high = i->opsel >> k & 1;
        row room[2];
        const uint32_t *from = fetch(w, i, code, is_half ? VA_K_F16 : VA_K_F32, room[0]);
        if (is_half) {
            FOR_LANES s[k][l] = from[l] >> (high ? 16 : 0) & 0xffff;
            if (w->slow && flushes(w, VA_K_F16, false))
                flush(s[k], VA_K_F16);
            FOR_LANES s[k][l] = bits_of(half_value(s[k][l]));
        } else {
            memcpy(s[k], from, sizeof(row));
        }
        negate(s[k], VA_K_F32, i->neg >> k & 1, i->abs >> k & 1);
        if (w->slow && !is_half && flushes(w, VA_K_F32, false))
            flush(s[k], VA_K_F32);
    }
    uint32_t *d = va_row(w, i->d);
    count_flops(w, i);
    call(w, i, i->fn, out, s[0], s[1], s[2]);
    finish(w, i, i->kinds[0], out);
    if (i->op == VA_VOP3P_v_fma_mixlo_f16)
        FOR_LANES out[l] = (out[l] & 0xffff) | (d[l] & 0xffff0000);
    else if (i->op == VA_VOP3P_v_fma_mixhi_f16)
        FOR_LANES out[l] = out[l] << 16 | (d[l] & 0xffff);
    store(w, d, out, 1);
}

/* ---- comparisons ---- */

static void put_mask(struct va_wave *w, const struct va_insn *i, uint64_t r)
{
    w->s64[i->sd / 2] = r;
    if (!strncmp(va_rows[i->op].name, "v_cmpx", 6))
        w->s64[VA_EXEC / 2] = r;
}

static void run_compare(struct va_wave *w, const struct va_insn *i)
{
    row room[4];
    const uint32_t *a, *b;
    uint64_t enabled = UINT64_MAX;
    if (VA_LIKELY(i->simple && !w->slow)) {
        a = fetch(w, i, i->a, i->kinds[1], room[0]);
        b = fetch(w, i, i->b, i->kinds[2], room[2]);
        w->s64[i->sd / 2] = i->compare(a, b) & va_exec(w);
        return;
    }
    prepare(w, i, 0, i->kinds[1], room[0], &enabled);
    prepare(w, i, 1, i->kinds[2], room[2], &enabled);
    put_mask(w, i, i->compare(room[0], room[2]) & va_exec(w));
}

/* ---- masks in and out ---- */

static void run_cndmask(struct va_wave *w, const struct va_insn *i)
{
    row a, b;
    uint64_t mask = w->s64[i->c / 2], enabled = UINT64_MAX, exec = va_exec(w);
    uint32_t *d = va_row(w, i->d);
    if (VA_LIKELY(i->simple && !w->slow)) {
        const uint32_t *zero = fetch(w, i, i->a, VA_K_B32, a),
                       *one = fetch(w, i, i->b, VA_K_B32, b);
        if (VA_LIKELY(exec == UINT64_MAX)) {
            blend(d, zero, one, mask);
        } else {
            blend(a, zero, one, mask);
            blend(d, d, a, exec);
        }
        return;
    }
    prepare(w, i, 0, VA_K_B32, a, &enabled);
    prepare(w, i, 1, VA_K_B32, b, &enabled);
    blend(a, a, b, mask);
    if (i->extension == VA_IS_SDWA)
        insert(i, a, d);
    blend(d, d, a, exec & enabled);
}

static void run_carry(struct va_wave *w, const struct va_insn *i)
{
    row a, b, out, carry;
    uint64_t enabled = UINT64_MAX, exec = va_exec(w);
    uint64_t in = i->c == VA_NONE ? 0 : w->s64[i->c / 2];
    bool add = i->op == VA_VOP2_v_add_co_u32 || i->op == VA_VOP2_v_addc_co_u32;
    bool reversed = i->op == VA_VOP2_v_subrev_co_u32 || i->op == VA_VOP2_v_subbrev_co_u32;
    prepare(w, i, 0, VA_K_B32, a, &enabled);
    prepare(w, i, 1, VA_K_B32, b, &enabled);
    const uint32_t *x = reversed ? b : a, *y = reversed ? a : b;
    _Alignas(64) uint32_t one[VA_LANES], zero[VA_LANES] = {0}, carried[VA_LANES];
    fill(one, 1);
    blend(carried, zero, one, in);
    if (add)
        FOR_LANES
        {
            uint32_t s = x[l] + y[l], r = s + carried[l];
            out[l] = r;
            carry[l] = (s < x[l]) | (r < s);
        }
    else
        FOR_LANES
        {
            uint32_t s = x[l] - y[l], r = s - carried[l];
            out[l] = r;
            carry[l] = (x[l] < y[l]) | (s < carried[l]);
        }
    uint64_t mask = mask_of(carry);
    if (i->clamp)
        FOR_LANES out[l] = carry[l] ? (add ? UINT32_MAX : 0) : out[l];
    uint32_t *d = va_row(w, i->d);
    if (i->extension == VA_IS_SDWA)
        insert(i, out, d);
    blend(d, d, out, exec & enabled);
    w->s64[i->sd / 2] = mask & exec & enabled;
}

static void run_mad64(struct va_wave *w, const struct va_insn *i)
{
    row a, b, c[2], out[2], carry;
    bool is_signed = i->op == VA_VOP3_v_mad_i64_i32;
    uint64_t enabled = UINT64_MAX;
    prepare(w, i, 0, VA_K_B32, a, &enabled);
    prepare(w, i, 1, VA_K_B32, b, &enabled);
    prepare(w, i, 2, is_signed ? VA_K_I64 : VA_K_B64, c[0], &enabled);
    FOR_LANES
    {
        uint64_t p =
            is_signed ? (uint64_t)((int64_t)(int32_t)a[l] * (int32_t)b[l]) : (uint64_t)a[l] * b[l];
        uint64_t q = c[0][l] | (uint64_t)c[1][l] << 32, r = p + q;
        carry[l] = is_signed ? (uint32_t)((~(p ^ q) & (p ^ r)) >> 63) : r < p;
        out[0][l] = (uint32_t)r;
        out[1][l] = (uint32_t)(r >> 32);
    }
    store(w, va_row(w, i->d), out[0], 2);
    w->s64[i->sd / 2] = mask_of(carry) & va_exec(w);
}

/* ---- division ---- */

VA_INLINE int raw_exponent(double v, bool is_float)
{
    return is_float ? (int)(bits_of((float)v) >> 23 & 255) : (int)(bits_of64(v) >> 52 & 2047);
}

/* a: what is scaled, b or c; b: denominator; c: numerator. */
static double scale(double a, double b, double c, bool is_float, bool *flag)
{
    int apart = is_float ? 96 : 768, by = is_float ? 64 : 128, tiny = is_float ? 23 : 53;
    double least = is_float ? 0x1p-126 : 0x1p-1022;
    int eb = raw_exponent(b, is_float), ec = raw_exponent(c, is_float);
    double quotient = is_float ? (double)(float)(c / b) : c / b;
    double inverse = 1.0 / b;
    bool small_inverse = fabs(inverse) < least && inverse != 0;
    bool small_quotient = fabs(quotient) < least && quotient != 0;
    bool small_b = b != 0 && fabs(b) < least;
    *flag = false;
    if (b == 0 || c == 0)
        return (double)NAN;
    if (ec - eb >= apart) {
        *flag = true;
        return a == b ? ldexp(a, by) : a;
    }
    if (small_b)
        return ldexp(a, by);
    if (small_inverse && small_quotient) { /* the manual says up, which would be infinite */
        *flag = true;
        return a == b ? ldexp(a, -by) : a;
    }
    if (small_inverse)
        return ldexp(a, -by);
    if (small_quotient) {
        *flag = true;
        return a == c ? ldexp(a, by) : a;
    }
    return ec <= tiny ? ldexp(a, by) : a;
}

static void run_div_scale(struct va_wave *w, const struct va_insn *i)
{
    row a[2], b[2], c[2], out[2];
    bool is_float = i->op == VA_VOP3_v_div_scale_f32;
    enum va_kind kind = is_float ? VA_K_F32 : VA_K_F64;
    uint64_t enabled = UINT64_MAX, mask = 0;
    prepare(w, i, 0, kind, a[0], &enabled);
    prepare(w, i, 1, kind, b[0], &enabled);
    prepare(w, i, 2, kind, c[0], &enabled);
    for (int l = 0; l < VA_LANES; l++) {
        bool flag;
        if (is_float) {
            double r = scale((double)float_of(a[0][l]), (double)float_of(b[0][l]),
                             (double)float_of(c[0][l]), true, &flag);
            out[0][l] = bits_of((float)r);
        } else {
            double r = scale(double_of(a[0][l] | (uint64_t)a[1][l] << 32),
                             double_of(b[0][l] | (uint64_t)b[1][l] << 32),
                             double_of(c[0][l] | (uint64_t)c[1][l] << 32), false, &flag);
            out[0][l] = (uint32_t)bits_of64(r);
            out[1][l] = (uint32_t)(bits_of64(r) >> 32);
        }
        mask |= (uint64_t)flag << l;
    }
    store(w, va_row(w, i->d), out[0], i->wd);
    w->s64[i->sd / 2] = mask & va_exec(w);
}

/* What v_div_scale scaled is undone: up where the quotient is large, else down. */
static void run_div_fmas(struct va_wave *w, const struct va_insn *i)
{
    row a[2], b[2], c[2], out[2];
    bool is_float = i->op == VA_VOP3_v_div_fmas_f32;
    enum va_kind kind = is_float ? VA_K_F32 : VA_K_F64;
    uint64_t enabled = UINT64_MAX, vcc = w->s64[VA_VCC / 2];
    prepare(w, i, 0, kind, a[0], &enabled);
    prepare(w, i, 1, kind, b[0], &enabled);
    prepare(w, i, 2, kind, c[0], &enabled);
    count_flops(w, i);
    for (int l = 0; l < VA_LANES; l++) {
        bool up = vcc >> l & 1;
        if (is_float) {
            float r = __builtin_fmaf(float_of(a[0][l]), float_of(b[0][l]), float_of(c[0][l]));
            float by = raw_exponent((double)float_of(c[0][l]), true) > 127 ? 0x1p64f : 0x1p-64f;
            out[0][l] = bits_of(up ? r * by : r);
        } else {
            double r = __builtin_fma(double_of(a[0][l] | (uint64_t)a[1][l] << 32),
                                     double_of(b[0][l] | (uint64_t)b[1][l] << 32),
                                     double_of(c[0][l] | (uint64_t)c[1][l] << 32));
            double s = double_of(c[0][l] | (uint64_t)c[1][l] << 32);
            double by = raw_exponent(s, false) > 1023 ? 0x1p128 : 0x1p-128;
            uint64_t v = bits_of64(up ? r * by : r);
            out[0][l] = (uint32_t)v;
            out[1][l] = (uint32_t)(v >> 32);
        }
    }
    finish(w, i, kind, out[0]);
    store(w, va_row(w, i->d), out[0], i->wd);
}

/* A byte of the result, the others stay. */
static void run_random_fp8(struct va_wave *w, const struct va_insn *i)
{
    row a, random, out;
    int exponent_bits = i->op == VA_VOP3_v_cvt_sr_fp8_f32 ? 4 : 5;
    uint64_t enabled = UINT64_MAX;
    uint32_t *d = va_row(w, i->d);
    prepare(w, i, 0, VA_K_F32, a, &enabled);
    prepare(w, i, 1, VA_K_B32, random, &enabled);
    for (int l = 0; l < VA_LANES; l++)
        out[l] = with_byte(d[l], i->opsel >> 2,
                           va_to_fp8_random(float_of(a[l]), random[l], exponent_bits,
                                            w->mode & VA_MODE_FP16_OVFL));
    store(w, d, out, 1);
}

/* ---- across lanes ---- */

static void run_readfirstlane(struct va_wave *w, const struct va_insn *i)
{
    uint64_t exec = va_exec(w);
    w->s[i->d] = va_row(w, i->a)[exec ? __builtin_ctzll(exec) : 0];
}
static void run_readlane(struct va_wave *w, const struct va_insn *i)
{
    w->s[i->d] = va_row(w, i->a)[va_scalar(w, i, i->b) & 63];
}
static void run_writelane(struct va_wave *w, const struct va_insn *i)
{
    va_row(w, i->d)[va_scalar(w, i, i->b) & 63] = va_scalar(w, i, i->a);
}
static void run_mbcnt(struct va_wave *w, const struct va_insn *i)
{
    row a, b, out;
    bool high = i->op == VA_VOP3_v_mbcnt_hi_u32_b32;
    uint64_t enabled = UINT64_MAX;
    prepare(w, i, 0, VA_K_B32, a, &enabled);
    prepare(w, i, 1, VA_K_B32, b, &enabled);
    for (int l = 0; l < VA_LANES; l++) {
        uint64_t below = (1ull << l) - 1;
        uint32_t mask = (uint32_t)(high ? below >> 32 : below);
        out[l] = (uint32_t)__builtin_popcount(a[l] & mask) + b[l];
    }
    store(w, va_row(w, i->d), out, 1);
}
static void run_swap(struct va_wave *w, const struct va_insn *i)
{
    row a, b;
    uint32_t *x = va_row(w, i->d), *y = va_row(w, i->a);
    memcpy(a, x, sizeof a);
    memcpy(b, y, sizeof b);
    blend(x, x, b, va_exec(w));
    blend(y, y, a, va_exec(w));
}
/* Four sums of differences at once: the bytes of b against those of a from each of its first four.
 */
static void run_mqsad(struct va_wave *w, const struct va_insn *i)
{
    row out[4];
    uint32_t *d = va_row(w, i->d);
    for (int l = 0; l < VA_LANES; l++) {
        const uint32_t *a = va_row(w, i->a), *c = va_row(w, i->c);
        uint64_t bytes = a[l] | (uint64_t)a[l + VA_LANES] << 32;
        for (int k = 0; k < 4; k++)
            out[k][l] = c[l + k * VA_LANES] +
                        sad8((uint32_t)(bytes >> 8 * k),
                             i->b < VA_V0 ? va_scalar(w, i, i->b) : va_row(w, i->b)[l], true);
    }
    store(w, d, out[0], 4);
}
static void run_nop(struct va_wave *w, const struct va_insn *i)
{
    (void)w, (void)i;
}

/* ---- binding ---- */

static va_handler special(uint16_t op)
{
    switch (op) {
    case VA_VOP1_v_nop:
    case VA_VOP1_v_clrexcp:
        return run_nop;
    case VA_VOP1_v_readfirstlane_b32:
        return run_readfirstlane;
    case VA_VOP1_v_swap_b32:
        return run_swap;
    case VA_VOP2_v_cndmask_b32:
        return run_cndmask;
    case VA_VOP2_v_add_co_u32:
    case VA_VOP2_v_sub_co_u32:
    case VA_VOP2_v_subrev_co_u32:
    case VA_VOP2_v_addc_co_u32:
    case VA_VOP2_v_subb_co_u32:
    case VA_VOP2_v_subbrev_co_u32:
        return run_carry;
    case VA_VOP3_v_mad_u64_u32:
    case VA_VOP3_v_mad_i64_i32:
        return run_mad64;
    case VA_VOP3_v_div_scale_f32:
    case VA_VOP3_v_div_scale_f64:
        return run_div_scale;
    case VA_VOP3_v_div_fmas_f32:
    case VA_VOP3_v_div_fmas_f64:
        return run_div_fmas;
    case VA_VOP3_v_readlane_b32:
        return run_readlane;
    case VA_VOP3_v_writelane_b32:
        return run_writelane;
    case VA_VOP3_v_mbcnt_lo_u32_b32:
    case VA_VOP3_v_mbcnt_hi_u32_b32:
        return run_mbcnt;
    case VA_VOP3_v_mqsad_u32_u8:
        return run_mqsad;
    case VA_VOP3_v_cvt_sr_fp8_f32:
    case VA_VOP3_v_cvt_sr_bf8_f32:
        return run_random_fp8;
    case VA_VOP3P_v_pk_mov_b32:
        return run_pk_mov;
    default:
        return NULL;
    }
}

static enum va_kind compare_kind(const char *name)
{
    size_t n = strlen(name);
    const char *t = name + n - 3;
    return !strcmp(t, "f32")   ? VA_K_F32
           : !strcmp(t, "f16") ? VA_K_F16
           : !strcmp(t, "f64") ? VA_K_F64
           : !strcmp(t, "i64") ? VA_K_I64
           : !strcmp(t, "u64") ? VA_K_B64
           : t[1] == '1'       ? VA_K_B16
                               : VA_K_B32;
}

static bool unmodified(const struct va_insn *i)
{
    return i->extension == VA_PLAIN && !i->neg && !i->abs && !i->clamp && !i->omod && !i->opsel;
}

static bool bind_compare(struct va_insn *i)
{
    const char *name = va_rows[i->op].name;
    i->compare = VA_NAME(compares)[i->op];
    i->kinds[1] = i->kinds[2] = (uint8_t)compare_kind(name);
    if (strstr(name, "_class_"))
        i->kinds[2] = VA_K_B32;
    i->simple = unmodified(i) && strncmp(name, "v_cmpx", 6);
    i->relative = i->extension != VA_IS_SDWA;
    i->run = run_compare;
    return i->compare;
}

static bool bind_packed(struct va_insn *i, const struct va_vector_op *op)
{
    const char *name = va_rows[i->op].name;
    if (!strncmp(name, "v_fma_mix", 9)) {
        i->run = run_mix;
        return true;
    }
    if (!strncmp(name, "v_dot", 5)) { /* modifiers of halves: nobody has asked for them */
        i->run = run_full;
        return !i->neg && !i->abs && !i->opsel && i->opsel_hi == 7;
    }
    if (!strncmp(name, "v_acc", 5)) {
        i->run = run_simple;
        return true;
    }
    i->run = run_packed;
    if (i->clamp && (i->op == VA_VOP3P_v_pk_mul_lo_u16 || i->op == VA_VOP3P_v_pk_lshlrev_b16))
        return false; /* nobody says what that is */
    if (op->d == VA_K_F32 && !i->neg && !i->abs && !i->clamp && i->a >= VA_V0 && i->b >= VA_V0 &&
        i->c >= VA_V0)
        i->run = run_packed_simple;
    return true;
}

bool VA_NAME(bind_vector)(struct va_insn *i)
{
    const struct va_vector_op *op = &VA_NAME(elements)[i->op];
    i->class = VA_CLASS_VALU;
    i->simple = unmodified(i);
    if (va_rows[i->op].encoding == VA_VOPC)
        return bind_compare(i);
    va_handler run = special(i->op);
    if (run) {
        i->flops = strstr(va_rows[i->op].name, "fmas") ? 2 : 0;
        i->relative = run == run_nop;
        i->run = run;
        if (run == run_mqsad) /* sources as they are usually */
            return !i->clamp && i->a >= VA_V0 && i->c >= VA_V0;
        if (run == run_random_fp8) /* only the byte is selected */
            return !(i->opsel & 3);
        return i->extension == VA_PLAIN || run == run_cndmask || run == run_carry;
    }
    if (!op->fn)
        return false;
    i->fn = op->fn;
    i->flops = op->flops;
    i->kinds[0] = op->d;
    i->kinds[1] = op->a;
    i->kinds[2] = op->b;
    i->kinds[3] = op->c;
    if (i->op == VA_VOP2_v_pk_fmac_f16) {
        i->opsel_hi = 7;
        i->run = run_packed;
        return i->extension == VA_PLAIN;
    }
    if (i->encoding == VA_VOP3P)
        return bind_packed(i, op);
    i->run = i->simple && !op->keeps ? run_simple : run_full;
    i->relative = i->extension != VA_IS_SDWA && i->c != i->d && i->c != VA_LITERAL &&
                  i->b != VA_LITERAL && !strstr(va_rows[i->op].name, "shlrev") &&
                  !strstr(va_rows[i->op].name, "shrrev");
    const char *name = va_rows[i->op].name;
    bool odd = i->clamp && (strstr(name, "qsad") || !strcmp(name, "v_pack_b32_f16"));
    return !odd && !(strstr(name, "ldexp") && (i->neg | i->abs) & 2); /* nobody says what that is */
}
