/* ldmatrix, stmatrix, movmatrix, mma.sync and wmma. Which lane holds which element is written down
 * here as arithmetic on the lane's row group g = lane / 4 and place t = lane % 4. */
#include "memory.h"

VN_INLINE bool converged(struct vn_warp *w, const struct vn_insn *insn, uint32_t *mask)
{
    return vn_sync(w, insn, mask, UINT32_MAX);
}

/* ---- ldmatrix and its kin ---- */

/* The addresses of the rows: lanes 0 to 8 * count - 1 give them. */
static void rows(struct vn_warp *w, const struct vn_insn *insn, uint32_t mask, bool store,
                 uint8_t *at[32])
{
    uint32_t count = insn->vec, used = count == 4 ? UINT32_MAX : (1u << 8 * count) - 1;
    struct vn_addresses a;
    vn_gather_addresses(w, insn->a, insn->flags & VN_ADDRESS64, insn->imm, mask, 16, &a);
    vn_spread(&a, 16);
    if (insn->mode & 2) { /* generic */
        for (int l = 0; l < 32; l++)
            a.at[l] -= VN_SHARED_WINDOW;
    }
    if (used & ~mask)
        vn_fault(w, VN_ILLEGAL_INSTRUCTION, "invalid", NULL, mask,
                 "lanes 0x%08x, which give addresses of rows, have exited", used & ~mask);
    a.consecutive = a.same = false;
    for (uint32_t l = 0; l < 8 * count; l++)
        at[l] = vn_shared(w, a.at[l], 16, store, l);
    if (w->launch->count) { /* a matrix is one pass if its rows lie in different banks */
        struct vn_insn_counters *c = w->counters + (insn - w->code);
        c->passes += vn_count_passes(&a, used, 16);
    }
    if (w->block->async_pending) {
        for (uint32_t l = 0; l < 8 * count; l++)
            vn_check_async(w, a.at[l], 16, l, store ? "store" : "load");
    }
    if (w->block->race)
        vn_race_shared(w, &a, used, 16, store ? VN_WRITE : VN_READ);
    if (w->block->shared_unwritten && store)
        vn_mark_written(w, &a, used, 16, true);
    else if (w->block->shared_unwritten)
        vn_check_written(w, &a, used, 16, true);
}

VN_HANDLER(ldmatrix)
{
    uint8_t *at[32];
    if (!converged(w, insn, &mask))
        return;
    rows(w, insn, mask, false, at);
    for (uint32_t k = 0; k < insn->vec; k++) {
        uint32_t code = insn->vec == 1 ? w->pool[insn->pool] : w->pool[insn->pool + k];
        uint32_t *d = vn_at(w, code), value[32];
        for (uint32_t l = 0; l < 32; l++) {
            uint32_t g = l / 4, t = l % 4;
            if (insn->mode & 1) {
                uint16_t low, high;
                memcpy(&low, at[8 * k + 2 * t] + 2 * g, 2);
                memcpy(&high, at[8 * k + 2 * t + 1] + 2 * g, 2);
                value[l] = low | (uint32_t)high << 16;
            } else {
                memcpy(&value[l], at[8 * k + g] + 4 * t, 4);
            }
        }
        VN_LANES d[l] = mask >> l & 1 ? value[l] : d[l];
    }
}

VN_HANDLER(stmatrix)
{
    uint8_t *at[32];
    if (!converged(w, insn, &mask))
        return;
    rows(w, insn, mask, true, at);
    for (uint32_t k = 0; k < insn->vec; k++) {
        const uint32_t *s = vn_at(w, w->pool[insn->pool + k]);
        for (uint32_t m = mask; m; m &= m - 1) {
            uint32_t l = (uint32_t)__builtin_ctz(m), g = l / 4, t = l % 4;
            if (insn->mode & 1) {
                uint16_t low = (uint16_t)s[l], high = (uint16_t)(s[l] >> 16);
                memcpy(at[8 * k + 2 * t] + 2 * g, &low, 2);
                memcpy(at[8 * k + 2 * t + 1] + 2 * g, &high, 2);
            } else {
                memcpy(at[8 * k + g] + 4 * t, &s[l], 4);
            }
        }
    }
}

