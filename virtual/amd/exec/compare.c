/* Comparisons: a bit a lane. */
#include "lanes.h"

#define LOAD_u32(p) p[l]
#define LOAD_i32(p) (int32_t) p[l]
#define LOAD_f32(p) float_of(p[l])
#define LOAD_u16(p) (uint16_t) p[l]
#define LOAD_i16(p) (int16_t) p[l]
#define LOAD_f16(p) half_value(p[l] & 0xffff)
#define LOAD_u64(p) (p[l] | (uint64_t)p[l + VA_LANES] << 32)
#define LOAD_i64(p) (int64_t)(p[l] | (uint64_t)p[l + VA_LANES] << 32)
#define LOAD_f64(p) double_of(p[l] | (uint64_t)p[l + VA_LANES] << 32)

#define COMPARE(name, type, t, condition)                                                          \
    static uint64_t name##_##t(const uint32_t *A, const uint32_t *B)                               \
    {                                                                                              \
        _Alignas(64) uint32_t r[VA_LANES];                                                         \
        FOR_LANES                                                                                  \
        {                                                                                          \
            type a = LOAD_##t(A), b = LOAD_##t(B);                                                 \
            (void)a, (void)b;                                                                      \
            r[l] = (condition) ? UINT32_MAX : 0;                                                   \
        }                                                                                          \
        return mask_of(r);                                                                         \
    }
#define FLOATS(t, type)                                                                            \
    COMPARE(lt, type, t, a < b)                                                                    \
    COMPARE(eq, type, t, a == b)                                                                   \
    COMPARE(le, type, t, a <= b)                                                                   \
    COMPARE(gt, type, t, a > b)                                                                    \
    COMPARE(lg, type, t, a<b || a> b)                                                              \
    COMPARE(ge, type, t, a >= b)                                                                   \
    COMPARE(o, type, t, a == a && b == b)                                                          \
    COMPARE(u, type, t, a != a || b != b)                                                          \
    COMPARE(nge, type, t, !(a >= b))                                                               \
    COMPARE(nlg, type, t, !(a < b || a > b))                                                       \
    COMPARE(ngt, type, t, !(a > b))                                                                \
    COMPARE(nle, type, t, !(a <= b))                                                               \
    COMPARE(neq, type, t, !(a == b))                                                               \
    COMPARE(nlt, type, t, !(a < b))
#define INTEGERS(t, type)                                                                          \
    COMPARE(lt, type, t, a < b)                                                                    \
    COMPARE(eq, type, t, a == b)                                                                   \
    COMPARE(le, type, t, a <= b)                                                                   \
    COMPARE(gt, type, t, a > b)                                                                    \
    COMPARE(ne, type, t, a != b)                                                                   \
    COMPARE(ge, type, t, a >= b)
FLOATS(f32, float)
FLOATS(f16, float)
FLOATS(f64, double)
INTEGERS(i16, int16_t)
INTEGERS(u16, uint16_t)
INTEGERS(i32, int32_t)
INTEGERS(u32, uint32_t)
INTEGERS(i64, int64_t)
INTEGERS(u64, uint64_t)

static uint64_t never(const uint32_t *A, const uint32_t *B)
{
    (void)A, (void)B;
    return 0;
}
static uint64_t always(const uint32_t *A, const uint32_t *B)
{
    (void)A, (void)B;
    return UINT64_MAX;
}

/* The class of a float of `total` bits with `mantissa` bits, as a bit of the mask. */
VA_INLINE uint32_t class_of(uint64_t v, unsigned total, unsigned mantissa)
{
    uint64_t m = v & ((1ull << mantissa) - 1);
    uint64_t top = (1ull << (total - 1 - mantissa)) - 1, e = v >> mantissa & top;
    bool negative = v >> (total - 1) & 1;
    if (e == top)
        return m ? (m >> (mantissa - 1) ? 2 : 1) : negative ? 4 : 512;
    if (e)
        return negative ? 8 : 256;
    return m ? (negative ? 16 : 128) : negative ? 32 : 64;
}
#define CLASS(t, load, total, mantissa)                                                            \
    static uint64_t class_##t(const uint32_t *A, const uint32_t *B)                                \
    {                                                                                              \
        _Alignas(64) uint32_t r[VA_LANES];                                                         \
        FOR_LANES r[l] = class_of(load(A), total, mantissa) & B[l];                                \
        return mask_of(r);                                                                         \
    }
CLASS(f32, LOAD_u32, 32, 23)
CLASS(f16, LOAD_u16, 16, 10)
CLASS(f64, LOAD_u64, 64, 52)

#define BOTH(condition, type, fn)                                                                  \
    [VA_VOPC_v_cmp_##condition##_##type] = fn, [VA_VOPC_v_cmpx_##condition##_##type] = fn,
#define ONE(condition, type) BOTH(condition, type, condition##_##type)
#define FLOAT_ROWS(type)                                                                           \
    BOTH(f, type, never)                                                                           \
    BOTH(tru, type, always)                                                                        \
    ONE(lt, type)                                                                                  \
    ONE(eq, type)                                                                                  \
    ONE(le, type)                                                                                  \
    ONE(gt, type)                                                                                  \
    ONE(lg, type)                                                                                  \
    ONE(ge, type)                                                                                  \
    ONE(o, type) ONE(u, type) ONE(nge, type) ONE(nlg, type) ONE(ngt, type) ONE(nle, type)          \
        ONE(neq, type) ONE(nlt, type) BOTH(class, type, class_##type)
#define INTEGER_ROWS(type)                                                                         \
    BOTH(f, type, never)                                                                           \
    BOTH(t, type, always)                                                                          \
    ONE(lt, type) ONE(eq, type) ONE(le, type) ONE(gt, type) ONE(ne, type) ONE(ge, type)
const va_compare_fn VA_NAME(compares)[VA_OP_COUNT];
const va_compare_fn VA_NAME(compares)[VA_OP_COUNT] = {
    FLOAT_ROWS(f32) FLOAT_ROWS(f16) FLOAT_ROWS(f64) INTEGER_ROWS(i16) INTEGER_ROWS(u16)
        INTEGER_ROWS(i32) INTEGER_ROWS(u32) INTEGER_ROWS(i64) INTEGER_ROWS(u64)};
