/*
 * bench_kernels.c: reading memory and multiplying as fast as this CPU can, to have limits that the
 * engine's own kernels are held against. Vectors by cpuid: AVX-512, AVX2 with FMA, else SSE2 (or
 * what the compiler makes of it on other architectures).
 *
 * Reading: one stream; one with prefetch ahead; four streams side by side; eight.
 * FMA: chains in registers alone; and the inner loop of a matrix product, operands from L1.
 */
#include <string.h>

#include "bench.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* An unaligned vector of `bytes` for loads, and one in a register. */
#define VECTORS(isa, bytes)                                                                        \
    typedef uint64_t isa##_word __attribute__((vector_size(bytes)));                               \
    typedef uint64_t isa##_load __attribute__((vector_size(bytes), aligned(1), may_alias));

/* `streams` equal parts of the memory are read side by side, a cache line of each at a time. The
 * loads are summed in registers of their own, so that nothing waits for anything. */
#define READ(isa, attributes, bytes, name, streams, ahead)                                         \
    attributes static uint64_t isa##_##name(const char *memory, uint64_t size)                     \
    {                                                                                              \
        isa##_word sum[(streams) * (64 / (bytes))] = {0};                                          \
        uint64_t part = size / ((streams)*64) * 64, digest = 0;                                    \
        for (uint64_t at = 0; at < part; at += 64) {                                               \
            _Pragma("GCC unroll 8") for (int s = 0; s < (streams); s++)                            \
            {                                                                                      \
                const char *line = memory + (uint64_t)s * part + at;                               \
                if (ahead)                                                                         \
                    __builtin_prefetch(line + (ahead), 0, 3);                                      \
                _Pragma("GCC unroll 4") for (int v = 0; v < 64 / (bytes); v++)                     \
                    sum[s * (64 / (bytes)) + v] ^= *(const isa##_load *)(line + v * (bytes));      \
            }                                                                                      \
        }                                                                                          \
        for (unsigned i = 1; i < sizeof(sum) / sizeof(sum[0]); i++)                                \
            sum[0] ^= sum[i];                                                                      \
        for (int i = 0; i < (bytes) / 8; i++)                                                      \
            digest ^= sum[0][i];                                                                   \
        return digest;                                                                             \
    }

#define READS(isa, attributes, bytes)                                                              \
    READ(isa, attributes, bytes, one, 1, 0)                                                        \
    READ(isa, attributes, bytes, ahead, 1, 2048)                                                   \
    READ(isa, attributes, bytes, four, 4, 0)                                                       \
    READ(isa, attributes, bytes, eight, 8, 0)

#define FMA_STEPS 512

/* `chains` independent sums, none of which waits for another. */
#define FMA_CHAINS(isa, attributes, chains, type, set, fma)                                        \
    attributes static float isa##_chains(const float *memory)                                      \
    {                                                                                              \
        type sum[chains], x = set(memory[0]), y = set(memory[1]);                                  \
        float out[16];                                                                             \
        _Pragma("GCC unroll 32") for (int i = 0; i < (chains); i++) sum[i] = set(memory[i]);       \
        for (int step = 0; step < FMA_STEPS; step++)                                               \
            _Pragma("GCC unroll 32") for (int i = 0; i < (chains); i++) sum[i] =                   \
                fma(x, y, sum[i]);                                                                 \
        for (int i = 1; i < (chains); i++)                                                         \
            sum[0] += sum[i];                                                                      \
        memcpy(out, &sum[0], sizeof(type));                                                        \
        return out[0];                                                                             \
    }

/* rows x columns sums; each step loads `columns` vectors and broadcasts `rows` values. */
#define FMA_TILE(isa, attributes, rows, columns, type, set, load, fma)                             \
    attributes static float isa##_tile(const float *memory)                                        \
    {                                                                                              \
        enum { LANES = sizeof(type) / 4, STEPS = 16 };                                             \
        type sum[rows][columns];                                                                   \
        float out[16];                                                                             \
        memset(sum, 0, sizeof(sum));                                                               \
        for (int again = 0; again < FMA_STEPS / STEPS; again++) {                                  \
            const float *w = memory, *x = memory + 1024;                                           \
            for (int step = 0; step < STEPS; step++, w += (columns)*LANES, x += (rows)) {          \
                type loaded[columns];                                                              \
                _Pragma("GCC unroll 4") for (int c = 0; c < (columns); c++) loaded[c] =            \
                    load(w + c * LANES);                                                           \
                _Pragma("GCC unroll 8") for (int r = 0; r < (rows); r++)                           \
                {                                                                                  \
                    type one = set(x[r]);                                                          \
                    _Pragma("GCC unroll 4") for (int c = 0; c < (columns); c++) sum[r][c] =        \
                        fma(one, loaded[c], sum[r][c]);                                            \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
        for (int i = 1; i < (rows) * (columns); i++)                                               \
            sum[0][0] += sum[i / (columns)][i % (columns)];                                        \
        memcpy(out, &sum[0][0], sizeof(type));                                                     \
        return out[0];                                                                             \
    }

#define TABLE(isa, text, chains, rows, columns, lanes)                                             \
    static const struct bench_kernels isa##_kernels = {                                            \
        text,                                                                                      \
        {{"one stream", isa##_one},                                                                \
         {"one stream, prefetched", isa##_ahead},                                                  \
         {"four streams", isa##_four},                                                             \
         {"eight streams", isa##_eight}},                                                          \
        {{"register chains", isa##_chains, 2.0 * FMA_STEPS * (chains) * (lanes)},                  \
         {"matrix tile", isa##_tile, 2.0 * FMA_STEPS * (rows) * (columns) * (lanes)}},             \
    };

#if defined(__x86_64__)
#define SSE2
#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f")))

#define SSE2_FMA(x, y, z) _mm_add_ps(_mm_mul_ps(x, y), z)
VECTORS(sse2, 16)
READS(sse2, SSE2, 16)
FMA_CHAINS(sse2, SSE2, 12, __m128, _mm_set1_ps, SSE2_FMA)
FMA_TILE(sse2, SSE2, 4, 3, __m128, _mm_set1_ps, _mm_loadu_ps, SSE2_FMA)
TABLE(sse2, "sse2", 12, 4, 3, 4)

VECTORS(avx2, 32)
READS(avx2, AVX2, 32)
FMA_CHAINS(avx2, AVX2, 12, __m256, _mm256_set1_ps, _mm256_fmadd_ps)
FMA_TILE(avx2, AVX2, 4, 3, __m256, _mm256_set1_ps, _mm256_loadu_ps, _mm256_fmadd_ps)
TABLE(avx2, "avx2", 12, 4, 3, 8)

VECTORS(avx512, 64)
READS(avx512, AVX512, 64)
FMA_CHAINS(avx512, AVX512, 24, __m512, _mm512_set1_ps, _mm512_fmadd_ps)
FMA_TILE(avx512, AVX512, 8, 3, __m512, _mm512_set1_ps, _mm512_loadu_ps, _mm512_fmadd_ps)
TABLE(avx512, "avx512", 24, 8, 3, 16)

const struct bench_kernels *bench_kernels(void)
{
    if (__builtin_cpu_supports("avx512f"))
        return &avx512_kernels;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &avx2_kernels;
    return &sse2_kernels;
}

#else
#define PLAIN
typedef float plain_float __attribute__((vector_size(16)));
static inline plain_float plain_set(float x)
{
    return (plain_float){x, x, x, x};
}
static inline plain_float plain_load(const float *p)
{
    plain_float v;
    memcpy(&v, p, sizeof(v));
    return v;
}
static inline plain_float plain_fma(plain_float x, plain_float y, plain_float z)
{
    for (int i = 0; i < 4; i++)
        z[i] = __builtin_fmaf(x[i], y[i], z[i]);
    return z;
}
VECTORS(plain, 16)
READS(plain, PLAIN, 16)
FMA_CHAINS(plain, PLAIN, 16, plain_float, plain_set, plain_fma)
FMA_TILE(plain, PLAIN, 4, 4, plain_float, plain_set, plain_load, plain_fma)
TABLE(plain, "plain C", 16, 4, 4, 4)

const struct bench_kernels *bench_kernels(void)
{
    return &plain_kernels;
}
#endif