VN_HANDLER(movmatrix)
{
    if (!converged(w, insn, &mask))
        return;
    const uint32_t *a = vn_at(w, insn->a);
    uint16_t matrix[8][8];
    for (uint32_t l = 0; l < 32; l++) {
        matrix[l / 4][2 * (l % 4)] = (uint16_t)a[l];
        matrix[l / 4][2 * (l % 4) + 1] = (uint16_t)(a[l] >> 16);
    }
    VN_BODY(u32, , matrix[2 * (l % 4)][l / 4] | (uint32_t)matrix[2 * (l % 4) + 1][l / 4] << 16)
}

/* ---- mma ---- */

enum { MAX_M = 32, MAX_N = 32, MAX_K = 32 };

VN_INLINE uint32_t bits_of(uint32_t type)
{
    switch (type) {
    case VN_ELEMENT_F16:
    case VN_ELEMENT_BF16:
        return 16;
    case VN_ELEMENT_F64:
        return 64;
    case VN_ELEMENT_TF32:
    case VN_ELEMENT_F32:
    case VN_ELEMENT_S32:
        return 32;
    default:
        return 8;
    }
}

/* Row and column of element i of lane's fragment of a (m x k), b (k x n) or c (m x n). Elements of
 * a row lie `run` side by side in a register; t counts runs along the row, g rows. */
struct place {
    uint32_t row, col;
};

VN_INLINE struct place place_a(uint32_t lane, uint32_t i, uint32_t run, uint32_t m)
{
    uint32_t g = lane / 4, t = lane % 4, reg = i / run, within = i % run;
    /* registers: rows g and g + 8 first, then the next four runs of columns */
    uint32_t tall = m == 16 ? 2 : 1;
    return (struct place){g + 8 * (reg % tall), run * (t + 4 * (reg / tall)) + within};
}
VN_INLINE struct place place_b(uint32_t lane, uint32_t i, uint32_t run)
{
    uint32_t g = lane / 4, t = lane % 4, reg = i / run, within = i % run;
    return (struct place){run * (t + 4 * reg) + within, g};
}
VN_INLINE struct place place_c(uint32_t lane, uint32_t i)
{
    uint32_t g = lane / 4, t = lane % 4;
    return (struct place){g + 8 * (i / 2), 2 * t + i % 2};
}

/* Element i of a lane's registers, as bits. */
VN_INLINE uint64_t element(const struct vn_warp *w, const uint32_t *codes, uint32_t lane,
                           uint32_t i, uint32_t bits)
{
    if (bits == 64)
        return ((const uint64_t *)vn_at(w, codes[i]))[lane];
    uint32_t run = 32 / bits, word = ((const uint32_t *)vn_at(w, codes[i / run]))[lane];
    return bits == 32 ? word : word >> bits * (i % run) & ((1u << bits) - 1);
}

VN_INLINE float to_float(uint32_t bits, uint32_t type)
{
    switch (type) {
    case VN_ELEMENT_F16:
        return half_to_f32(bits);
    case VN_ELEMENT_BF16:
        return bf16_to_f32(bits);
    case VN_ELEMENT_TF32: /* the low 13 bits are not read */
        return float32(bits & 0xffffe000);
    case VN_ELEMENT_E4M3:
        return e4m3_to_f32(bits);
    case VN_ELEMENT_E5M2:
        return e5m2_to_f32(bits);
    default:
        return float32(bits);
    }
}

/* wmma fragments: element number e of the matrix, by rows, is in slot e of the warp, lane after
 * lane; a fragment with more slots than elements repeats them. The ISA leaves this to the device.
 */
VN_INLINE struct place place_wmma(uint32_t lane, uint32_t i, uint32_t slots, uint32_t rows,
                                  uint32_t cols)
{
    /* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): no side of a shape is 0 */
    uint32_t e = (lane * slots + i) % (rows * cols);
    return (struct place){e / cols, e % cols};
}

struct shape {
    uint32_t m, n, k, types[4], counts[4]; /* d a b c: registers */
    bool wmma, sat;
    const uint32_t *codes[4];
};

static uint32_t registers_of(const struct shape *s, uint32_t which)
{
    uint32_t bits = bits_of(s->types[which]), unit = bits == 64 ? 64 : 32;
    uint32_t elements = which == 1 ? s->m * s->k : which == 2 ? s->k * s->n : s->m * s->n;
    if (s->wmma && (which == 1 || which == 2) && s->types[which] == VN_ELEMENT_F16)
        return 8; /* twice what is needed, by the ISA */
    return elements * bits / (32 * unit);
}

