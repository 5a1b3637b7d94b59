/* One function for each vector operation: all 64 lanes, sources as they come, no modifiers. */
#include "lanes.h"

typedef uint32_t u32;
typedef int32_t i32;
typedef float f32;
typedef uint64_t u64;
typedef int64_t i64;
typedef double f64;
typedef uint16_t u16;
typedef int16_t i16;
typedef float f16;
typedef int none;

#define LOAD_u32(p) p[l]
#define LOAD_i32(p) (int32_t) p[l]
#define LOAD_f32(p) float_of(p[l])
#define LOAD_u16(p) (uint16_t) p[l]
#define LOAD_i16(p) (int16_t) p[l]
#define LOAD_f16(p) half_value(p[l] & 0xffff)
#define LOAD_u64(p) (p[l] | (uint64_t)p[l + VA_LANES] << 32)
#define LOAD_i64(p) (int64_t)(p[l] | (uint64_t)p[l + VA_LANES] << 32)
#define LOAD_f64(p) double_of(p[l] | (uint64_t)p[l + VA_LANES] << 32)
#define LOAD_none(p) 0

#define STORE_u32(v) D[l] = (uint32_t)(v)
#define STORE_i32(v) D[l] = (uint32_t)(v)
#define STORE_f32(v) D[l] = bits_of(v)
#define STORE_u16(v) D[l] = (uint16_t)(v)
#define STORE_i16(v) D[l] = (uint16_t)(v)
#define STORE_f16(v) D[l] = half_bits(v)
#define STORE_64(v)                                                                                \
    do {                                                                                           \
        uint64_t r = (v);                                                                          \
        D[l] = (uint32_t)r;                                                                        \
        D[l + VA_LANES] = (uint32_t)(r >> 32);                                                     \
    } while (0)
#define STORE_u64(v) STORE_64(v)
#define STORE_i64(v) STORE_64((uint64_t)(v))
#define STORE_f64(v) STORE_64(bits_of64(v))

#define LOW_u32 0
#define HIGH_u32 (int64_t) UINT32_MAX
#define LOW_i32 INT32_MIN
#define HIGH_i32 INT32_MAX
#define LOW_u16 0
#define HIGH_u16 65535
#define LOW_i16 -32768
#define HIGH_i16 32767
#define HELD(t, v) MAX(MIN(v, (int64_t)HIGH_##t), (int64_t)LOW_##t)

#define LANES(name, store, at, bt, ct, toward, held, result)                                       \
    static void name(uint32_t *D, const uint32_t *A, const uint32_t *B, const uint32_t *C,         \
                     const struct va_wave *w)                                                      \
    {                                                                                              \
        const unsigned direction = (toward);                                                       \
        const bool hold = (held);                                                                  \
        const bool ieee = w->mode & VA_MODE_IEEE, overflow = w->mode & VA_MODE_FP16_OVFL;          \
        (void)A, (void)B, (void)C, (void)ieee, (void)overflow, (void)direction, (void)hold;        \
        FOR_LANES                                                                                  \
        {                                                                                          \
            at a = LOAD_##at(A);                                                                   \
            bt b = LOAD_##bt(B);                                                                   \
            ct c = LOAD_##ct(C);                                                                   \
            (void)a, (void)b, (void)c;                                                             \
            store(result);                                                                         \
        }                                                                                          \
    }
#define FUNCTION(name, d, at, bt, ct, result)                                                      \
    LANES(name, STORE_##d, at, bt, ct, 0, 0, result) WIDE_##d(name, at, bt, ct, result)
/* Of an f16 result there is an f32 too, for whoever rounds it in another way. */
#define WIDE_f16(name, at, bt, ct, result)                                                         \
    LANES(name##_wide, STORE_f32, at, bt, ct, w->mode >> 2 & 3, w->mode & VA_MODE_FP16_OVFL, result)
#define WIDE_u32(...)
#define WIDE_i32(...)
#define WIDE_f32(...)
#define WIDE_u16(...)
#define WIDE_i16(...)
#define WIDE_u64(...)
#define WIDE_i64(...)
#define WIDE_f64(...)

#define V(encoding, name, flops, d, a, b, c, ...)                                                  \
    FUNCTION(encoding##_##name, d, a, b, c, (__VA_ARGS__))
#define K(encoding, name, flops, d, a, b, c, ...) V(encoding, name, flops, d, a, b, c, __VA_ARGS__)
#define S(encoding, name, d, a, b, c, ...)                                                         \
    FUNCTION(encoding##_##name, d, a, b, c, (__VA_ARGS__))                                         \
    FUNCTION(encoding##_##name##_held, d, a, b, c, HELD(d, (__VA_ARGS__)))
#define KS(encoding, name, d, a, b, c, ...) S(encoding, name, d, a, b, c, __VA_ARGS__)
#include "vector.def"
#undef V
#undef K
#undef S
#undef KS

#define KIND_none VA_K_NONE
#define KIND_u32 VA_K_B32
#define KIND_i32 VA_K_B32
#define KIND_f32 VA_K_F32
#define KIND_u16 VA_K_B16
#define KIND_i16 VA_K_B16
#define KIND_f16 VA_K_F16
#define KIND_u64 VA_K_B64
#define KIND_i64 VA_K_I64
#define KIND_f64 VA_K_F64

#define NAME_u32(name) NULL
#define NAME_i32(name) NULL
#define NAME_f32(name) NULL
#define NAME_u16(name) NULL
#define NAME_i16(name) NULL
#define NAME_f16(name) name##_wide
#define NAME_u64(name) NULL
#define NAME_i64(name) NULL
#define NAME_f64(name) NULL

#define ENTRY(encoding, name, held, flops, d, a, b, c, keeps)                                      \
    [VA_##encoding##_##name] = {encoding##_##name, held,     NAME_##d(encoding##_##name),          \
                                KIND_##d,          KIND_##a, KIND_##b,                             \
                                KIND_##c,          flops,    keeps},
#define V(encoding, name, flops, d, a, b, c, ...)                                                  \
    ENTRY(encoding, name, NULL, flops, d, a, b, c, false)
#define K(encoding, name, flops, d, a, b, c, ...)                                                  \
    ENTRY(encoding, name, NULL, flops, d, a, b, c, true)
#define S(encoding, name, d, a, b, c, ...)                                                         \
    ENTRY(encoding, name, encoding##_##name##_held, 0, d, a, b, c, false)
#define KS(encoding, name, d, a, b, c, ...)                                                        \
    ENTRY(encoding, name, encoding##_##name##_held, 0, d, a, b, c, true)
const struct va_vector_op VA_NAME(elements)[VA_OP_COUNT];
const struct va_vector_op VA_NAME(elements)[VA_OP_COUNT] = {
#include "vector.def"
};
