/* The kernels of basic.hip and matrix.hip, as clang compiled them at -O0 and
 * -O3 (kernels/), against what the host computes.
 *
 *   test_kernels DIR [NAME]
 *
 * No check may report anything: they are right. Each line of output is a
 * kernel. */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <moehal_virtual.h>

#include "hip_calls.h"

static hipModule_t basic, matrix;
static const char *only;
static unsigned failures, kernels;
static uint64_t seed;

static uint32_t next(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 16);
}

static float small(void) /* a multiple of 1/8 in [-4, 4): sums of few are exact */
{
    return (float)((int)(next() % 64) - 32) / 8;
}

static void differs(const char *kernel, long index, double have, double want)
{
    failures++;
    printf("  %s: element %ld is %.9g, not %.9g\n", kernel, index, have, want);
}

/* Within `bound`, relative to the larger of 1 and what is wanted; 0: the same.
 */
static bool near(const char *kernel, long index, double have, double want, double bound)
{
    double scale = fabs(want) > 1 ? fabs(want) : 1;
    if (have == want || (isnan(have) && isnan(want)) || fabs(have - want) <= bound * scale)
        return true;
    differs(kernel, index, have, want);
    return false;
}

/* ---- reductions and scans ---- */

static void reduce_lds(void)
{
    enum { N = 5000 };
    static float in[N];
    float out[4], want[4] = {0};
    int n = N;
    for (int i = 0; i < N; i++) {
        in[i] = small();
        want[i % 1024 / 256] += in[i];
    }
    void *din = on_device(in, sizeof in), *dout = on_device(NULL, sizeof out);
    RUN(basic, "reduce_lds", D1(4), D1(256), 0, &dout, &din, &n);
    take(out, dout, sizeof out);
    need(hipFree(din), "hipFree");
    for (int i = 0; i < 4; i++)
        near("reduce_lds", i, out[i], want[i], 0);
}

static void reduce_shuffle(void)
{
    float in[512], out[8], want[8] = {0};
    for (int i = 0; i < 512; i++)
        want[i / 64] += in[i] = small();
    void *din = on_device(in, sizeof in), *dout = on_device(NULL, sizeof out);
    RUN(basic, "reduce_shuffle", D1(2), D1(256), 0, &dout, &din);
    take(out, dout, sizeof out);
    need(hipFree(din), "hipFree");
    for (int i = 0; i < 8; i++)
        near("reduce_shuffle", i, out[i], want[i], 0);
}

static void reduce_dpp(void)
{
    int in[256], out[4], want[4] = {0};
    for (int i = 0; i < 256; i++)
        want[i / 64] += in[i] = (int)(next() % 10000);
    void *din = on_device(in, sizeof in), *dout = on_device(NULL, sizeof out);
    RUN(basic, "reduce_dpp", D1(1), D1(256), 0, &dout, &din);
    take(out, dout, sizeof out);
    need(hipFree(din), "hipFree");
    for (int i = 0; i < 4; i++)
        near("reduce_dpp", i, out[i], want[i], 0);
}

static void scan_block(void)
{
    int in[512], out[512], sum = 0;
    for (int i = 0; i < 512; i++)
        in[i] = (int)(next() % 1000) - 500;
    void *din = on_device(in, sizeof in), *dout = on_device(NULL, sizeof out);
    RUN(basic, "scan_block", D1(2), D1(256), 0, &dout, &din);
    take(out, dout, sizeof out);
    need(hipFree(din), "hipFree");
    for (int i = 0; i < 512; i++) {
        sum = (i % 256 ? sum : 0) + in[i];
        near("scan_block", i, out[i], sum, 0);
    }
}

/* ---- sort, top-k, histogram ---- */

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void sort_bitonic(void)
{
    uint32_t keys[1024], sorted[1024];
    for (int i = 0; i < 1024; i++)
        keys[i] = next();
    void *d = on_device(keys, sizeof keys);
    RUN(basic, "sort_bitonic", D1(2), D1(256), 0, &d);
    take(sorted, d, sizeof sorted);
    qsort(keys, 512, 4, by_value);
    qsort(keys + 512, 512, 4, by_value);
    for (int i = 0; i < 1024; i++)
        near("sort_bitonic", i, sorted[i], keys[i], 0);
}