static void describe(const struct vn_warp *w, const struct vn_insn *insn, struct shape *s)
{
    uint64_t v = (uint64_t)insn->imm;
    s->m = v & 255;
    s->n = v >> 8 & 255;
    s->k = v >> 16 & 255;
    s->sat = v >> 40 & 1;
    s->wmma = v >> 41 & 1;
    const uint32_t *at = w->pool + insn->pool;
    for (uint32_t i = 0; i < 4; i++) {
        s->types[i] = v >> (24 + 4 * i) & 15;
        s->counts[i] = registers_of(s, i);
        s->codes[i] = at;
        at += s->counts[i];
    }
}

VN_INLINE struct place place_of(const struct shape *s, uint32_t which, uint32_t lane, uint32_t i)
{
    uint32_t bits = bits_of(s->types[which]), run = bits >= 32 ? 1 : 32 / bits;
    if (s->wmma) {
        uint32_t slots = s->counts[which] * (bits >= 32 ? 1 : 32 / bits);
        return which == 1   ? place_wmma(lane, i, slots, s->m, s->k)
               : which == 2 ? place_wmma(lane, i, slots, s->k, s->n)
                            : place_wmma(lane, i, slots, s->m, s->n);
    }
    return which == 1   ? place_a(lane, i, run, s->m)
           : which == 2 ? place_b(lane, i, run)
                        : place_c(lane, i);
}

VN_INLINE uint32_t elements_of(const struct shape *s, uint32_t which)
{
    uint32_t bits = bits_of(s->types[which]);
    return bits >= 32 ? s->counts[which] : s->counts[which] * (32 / bits);
}

struct floats {
    float a[MAX_M][MAX_K], b[MAX_K][MAX_N], c[MAX_M][MAX_N];
};

/* The common case: 16 x 8 accumulators. Exact products, added in f64 in order of k and rounded
 * once: like hardware, no partial sum overflows. */
VN_INLINE void multiply_16x8(struct floats *f, uint32_t k)
{
    for (uint32_t i = 0; i < 16; i++) {
        double sum[8];
        for (uint32_t j = 0; j < 8; j++)
            sum[j] = f->c[i][j];
        for (uint32_t p = 0; p < k; p++) {
            double x = f->a[i][p];
            for (uint32_t j = 0; j < 8; j++)
                sum[j] += x * (double)f->b[p][j];
        }
        for (uint32_t j = 0; j < 8; j++)
            f->c[i][j] = (float)sum[j];
    }
}

static void gather_floats(const struct vn_warp *w, const struct shape *s, uint32_t which,
                          float *out, uint32_t stride)
{
    uint32_t n = elements_of(s, which), bits = bits_of(s->types[which]), type = s->types[which];
    uint32_t run = bits >= 32 ? 1 : 32 / bits, i = 0;
    do { /* there is an element */
        const uint32_t *reg = vn_at(w, s->codes[which][i / run]);
        uint32_t shift = bits * (i % run), keep = bits >= 32 ? UINT32_MAX : (1u << bits) - 1;
        float value[32];
        switch (type) {
#define GATHER(T)                                                                                  \
    case T:                                                                                        \
        VN_LANES value[l] = to_float(reg[l] >> shift & keep, T);                                   \
        break;
            GATHER(VN_ELEMENT_F16)
            GATHER(VN_ELEMENT_BF16)
            GATHER(VN_ELEMENT_TF32)
            GATHER(VN_ELEMENT_E4M3)
            GATHER(VN_ELEMENT_E5M2)
        default:
            VN_LANES value[l] = float32(reg[l]);
        }
        for (uint32_t l = 0; l < 32; l++) {
            struct place p = place_of(s, which, l, i);
            out[p.row * stride + p.col] = value[l];
        }
    } while (++i < n);
}

static void float_mma(struct vn_warp *w, const struct shape *s, uint32_t mask)
{
    struct floats f;
    gather_floats(w, s, 1, &f.a[0][0], MAX_K);
    gather_floats(w, s, 2, &f.b[0][0], MAX_N);
    gather_floats(w, s, 3, &f.c[0][0], MAX_N);
    if (s->m == 16 && s->n == 8) {
        multiply_16x8(&f, s->k);
    } else {
        for (uint32_t i = 0; i < s->m; i++) {
            for (uint32_t j = 0; j < s->n; j++) {
                double sum = f.c[i][j];
                for (uint32_t p = 0; p < s->k; p++)
                    sum += (double)f.a[i][p] * (double)f.b[p][j];
                f.c[i][j] = (float)sum;
            }
        }
    }
    uint32_t n = elements_of(s, 0);
    bool half = s->types[0] == VN_ELEMENT_F16;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t *d = vn_at(w, s->codes[0][half ? i / 2 : i]);
        for (uint32_t m = mask; m; m &= m - 1) {
            uint32_t l = (uint32_t)__builtin_ctz(m);
            struct place p = place_of(s, 0, l, i);
            float v = nan32(f.c[p.row][p.col]);
            if (!half)
                d[l] = bits32(v);
            else if (i % 2)
                d[l] = (d[l] & 0xffff) | half_from_f32(v) << 16;
            else
                d[l] = (d[l] & 0xffff0000) | half_from_f32(v);
        }
    }
}