static void top_k(void)
{
    enum { ROWS = 4, N = 200, K = 6 };
    float in[ROWS * N], value[ROWS * K];
    int index[ROWS * K], n = N, k = K;
    for (int i = 0; i < ROWS * N; i++)
        in[i] = small();
    void *din = on_device(in, sizeof in), *di = on_device(NULL, sizeof index);
    void *dv = on_device(NULL, sizeof value);
    RUN(basic, "top_k", D1(ROWS), D1(64), 0, &di, &dv, &din, &n, &k);
    take(index, di, sizeof index);
    take(value, dv, sizeof value);
    need(hipFree(din), "hipFree");
    for (int r = 0; r < ROWS; r++)
        for (int found = 0; found < K; found++) {
            int best = -1;
            for (int i = 0; i < N; i++)
                if (!isnan(in[r * N + i]) && (best < 0 || in[r * N + i] > in[r * N + best]))
                    best = i;
            near("top_k", (r * K + found), index[r * K + found], best, 0);
            near("top_k value", (r * K + found), value[r * K + found], in[r * N + best], 0);
            in[r * N + best] = NAN;
        }
}

static void histogram(void)
{
    enum { N = 10000 };
    static uint8_t in[N];
    uint32_t bins[64], want[64] = {0};
    int n = N;
    for (int i = 0; i < N; i++)
        want[(in[i] = (uint8_t)next()) & 63]++;
    void *din = on_device(in, sizeof in), *d = on_device(NULL, sizeof bins);
    RUN(basic, "histogram", D1(4), D1(256), 0, &d, &din, &n);
    take(bins, d, sizeof bins);
    need(hipFree(din), "hipFree");
    for (int i = 0; i < 64; i++)
        near("histogram", i, bins[i], want[i], 0);
}

/* ---- matrices and attention ---- */

static void gemm_valu(void)
{
    enum { N = 48 };
    static float a[N * N], b[N * N], c[N * N];
    int n = N;
    for (int i = 0; i < N * N; i++) {
        a[i] = small();
        b[i] = small();
    }
    void *da = on_device(a, sizeof a), *db = on_device(b, sizeof b),
         *dc = on_device(NULL, sizeof c);
    RUN(basic, "gemm_valu", ((dim3){3, 3, 1}), D1(256), 0, &dc, &da, &db, &n);
    take(c, dc, sizeof c);
    need(hipFree(da), "hipFree");
    need(hipFree(db), "hipFree");
    for (int i = 0; i < N * N; i++) {
        double sum = 0;
        for (int k = 0; k < N; k++)
            sum += a[i / N * N + k] * b[k * N + i % N];
        near("gemm_valu", i, c[i], sum, 0);
    }
}

static void attention(void)
{
    enum { HEADS = 4, T = 37 };
    float q[HEADS * 64], out[HEADS * 64];
    static float k[T * HEADS * 64], v[T * HEADS * 64];
    int context = T;
    for (int i = 0; i < HEADS * 64; i++)
        q[i] = small() / 8;
    for (int i = 0; i < T * HEADS * 64; i++) {
        k[i] = small() / 4;
        v[i] = small();
    }
    void *dq = on_device(q, sizeof q), *dk = on_device(k, sizeof k), *dv = on_device(v, sizeof v);
    void *d = on_device(NULL, sizeof out);
    RUN(basic, "attention", D1(HEADS), D1(64), 0, &d, &dq, &dk, &dv, &context);
    take(out, d, sizeof out);
    need(hipFree(dq), "hipFree");
    need(hipFree(dk), "hipFree");
    need(hipFree(dv), "hipFree");
    for (int h = 0; h < HEADS; h++) {
        double score[T], sum = 0;
        for (int t = 0; t < T; t++) {
            double dot = 0;
            for (int i = 0; i < 64; i++)
                dot += (double)q[h * 64 + i] * k[(t * HEADS + h) * 64 + i];
            sum += score[t] = exp(dot / 8);
        }
        for (int i = 0; i < 64; i++) {
            double want = 0;
            for (int t = 0; t < T; t++)
                want += score[t] / sum * v[(t * HEADS + h) * 64 + i];
            near("attention", (h * 64 + i), out[h * 64 + i], want, 2e-6);
        }
    }
}

/* ---- atomics ---- */

static void atomics(void)
{
    enum { N = 300 };
    uint32_t words[9] = {5, 1000, 3, ~0u, 0, 7, 1, 0, 0}, want[9];
    uint64_t wide = 1, want_wide = 1;
    float sum;
    double doubles;
    memcpy(want, words, sizeof want);
    for (uint32_t i = 0; i < N; i++) {
        want[0]++;
        want[1] = (int)(500 - i) < (int)want[1] ? 500 - i : want[1];
        want[2] = i * 7 % 1000 > want[2] ? i * 7 % 1000 : want[2];
        want[3] &= ~(1u << (i & 15));
        want[4] |= 1u << (i & 31);
        want[5] ^= i;
        want[6] += i;
        want_wide += (uint64_t)i << 20;
    }
    void *d = on_device(words, sizeof words), *dw = on_device(&wide, 8), *ds = on_device(NULL, 4);
    void *dd = on_device(NULL, 8);
    RUN(basic, "atomics", D1(3), D1(100), 0, &d, &dw, &ds, &dd);
    take(words, d, sizeof words);
    take(&wide, dw, 8);
    take(&sum, ds, 4);
    take(&doubles, dd, 8);
    for (int i = 0; i < 7; i++)
        near("atomics", i, words[i], want[i], 0);
    near("atomics exchange", 8, words[8], 1, 0); /* one lane found the zero */
    near("atomics 64", 0, (double)wide, (double)want_wide, 0);
    near("atomics f32", 0, sum, 0.5 * N, 0);
    near("atomics f64", 0, doubles, 0.25 * N, 0);
}

static void locked(void)
{
    int lock = 0, value = 0;
    unsigned want = 0;
    for (int i = 0; i < 4 * 6; i++)
        want = want * 3 + 1;
    void *dl = on_device(&lock, 4), *dv = on_device(&value, 4);
    RUN(basic, "locked", D1(6), D1(64), 0, &dl, &dv);
    take(&value, dv, 4);
    need(hipFree(dl), "hipFree");
    near("locked", 0, value, (int)want, 0);
}

/* ---- LDS ---- */

static void reverse_dynamic(void)
{
    int in[300], out[300];
    for (int i = 0; i < 300; i++)
        in[i] = (int)next();
    void *d = on_device(in, sizeof in);
    RUN(basic, "reverse_dynamic", D1(3), D1(100), 400, &d);
    take(out, d, sizeof out);
    for (int i = 0; i < 300; i++)
        near("reverse_dynamic", i, out[i], in[i - i % 100 + 99 - i % 100], 0);
}

static void swizzle(void)
{
    int in[64], out[64];
    for (int i = 0; i < 64; i++)
        in[i] = (int)(next() % 1000);
    void *din = on_device(in, sizeof in), *d = on_device(NULL, sizeof out);
    RUN(basic, "swizzle", D1(1), D1(64), 0, &d, &din);
    take(out, d, sizeof out);
    need(hipFree(din), "hipFree");
    for (int i = 0; i < 64; i++)
        near("swizzle", i, out[i], in[i ^ 1] + 1000 * in[i ^ 3], 0);
}

static void stage_direct(void)
{
    int in[64], out[64];
    for (int i = 0; i < 64; i++)
        in[i] = (int)(next() % 100000);
    void *din = on_device(in, sizeof in), *d = on_device(NULL, sizeof out);
    RUN(basic, "stage_direct", D1(1), D1(64), 0, &d, &din);
    take(out, d, sizeof out);
    need(hipFree(din), "hipFree");
    for (int i = 0; i < 64; i++)
        near("stage_direct", i, out[i], in[63 - i], 0);
}

/* ---- numbers ---- */

static uint32_t bit_reverse(uint32_t x)
{
    uint32_t r = 0;
    for (int i = 0; i < 32; i++)
        r |= (x >> i & 1) << (31 - i);
    return r;
}