static void integer_mma(struct vn_warp *w, const struct shape *s, uint32_t mask)
{
    static const uint32_t strides[4] = {MAX_N, MAX_K, MAX_N, MAX_N};
    int32_t a[MAX_M * MAX_K], b[MAX_K * MAX_N], c[MAX_M * MAX_N], *to[4] = {NULL, a, b, c};
    for (uint32_t which = 1; which < 4; which++) {
        uint32_t n = elements_of(s, which), type = s->types[which], i = 0;
        do {
            for (uint32_t l = 0; l < 32; l++) {
                uint32_t v = (uint32_t)element(w, s->codes[which], l, i, bits_of(type));
                struct place p = place_of(s, which, l, i);
                to[which][p.row * strides[which] + p.col] =
                    type == VN_ELEMENT_S8 ? (int8_t)v : (int32_t)v;
            }
        } while (++i < n);
    }
    uint32_t n = elements_of(s, 0);
    for (uint32_t i = 0; i < s->m; i++) {
        for (uint32_t j = 0; j < s->n; j++) {
            int64_t sum = c[i * MAX_N + j];
            for (uint32_t p = 0; p < s->k; p++)
                sum += (int64_t)a[i * MAX_K + p] * b[p * MAX_N + j];
            c[i * MAX_N + j] = s->sat ? sat_s32(sum) : (int32_t)(uint64_t)sum;
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t *d = vn_at(w, s->codes[0][i]);
        for (uint32_t m = mask; m; m &= m - 1) {
            uint32_t l = (uint32_t)__builtin_ctz(m);
            struct place p = place_of(s, 0, l, i);
            d[l] = (uint32_t)c[p.row * MAX_N + p.col];
        }
    }
}

static void double_mma(struct vn_warp *w, const struct shape *s, uint32_t mask)
{
    static const uint32_t strides[4] = {MAX_N, MAX_K, MAX_N, MAX_N};
    double a[MAX_M * MAX_K], b[MAX_K * MAX_N], c[MAX_M * MAX_N], *to[4] = {NULL, a, b, c};
    for (uint32_t which = 1; which < 4; which++) {
        uint32_t i = 0;
        do {
            for (uint32_t l = 0; l < 32; l++) {
                struct place p = place_of(s, which, l, i);
                to[which][p.row * strides[which] + p.col] =
                    float64(element(w, s->codes[which], l, i, 64));
            }
        } while (++i < s->counts[which]);
    }
    for (uint32_t i = 0; i < s->m; i++) {
        for (uint32_t j = 0; j < s->n; j++) {
            for (uint32_t p = 0; p < s->k; p++)
                c[i * MAX_N + j] = fma(a[i * MAX_K + p], b[p * MAX_N + j], c[i * MAX_N + j]);
        }
    }
    for (uint32_t i = 0; i < s->counts[0]; i++) {
        double *d = vn_at(w, s->codes[0][i]);
        for (uint32_t m = mask; m; m &= m - 1) {
            uint32_t l = (uint32_t)__builtin_ctz(m);
            struct place p = place_of(s, 0, l, i);
            d[l] = c[p.row * MAX_N + p.col];
        }
    }
}

typedef double doubles8 __attribute__((vector_size(64)));
typedef float floats8 __attribute__((vector_size(32)));
typedef float floats4 __attribute__((vector_size(16)));

VN_INLINE float pair_half(uint32_t x, bool bf16)
{
    return bf16 ? bf16_to_f32(x) : half_to_f32(x);
}

/* The product is exact: fused or not, the sum is the same. */
VN_INLINE void add_product(doubles8 *sum, double x, const doubles8 *y)
{
#ifdef __AVX512F__
    *sum = (doubles8)_mm512_fmadd_pd(_mm512_set1_pd(x), (__m512d)*y, (__m512d)*sum);
#else
    *sum += x * *y;
#endif
}

/* Columns of 8 halves become rows, whose columns are in the order 0 2 4 6 1 3 5 7. */
VN_INLINE void transpose(uint16_t rows[8][8], const uint16_t columns[64])
{
#ifdef __AVX512BW__
    uint16_t from[32];
    __m512i low = _mm512_loadu_si512(columns), high = _mm512_loadu_si512(columns + 32);
    for (uint32_t c = 0; c < 8; c += 4) {
        for (uint32_t k = 0; k < 32; k++)
            from[k] = (uint16_t)(8 * (k % 8 < 4 ? 2 * (k % 8) : 2 * (k % 8) - 7) + c + k / 8);
        _mm512_storeu_si512(rows[c],
                            _mm512_permutex2var_epi16(low, _mm512_loadu_si512(from), high));
    }
#else
    for (uint32_t c = 0; c < 8; c++) {
        for (uint32_t j = 0; j < 8; j++)
            rows[c][j] = columns[8 * (j < 4 ? 2 * j : 2 * j - 7) + c];
    }
#endif
}

/* m16n8k16 of bf16 or f16 into f32, by far the commonest. A register of a or b, seen as 64 halves
 * in the order of lanes, is an 8 x 8 matrix by rows (of b, by columns). Columns of c are taken in
 * the order 0 2 4 6 1 3 5 7, in which a lane's pair lies in two registers. */
VN_INLINE void mma_16816(struct vn_warp *w, const struct shape *s, uint32_t mask, bool bf16)
{
    double a[16][16];
    doubles8 b[16];
    float out[4][32];
    for (uint32_t i = 0; i < 4; i++) {
        const uint16_t *h = vn_at(w, s->codes[1][i]);
        for (uint32_t g = 0; g < 8; g++) {
            for (uint32_t c = 0; c < 8; c++)
                a[g + 8 * (i & 1)][c + 8 * (i >> 1)] = (double)pair_half(h[8 * g + c], bf16);
        }
    }
    for (uint32_t i = 0; i < 2; i++) {
        uint16_t rows[8][8];
        transpose(rows, vn_at(w, s->codes[2][i]));
        for (uint32_t c = 0; c < 8; c++) {
            for (uint32_t j = 0; j < 8; j++)
                b[8 * i + c][j] = (double)pair_half(rows[c][j], bf16);
        }
    }
    for (uint32_t half = 0; half < 2; half++) { /* rows of two registers of c, four at a time */
        const float *even = vn_at(w, s->codes[3][2 * half]);
        const float *odd = vn_at(w, s->codes[3][2 * half + 1]);
        for (uint32_t i = 0; i < 8; i += 4) {
            doubles8 sum[4];
            for (uint32_t r = 0; r < 4; r++) {
                floats4 e, o;
                memcpy(&e, even + 4 * (i + r), 16);
                memcpy(&o, odd + 4 * (i + r), 16);
                sum[r] = __builtin_convertvector(
                    __builtin_shufflevector(e, o, 0, 1, 2, 3, 4, 5, 6, 7), doubles8);
            }
            for (uint32_t p = 0; p < 16; p++) {
#pragma GCC unroll 4
                for (uint32_t r = 0; r < 4; r++)
                    add_product(&sum[r], a[8 * half + i + r][p], &b[p]);
            }
            for (uint32_t r = 0; r < 4; r++) {
                floats8 c = __builtin_convertvector(sum[r], floats8);
                memcpy(&out[2 * half][4 * (i + r)], &c, 16);
                memcpy(&out[2 * half + 1][4 * (i + r)], (const char *)&c + 16, 16);
            }
        }
    }
    for (uint32_t i = 0; i < 4; i++) {
        float *d = vn_at(w, s->codes[0][i]);
        VN_LANES d[l] = mask >> l & 1 ? nan32(out[i][l]) : d[l];
    }
}

static void mma_bf16(struct vn_warp *w, const struct shape *s, uint32_t mask)
{
    mma_16816(w, s, mask, true);
}

static void mma_f16(struct vn_warp *w, const struct shape *s, uint32_t mask)
{
    mma_16816(w, s, mask, false);
}

VN_HANDLER(mma)
{
    struct shape s;
    if (!converged(w, insn, &mask))
        return;
    describe(w, insn, &s);
    bool half = s.types[1] == VN_ELEMENT_BF16 || s.types[1] == VN_ELEMENT_F16;
    if (!s.wmma && half && s.m == 16 && s.n == 8 && s.k == 16 && s.types[0] == VN_ELEMENT_F32)
        (s.types[1] == VN_ELEMENT_BF16 ? mma_bf16 : mma_f16)(w, &s, mask);
    else if (s.types[1] == VN_ELEMENT_S8 || s.types[1] == VN_ELEMENT_U8)
        integer_mma(w, &s, mask);
    else if (s.types[1] == VN_ELEMENT_F64)
        double_mma(w, &s, mask);
    else
        float_mma(w, &s, mask);
}

/* ---- wmma's memory ---- */

static void wmma_access(struct vn_warp *w, const struct vn_insn *insn, uint32_t mask, bool store)
{
    uint32_t m = insn->p & 255, n = insn->p >> 8, k = insn->q & 255, type = insn->q >> 8;
    uint32_t which = insn->mode >> 1 & 3; /* a b c d */
    bool by_row = insn->mode & 1;
    uint32_t rows = which == 1 ? k : m, cols = which == 0 ? k : n;
    uint32_t bits = bits_of(type), bytes = bits / 8, run = bits >= 32 ? 1 : 32 / bits;
    uint32_t slots = insn->vec * run;
    const uint32_t *stride = vn_at(w, insn->b), *codes = w->pool + insn->pool;
    struct vn_addresses base;
    vn_gather_addresses(w, insn->a, insn->flags & VN_ADDRESS64, insn->imm, mask, 1, &base);
    vn_spread(&base, 1);
    for (uint32_t i = 0; i < slots; i++) {
        struct vn_addresses a = {.low = ~(uint64_t)0};
        uint8_t *at[32] = {0};
        bool shared = !(insn->mode & 24);
        for (uint32_t l = 0; l < 32; l++) {
            struct place p = place_wmma(l, i, slots, rows, cols);
            uint64_t offset =
                by_row ? (uint64_t)p.row * stride[l] + p.col : (uint64_t)p.col * stride[l] + p.row;
            a.at[l] = base.at[l] + offset * bytes;
            enum vn_space space = shared ? VN_SHARED : VN_GLOBAL;
            if (!(mask >> l & 1))
                continue;
            at[l] = shared           ? vn_shared(w, a.at[l], bytes, store, l)
                    : insn->mode & 8 ? vn_global(w, a.at[l], bytes, store, l)
                                     : vn_generic(w, a.at[l], bytes, store, l, &space);
            if (space == VN_SHARED && !shared)
                a.at[l] -= VN_SHARED_WINDOW;
            a.low = a.at[l] < a.low ? a.at[l] : a.low;
            a.high = a.at[l] > a.high ? a.at[l] : a.high;
            if (insn->mode & 16 && space == VN_SHARED)
                shared = true;
        }
        const struct vn_launch_state *s = w->launch;
        bool check = shared ? w->block->shared_unwritten != 0 : s->checks & VN_CHECK_UNINITIALISED;
        if (check && store)
            vn_mark_written(w, &a, mask, bytes, shared);
        else if (check)
            vn_check_written(w, &a, mask, bytes, shared);
        if (shared && w->block->race)
            vn_race_shared(w, &a, mask, bytes, store ? VN_WRITE : VN_READ);
        if (!shared && s->checks & VN_CHECK_GLOBAL_RACES)
            vn_race_global(w, &a, mask, bytes, store ? VN_WRITE : VN_READ);
        if (s->count && !shared)
            vn_count_access(w, insn, &a, mask, bytes, store);
        for (uint32_t l = 0; l < 32; l++) {
            if (!at[l])
                continue;
            if (bits == 64) {
                uint64_t *r = vn_at(w, codes[i]);
                if (store)
                    memcpy(at[l], &r[l], 8);
                else
                    memcpy(&r[l], at[l], 8);
                continue;
            }
            uint32_t *r = vn_at(w, codes[i / run]), shift = bits * (i % run);
            uint32_t keep = bits == 32 ? UINT32_MAX : ((1u << bits) - 1) << shift, v = 0;
            if (store) {
                v = r[l] >> shift;
                memcpy(at[l], &v, bytes);
            } else {
                memcpy(&v, at[l], bytes);
                r[l] = (r[l] & ~keep) | (v << shift & keep);
            }
        }
    }
}

VN_HANDLER(wmma_load)
{
    if (converged(w, insn, &mask))
        wmma_access(w, insn, mask, false);
}

VN_HANDLER(wmma_store)
{
    if (converged(w, insn, &mask))
        wmma_access(w, insn, mask, true);
}