static void integers(void)
{
    enum { N = 128 };
    static int64_t a[N], b[N], out[N * 10];
    for (int i = 0; i < N; i++) {
        a[i] = (int64_t)((uint64_t)next() << 32 | next()) >> (next() % 60);
        b[i] = (int64_t)((uint64_t)next() << 32 | next()) >> (next() % 60);
    }
    b[3] = 0;
    void *da = on_device(a, sizeof a), *db = on_device(b, sizeof b),
         *d = on_device(NULL, sizeof out);
    RUN(basic, "integers", D1(2), D1(64), 0, &d, &da, &db);
    take(out, d, sizeof out);
    need(hipFree(da), "hipFree");
    need(hipFree(db), "hipFree");
    for (int i = 0; i < N; i++) {
        int64_t x = a[i], y = b[i], q = y ? y : 1;
        int divisor = (int)q ? (int)q : 1;
        const int64_t want[10] = {
            (int64_t)((uint64_t)x * (uint64_t)y),
            x / q,
            x % q,
            (int64_t)((uint64_t)x >> (y & 63)),
            x >> (y & 63),
            __builtin_clzll((uint64_t)x | 1) * 100 + __builtin_popcountll((uint64_t)x),
            (int)x / divisor,
            (int64_t)((uint64_t)(uint32_t)x * (uint32_t)y >> 32),
            x < y ? x : y,
            (int64_t)bit_reverse((uint32_t)x) + (int64_t)__builtin_bswap32((uint32_t)y),
        };
        for (int k = 0; k < 10; k++)
            if (out[10 * i + k] != want[k])
                differs("integers", (10 * i + k), (double)out[10 * i + k], (double)want[k]);
    }
}

static float to_half_and_back(double x) /* of what a half can hold without denormals */
{
    int e;
    double m = frexp(x, &e);
    return (float)ldexp(nearbyint(ldexp(m, 11)), e - 11);
}

static void floats(void)
{
    enum { N = 128 };
    static float a[N], b[N], out[N * 10];
    for (int i = 0; i < N; i++) {
        a[i] = ldexpf((float)next() / 4294967296.0f - 0.5f, (int)(next() % 10));
        b[i] = ldexpf((float)next() / 4294967296.0f - 0.5f, (int)(next() % 10)) + 0.001f;
    }
    void *da = on_device(a, sizeof a), *db = on_device(b, sizeof b),
         *d = on_device(NULL, sizeof out);
    RUN(basic, "floats", D1(2), D1(64), 0, &d, &da, &db);
    take(out, d, sizeof out);
    need(hipFree(da), "hipFree");
    need(hipFree(db), "hipFree");
    for (int i = 0; i < N; i++) {
        float x = a[i], y = b[i];
        float hx = to_half_and_back(x), hy = to_half_and_back(y);
        const float want[10] = {x + y,
                                x * y,
                                x / y,
                                fmaf(x, y, 1),
                                sqrtf(fabsf(x)),
                                floorf(x) + truncf(y),
                                nearbyintf(x),
                                (float)(int)x + (float)(uint32_t)fabsf(y),
                                fminf(x, y) - fmaxf(x, y),
                                to_half_and_back((double)hx * hy)};
        for (int k = 0; k < 10; k++) /* HIP's division and root are to be right but for 1-2.5 ulp */
            near("floats", (10 * i + k), out[10 * i + k], want[k],
                 k == 2 || k == 4 ? 3e-7
                 : k == 9         ? 1e-3
                                  : 0);
    }
}

static void doubles(void)
{
    enum { N = 64 };
    static double a[N], b[N], out[N * 5];
    for (int i = 0; i < N; i++) {
        a[i] = ldexp((double)next() / 4294967296.0 - 0.5, (int)(next() % 30));
        b[i] = ldexp((double)next() / 4294967296.0 - 0.5, (int)(next() % 30)) + 0.001;
    }
    void *da = on_device(a, sizeof a), *db = on_device(b, sizeof b),
         *d = on_device(NULL, sizeof out);
    RUN(basic, "doubles", D1(1), D1(64), 0, &d, &da, &db);
    take(out, d, sizeof out);
    need(hipFree(da), "hipFree");
    need(hipFree(db), "hipFree");
    for (int i = 0; i < N; i++) {
        const double want[5] = {a[i] + b[i], a[i] / b[i], fma(a[i], b[i], 1), sqrt(fabs(a[i])),
                                (double)(float)a[i] + (double)(int64_t)b[i]};
        for (int k = 0; k < 5; k++)
            near("doubles", (5 * i + k), out[5 * i + k], want[k], k == 3 ? 5e-16 : 0);
    }
}

/* FNUZ: one bit of sign, no infinity, no negative zero; fp8 is 4 + 3 with bias
 * 8, bf8 5 + 2 with 16.
 */
static float fp8_value(uint8_t bits, int mantissa_bits)
{
    int exponent_bits = 7 - mantissa_bits, bias = 1 << (exponent_bits - 1);
    int e = bits >> mantissa_bits & ((1 << exponent_bits) - 1);
    int m = bits & ((1 << mantissa_bits) - 1);
    if (bits == 0x80)
        return NAN;
    float v = e ? ldexpf((float)((1 << mantissa_bits) + m), e - bias - mantissa_bits)
                : ldexpf((float)m, 1 - bias - mantissa_bits);
    return bits & 0x80 ? -v : v;
}

/* To the nearest of all values, ties to even bits; beyond the largest: it (they
 * saturate). */
static float fp8_nearest(float x, int mantissa_bits)
{
    float best = 0, error = INFINITY;
    int best_bits = 0;
    for (int bits = 0; bits < 128; bits++) {
        float v = fp8_value((uint8_t)bits, mantissa_bits), e = fabsf(fabsf(x) - v);
        if (e < error || (e == error && !(bits & 1) && (best_bits & 1))) {
            best = v;
            best_bits = bits;
            error = e;
        }
    }
    return x < 0 ? -best : best;
}

static void fp8(void)
{
    enum { N = 256 };
    float in[N], out[4 * N];
    for (int i = 0; i < N; i++)
        in[i] = ldexpf((float)next() / 4294967296.0f - 0.5f, (int)(next() % 16) - 6);
    void *din = on_device(in, sizeof in), *d = on_device(NULL, sizeof out);
    RUN(basic, "fp8", D1(4), D1(64), 0, &d, &din);
    take(out, d, sizeof out);
    need(hipFree(din), "hipFree");
    for (int i = 0; i < N; i++) {
        if (fabsf(in[i]) > 239) /* what lies beyond the largest is a matter of a mode */
            continue;
        near("fp8", (4 * i), out[4 * i], fp8_nearest(in[i], 3), 0);
        near("fp8", (4 * i + 1), out[4 * i + 1], fp8_nearest(in[i] * 0.5f, 3), 0);
        near("fp8", (4 * i + 2), out[4 * i + 2], fp8_nearest(in[i], 2), 0);
        near("fp8", (4 * i + 3), out[4 * i + 3], fp8_nearest(-in[i], 2), 0);
    }
}

/* ---- control flow, calls, scratch ---- */

static int fibonacci(int n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static void check_calls(const int *out, int count)
{
    for (int i = 0; i < count; i++) {
        int steps = 0;
        for (unsigned n = (unsigned)i + 1; n > 1; n = n & 1 ? 3 * n + 1 : n / 2)
            steps++;
        near("calls", i, out[i], steps + 1000 * fibonacci(i % 8), 0);
    }
}

static void calls(void)
{
    int out[128];
    void *d = on_device(NULL, sizeof out);
    RUN(basic, "calls", D1(2), D1(64), 0, &d);
    take(out, d, sizeof out);
    check_calls(out, 128);
}

/* A grid that is no multiple of its block: the lanes beyond do not run, or they
 * would write out of bounds. (clang's kernels take their blocks for whole:
 * their size_x() is 64 in the last one too.)
 */
static void partial_block(void)
{
    int out[100];
    hipFunction_t f;
    void *d = on_device(NULL, sizeof out), *params[] = {&d};
    need(hipModuleGetFunction(&f, basic, "calls"), "calls");
    need(ext_module_launch(f, 100, 1, 1, 64, 1, 1, 0, NULL, params, NULL, NULL, NULL, 0),
         "hipExtModuleLaunchKernel");
    take(out, d, sizeof out);
    check_calls(out, 100);
}

static int switched(int v)
{
    int r = 0;
    for (int i = 0; i < v % 7 + 3; i++) {
        int c = (v + i) % 6;
        if (c == 0)
            r += 3;
        else if (c == 1)
            r *= 2;
        else if (c == 2) {
            r -= v;
            continue;
        } else if (c == 3)
            r ^= 0x55;
        else if (c == 4) {
            if (r > 1000)
                return r;
            r += i;
        } else
            r = -r;
        if (r & 64)
            r++;
    }
    return r;
}

static void switches(void)
{
    int in[128], out[128];
    for (int i = 0; i < 128; i++)
        in[i] = (int)(next() % 500);
    void *din = on_device(in, sizeof in), *d = on_device(NULL, sizeof out);
    RUN(basic, "switches", D1(1), D1(128), 0, &d, &din);
    take(out, d, sizeof out);
    need(hipFree(din), "hipFree");
    for (int i = 0; i < 128; i++)
        near("switches", i, out[i], switched(in[i]), 0);
}

static void scratch(void)
{
    int in[256], out[256];
    for (int i = 0; i < 256; i++)
        in[i] = (int)(next() % 32);
    void *din = on_device(in, sizeof in), *d = on_device(NULL, sizeof out);
    RUN(basic, "scratch", D1(2), D1(128), 0, &d, &din);
    take(out, d, sizeof out);
    need(hipFree(din), "hipFree");
    for (int i = 0; i < 256; i++) {
        int local[32], sum = 0;
        for (int k = 0; k < 32; k++)
            local[k] = in[(i + k) % 256];
        for (int k = 0; k < 32; k++) {
            int a = local[(local[k] + k) & 31];
            local[k & 15] = (int)((unsigned)local[k & 15] + (unsigned)a);
        }
        for (int k = 0; k < 32; k++)
            sum = (int)((unsigned)sum * 31 + (unsigned)local[k]);
        near("scratch", i, out[i], sum, 0);
    }
}

/* ---- arguments, variables, the shape of the grid ---- */

static void arguments(void)
{
    struct {
        char a;
        double b;
        short c[3];
        int *d;
    } box = {7, 2.5, {1, 2, 3}, NULL};
    int pointed = 99;
    char x = -3;
    int64_t y = -123456789012;
    uint16_t z = 0x3e00; /* 1.5 */
    double out[7];
    const double want[7] = {7, 2.5, 321, 99, -3, -123456789012.0, 1.5};
    void *d = on_device(NULL, sizeof out);
    void *dp = on_device(&pointed, 4);
    box.d = dp;
    RUN(basic, "arguments", D1(1), D1(64), 0, &d, &box, &x, &y, &z);
    take(out, d, sizeof out);
    need(hipFree(dp), "hipFree");
    for (int i = 0; i < 7; i++)
        near("arguments", i, out[i], want[i], 0);
}

static void variables(void)
{
    hipDeviceptr_t at;
    size_t bytes;
    int out, start_value = 11, after, coefficients[4];
    void *d = on_device(NULL, 4);
    need(hipModuleGetGlobal(&at, &bytes, basic, "coefficients"), "coefficients");
    need(hipMemcpy(coefficients, at, sizeof coefficients, hipMemcpyDeviceToHost), "hipMemcpy");
    near("variables", 0, coefficients[3], 7, 0);
    need(hipModuleGetGlobal(&at, &bytes, basic, "variable"), "variable");
    near("variables size", 0, (double)bytes, 4, 0);
    need(hipMemcpy(at, &start_value, 4, hipMemcpyHostToDevice), "hipMemcpy");
    RUN(basic, "variables", D1(1), D1(8), 0, &d);
    take(&out, d, 4);
    need(hipMemcpy(&after, at, 4, hipMemcpyDeviceToHost), "hipMemcpy");
    near("variables", 1, out, 7 * 11, 0);
    near("variables", 2, after, 12, 0);
}

static void shape(void)
{
    enum { W = 24, H = 6, D = 4 };
    static uint32_t out[W * H * D];
    uint32_t w = W, h = H;
    void *d = on_device(NULL, sizeof out);
    RUN(basic, "shape", ((dim3){3, 2, 2}), ((dim3){8, 3, 2}), 0, &d, &w, &h);
    take(out, d, sizeof out);
    for (uint32_t z = 0; z < D; z++)
        for (uint32_t y = 0; y < H; y++)
            for (uint32_t x = 0; x < W; x++)
                near("shape", (z * H + y) * W + x, out[(z * H + y) * W + x],
                     x + 100 * y + 10000 * z + 8000000, 0);
}

static void copy4(void)
{
    enum { N = 1000 };
    static float in[4 * N], out[4 * N];
    int n = N;
    for (int i = 0; i < 4 * N; i++)
        in[i] = small();
    void *din = on_device(in, sizeof in), *d = on_device(NULL, sizeof out);
    RUN(basic, "copy4", D1(2), D1(128), 0, &d, &din, &n);
    take(out, d, sizeof out);
    need(hipFree(din), "hipFree");
    for (int i = 0; i < 4 * N; i++)
        near("copy4", i, out[i], in[i] * 2, 0);
}

/* ---- matrix instructions: N x N by tiles ---- */

enum { N = 64 };
typedef double (*element_fn)(const void *at, size_t index);

static double get_f32(const void *at, size_t i)
{
    return ((const float *)at)[i];
}
static double get_bf16(const void *at, size_t i)
{
    uint32_t bits = (uint32_t)((const uint16_t *)at)[i] << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
static double get_f16(const void *at, size_t i)
{
    uint16_t h = ((const uint16_t *)at)[i];
    double m = ldexp(1024 + (h & 1023), (h >> 10 & 31) - 25); /* none is denormal or zero here */
    return h & 0x8000 ? -m : m;
}
static double get_i8(const void *at, size_t i)
{
    return ((const int8_t *)at)[i];
}
static double get_fp8(const void *at, size_t i)
{
    return fp8_value(((const uint8_t *)at)[i], 3);
}
static double get_f64(const void *at, size_t i)
{
    return ((const double *)at)[i];
}

static void fill_matrix(const char *name, void *at, size_t bytes)
{
    for (size_t i = 0; i < N * N; i++) {
        uint32_t r = next();
        if (bytes == 8)
            ((double *)at)[i] = (double)small();
        else if (bytes == 4)
            ((float *)at)[i] = small();
        else if (!strcmp(name, "mfma_bf16"))
            ((uint16_t *)at)[i] = (uint16_t)(0x3f80 | (r & 0x8000) | (r & 0x7f)); /* 1 .. 2 */
        else if (bytes == 2)
            ((uint16_t *)at)[i] = (uint16_t)(0x3c00 | (r & 0x8000) | (r & 0x3ff));
        else
            ((uint8_t *)at)[i] = (uint8_t)(r & 0xff) == 0x80 ? 0 : (uint8_t)r;
    }
}

static void product(const char *name, size_t bytes, element_fn get, unsigned tile, double bound)
{
    static double a[N * N], b[N * N], c[N * N]; /* room for any type */
    int n = N;
    bool wide = bytes == 8, whole = !strcmp(name, "mfma_i8");
    fill_matrix(name, a, bytes);
    fill_matrix(name, b, bytes);
    size_t out_bytes = N * N * (wide ? 8 : 4);
    void *da = on_device(a, N * N * bytes), *db = on_device(b, N * N * bytes);
    void *dc = on_device(NULL, out_bytes);
    RUN(matrix, name, ((dim3){N / tile, N / tile, 1}), D1(64), 0, &dc, &da, &db, &n);
    take(c, dc, out_bytes);
    need(hipFree(da), "hipFree");
    need(hipFree(db), "hipFree");
    for (size_t i = 0; i < N * N; i++) {
        double sum = 0, scale = 0;
        for (size_t k = 0; k < N; k++) {
            double p = get(a, i / N * N + k) * get(b, k * N + i % N);
            sum += p;
            scale += fabs(p);
        }
        double have = wide    ? c[i]
                      : whole ? ((const int32_t *)(const void *)c)[i]
                              : ((const float *)(const void *)c)[i];
        if (!(fabs(have - sum) <= bound * scale))
            differs(name, (long)i, have, sum);
    }
}

static void mfma_f32(void)
{
    product("mfma_f32", 4, get_f32, 16, 0);
}
static void mfma_xf32(void)
{
    product("mfma_xf32", 4, get_f32, 16, 0); /* eighths have few bits */
}
static void mfma_bf16(void)
{
    product("mfma_bf16", 2, get_bf16, 16, 1e-6);
}
static void mfma_f16(void)
{
    product("mfma_f16", 2, get_f16, 32, 1e-6);
}
static void mfma_i8(void)
{
    product("mfma_i8", 1, get_i8, 32, 0);
}
static void mfma_fp8(void)
{
    product("mfma_fp8", 1, get_fp8, 16, 1e-6);
}
static void mfma_f64(void)
{
    product("mfma_f64", 8, get_f64, 16, 0);
}

static void mfma_4x4(void)
{
    float a[64], b[64], c[256];
    for (int i = 0; i < 64; i++) {
        a[i] = small();
        b[i] = small();
    }
    void *da = on_device(a, sizeof a), *db = on_device(b, sizeof b), *d = on_device(NULL, sizeof c);
    RUN(matrix, "mfma_4x4", D1(1), D1(64), 0, &d, &da, &db);
    take(c, d, sizeof c);
    need(hipFree(da), "hipFree");
    need(hipFree(db), "hipFree");
    for (int r = 0; r < 4; r++) /* block l / 4, row r, column l % 4 */
        for (int l = 0; l < 64; l++)
            near("mfma_4x4", (r * 64 + l), c[r * 64 + l], a[l / 4 * 4 + r] * b[l], 0);
}

static const struct {
    const char *name;
    void (*run)(void);
} tests[] = {
#define T(name)                                                                                    \
    {                                                                                              \
#name, name                                                                                \
    }
    T(reduce_lds), T(reduce_shuffle),  T(reduce_dpp),    T(scan_block), T(sort_bitonic),
    T(top_k),      T(histogram),       T(gemm_valu),     T(attention),  T(atomics),
    T(locked),     T(reverse_dynamic), T(partial_block), T(swizzle),    T(stage_direct),
    T(integers),   T(floats),          T(doubles),       T(fp8),        T(calls),
    T(switches),   T(scratch),         T(arguments),     T(variables),  T(shape),
    T(copy4),      T(mfma_f32),        T(mfma_xf32),     T(mfma_bf16),  T(mfma_f16),
    T(mfma_i8),    T(mfma_fp8),        T(mfma_f64),      T(mfma_4x4),
};

static void run_all(const char *folder, const char *form)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/basic-%s.co", folder, form);
    need(hipModuleLoad(&basic, path), path);
    snprintf(path, sizeof path, "%s/matrix-%s.co", folder, form);
    need(hipModuleLoad(&matrix, path), path);
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
        if (only && strcmp(only, tests[i].name))
            continue;
        unsigned before = failures;
        uint64_t reports = moehal_virtual_report_count();
        seed = 88172645463325252u + i;
        tests[i].run();
        kernels++;
        if (moehal_virtual_report_count() != reports) {
            printf("  %s: %llu reports\n", tests[i].name,
                   (unsigned long long)(moehal_virtual_report_count() - reports));
            failures++;
        }
        printf("%s %s %s\n", failures == before ? "ok" : "FAILED", tests[i].name, form);
        fflush(stdout);
    }
    need(hipModuleUnload(basic), "hipModuleUnload");
    need(hipModuleUnload(matrix), "hipModuleUnload");
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: test_kernels DIR [NAME]\n");
        return 2;
    }
    only = argc > 2 ? argv[2] : NULL;
    run_all(argv[1], "O3");
    run_all(argv[1], "O0");
    printf("%u kernels, %u differences\n", kernels, failures);
    return failures || !kernels;
}
