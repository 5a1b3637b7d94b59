/* Kernels written in CUDA C++ (kernels/), compiled by nvcc, against results computed here.
 *
 *   test_kernels DIR [all]   DIR holds the unpacked PTX; without "all" only what nvcc made for
 * sm_90
 *
 * Runs on any driver that is found as libcuda.so.1, hardware's too. */
#include <dlfcn.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda_calls.h"

#define LENGTH(array) (sizeof(array) / sizeof(array)[0])

static const char *variant; /* the PTX file that is loaded */
static CUmodule module;
static int failures, cases;

static void failed(const char *what, int line)
{
    printf("not ok: %s: %s (line %d)\n", variant, what, line);
    failures++;
}

#define REQUIRE(condition, what)                                                                   \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            failed(what, __LINE__);                                                                \
            return;                                                                                \
        }                                                                                          \
    } while (0)

static void die(const char *what, CUresult result)
{
    printf("Bail out! %s: %s: error %d\n", variant, what, (int)result);
    exit(1);
}

static void need(CUresult result, const char *what)
{
    if (result != CUDA_SUCCESS)
        die(what, result);
}

static uint64_t state;

static uint32_t draw(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 32);
}

static float draw_float(void)
{
    return (float)((int32_t)draw() / 2147483648.0);
}

static CUdeviceptr upload(const void *from, size_t bytes)
{
    CUdeviceptr p;
    need(cuMemAlloc_v2(&p, bytes), "cuMemAlloc");
    if (from)
        need(cuMemcpyHtoD_v2(p, from, bytes), "cuMemcpyHtoD");
    else
        need(cuMemsetD8_v2(p, 0, bytes), "cuMemset");
    return p;
}

static void download(void *to, CUdeviceptr from, size_t bytes)
{
    need(cuMemcpyDtoH_v2(to, from, bytes), "cuMemcpyDtoH");
    need(cuMemFree_v2(from), "cuMemFree");
}

static void launch(const char *name, int gx, int gy, int bx, int by, unsigned shared, void **params)
{
    CUfunction f;
    CUresult result = cuModuleGetFunction(&f, module, name);
    need(result, name);
    need(cuLaunchKernel(f, (unsigned)gx, (unsigned)gy, 1, (unsigned)bx, (unsigned)by, 1, shared,
                        NULL, params, NULL),
         name);
    need(cuCtxSynchronize(), name);
    cases++;
}

#define RUN(name, gx, gy, bx, by, shared, ...)                                                     \
    do {                                                                                           \
        void *params_[] = {__VA_ARGS__};                                                           \
        launch(name, gx, gy, bx, by, shared, params_);                                             \
    } while (0)

/* ---- basic.cu ---- */

static void vector_add(void)
{
    enum { N = 1000 };
    float a[N], b[N], c[N];
    int n = N;
    for (int i = 0; i < N; i++)
        a[i] = draw_float(), b[i] = draw_float();
    CUdeviceptr da = upload(a, sizeof a), db = upload(b, sizeof b), dc = upload(NULL, sizeof c);
    RUN("vector_add", 4, 1, 256, 1, 0, &da, &db, &dc, &n);
    download(c, dc, sizeof c);
    for (int i = 0; i < N; i++)
        REQUIRE(c[i] == a[i] + b[i], "vector_add");
    cuMemFree_v2(da);
    cuMemFree_v2(db);
}

static void reductions(void)
{
    enum { N = 5000 };
    static int in[N];
    float f[512], top[4];
    long long want = 0, have;
    int n = N;
    for (int i = 0; i < N; i++)
        want += in[i] = (int)draw();
    CUdeviceptr p = upload(in, sizeof in), out = upload(NULL, 8);
    RUN("reduce_sum", 3, 1, 256, 1, 0, &p, &n, &out);
    download(&have, out, 8);
    REQUIRE(have == want, "reduce_sum");
    cuMemFree_v2(p);
    for (int i = 0; i < 512; i++)
        f[i] = draw_float();
    p = upload(f, sizeof f);
    out = upload(NULL, sizeof top);
    RUN("reduce_max_tree", 4, 1, 128, 1, 512, &p, &out);
    download(top, out, sizeof top);
    cuMemFree_v2(p);
    for (int b = 0; b < 4; b++) {
        float most = -INFINITY;
        for (int i = 0; i < 128; i++)
            most = fmaxf(most, f[b * 128 + i]);
        REQUIRE(top[b] == most, "reduce_max_tree");
    }
}

static void scans(void)
{
    enum { N = 512 };
    int in[N], out[N], sum = 0;
    for (int i = 0; i < N; i++)
        in[i] = (int)(draw() % 1000) - 500;
    CUdeviceptr p = upload(in, sizeof in), q = upload(NULL, sizeof out);
    RUN("scan_block", 1, 1, N, 1, 0, &p, &q);
    download(out, q, sizeof out);
    cuMemFree_v2(p);
    for (int i = 0; i < N; i++)
        REQUIRE(out[i] == (sum += in[i]), "scan_block");
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void sorts(void)
{
    enum { N = 512 };
    uint32_t keys[N], out[N];
    for (int i = 0; i < N; i++)
        keys[i] = draw();
    CUdeviceptr p = upload(keys, sizeof keys);
    RUN("bitonic_sort", 2, 1, N / 2, 1, N * 2, &p);
    download(out, p, sizeof out);
    qsort(keys, N / 2, 4, by_value);
    qsort(keys + N / 2, N / 2, 4, by_value);
    REQUIRE(!memcmp(keys, out, sizeof out), "bitonic_sort");
}

static void histograms(void)
{
    enum { N = 3000 };
    unsigned char in[N];
    unsigned bins[256], want[256] = {0};
    int n = N;
    for (int i = 0; i < N; i++)
        want[in[i] = (unsigned char)(draw() & draw())]++;
    CUdeviceptr p = upload(in, N), q = upload(NULL, sizeof bins);
    RUN("histogram", 4, 1, 128, 1, 0, &p, &n, &q);
    download(bins, q, sizeof bins);
    cuMemFree_v2(p);
    REQUIRE(!memcmp(bins, want, sizeof bins), "histogram");
}

static void atomics(void)
{
    enum { N = 256 };
    int a[5] = {0};
    unsigned b[5] = {~0u, 0, 0, 0, 50};
    unsigned long long c[2] = {0, 0};
    float f = 0;
    double d = 0;
    CUdeviceptr da = upload(a, sizeof a), db = upload(b, sizeof b), dc = upload(c, sizeof c),
                df = upload(&f, 4), dd = upload(&d, 8);
    RUN("atomics", 4, 1, N / 4, 1, 0, &da, &db, &dc, &df, &dd);
    download(a, da, sizeof a);
    download(b, db, sizeof b);
    download(c, dc, sizeof c);
    download(&f, df, 4);
    download(&d, dd, 8);
    REQUIRE(a[0] == N * (N - 1) / 2 && a[1] == -a[0] && a[2] == 1 - N && a[3] == N - 1 &&
                a[4] == 77,
            "atomics on int");
    REQUIRE(b[0] == 0 && b[1] == 0x7fffffff && b[2] == 0 && b[3] == N % 100, "atomics on unsigned");
    unsigned v = 50; /* dec: to 99 from 0 and from above 99 */
    for (int i = 0; i < N; i++)
        v = v == 0 || v > 99 ? 99 : v - 1;
    REQUIRE(b[4] == v, "atomicDec");
    REQUIRE(c[0] == (unsigned long long)(N - 1) << 33 && c[1] == 3 * N, "atomics on 64 bits");
    REQUIRE(f == N * 0.5f && d == N * 0.25, "atomics on floating point");
}

static void locks(void)
{
    int lock = 0, counter = 0, rounds = 3, order[8], flags[8] = {0};
    CUdeviceptr l = upload(&lock, 4), c = upload(&counter, 4);
    RUN("spin_lock", 2, 1, 64, 1, 0, &l, &c, &rounds);
    download(&counter, c, 4);
    cuMemFree_v2(l);
    REQUIRE(counter == 2 * 64 * 3, "spin_lock");
    CUdeviceptr f = upload(flags, sizeof flags), o = upload(NULL, sizeof order);
    RUN("chained_blocks", 8, 1, 32, 1, 0, &f, &o);
    download(order, o, sizeof order);
    cuMemFree_v2(f);
    for (int i = 0; i < 8; i++)
        REQUIRE(order[i] == 2 * i + 1, "chained_blocks");
}

static void top_k(void)
{
    enum { N = 500, K = 6, ROWS = 2 };
    float rows[ROWS][N], values[ROWS][K];
    int indices[ROWS][K], n = N, k = K;
    for (int i = 0; i < ROWS * N; i++)
        rows[i / N][i % N] = (float)(draw() % 300); /* with ties */
    CUdeviceptr p = upload(rows, sizeof rows), v = upload(NULL, sizeof values),
                w = upload(NULL, sizeof indices);
    RUN("top_k", ROWS, 1, 128, 1, N * 4, &p, &n, &k, &v, &w);
    download(values, v, sizeof values);
    download(indices, w, sizeof indices);
    cuMemFree_v2(p);
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < K; j++) {
            int best = 0;
            for (int i = 1; i < N; i++)
                if (rows[r][i] > rows[r][best])
                    best = i;
            REQUIRE(indices[r][j] == best && values[r][j] == rows[r][best], "top_k");
            rows[r][best] = -INFINITY;
        }
}

static void constants(void)
{
    enum { N = 100 };
    float x[N], y[N];
    const float c[5] = {1, -0.5f, 0.25f, 2, -3};
    int n = N, counter;
    CUdeviceptr address;
    size_t bytes;
    for (int i = 0; i < N; i++)
        x[i] = (float)(i - 50) / 8; /* the sums are exact or nearly: fused or not */
    CUdeviceptr p = upload(x, sizeof x), q = upload(NULL, sizeof y);
    RUN("constants", 1, 1, 128, 1, 0, &p, &q, &n);
    download(y, q, sizeof y);
    cuMemFree_v2(p);
    for (int i = 0; i < N; i++) {
        double v = 0;
        for (int j = 0; j < 5; j++)
            v = v * x[i] + c[j];
        REQUIRE(fabs(y[i] - v) <= 1e-5 * (fabs(v) + 10), "constants");
    }
    need(cuModuleGetGlobal_v2(&address, &bytes, module, "device_counter"), "device_counter");
    need(cuMemcpyDtoH_v2(&counter, address, 4), "device_counter");
    REQUIRE(bytes == 4 && counter == 5 + N, "device_counter");
}

static int fibonacci(int n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static void calls(void)
{
    int in[8] = {3, 1, 4, 1, 5, 9, 2, 6}, out[64];
    CUdeviceptr p = upload(in, sizeof in), q = upload(NULL, sizeof out);
    RUN("calls", 1, 1, 64, 1, 0, &p, &q);
    download(out, q, sizeof out);
    cuMemFree_v2(p);
    for (int t = 0; t < 64; t++) {
        int v = fibonacci(t % 11) + (t & 1 ? t * 7 : t + 7) + in[in[t % 8] & 7] * t;
        switch (t % 6) {
        case 0:
            v += 100;
            break;
        case 1:
            v -= 3;
            break;
        case 2:
            v *= 5;
            break;
        case 3:
            v ^= 0x55;
            break;
        case 5:
            v = -v;
            break;
        }
        REQUIRE(out[t] == v, "calls");
    }
}

/* What a kernel prints goes to standard output; it is caught in a file. */
static void prints(void)
{
    int n = 3;
    char have[400] = "", want[400] = "";
    fflush(stdout);
    int saved = dup(1);
    FILE *caught = tmpfile();
    if (!caught || saved < 0 || dup2(fileno(caught), 1) < 0)
        die("tmpfile", CUDA_ERROR_OPERATING_SYSTEM);
    RUN("prints", 1, 1, 32, 1, 0, &n);
    fflush(stdout);
    dup2(saved, 1);
    close(saved);
    rewind(caught);
    have[fread(have, 1, sizeof have - 1, caught)] = '\0';
    fclose(caught);
    for (int t = 0; t < n; t++)
        sprintf(want + strlen(want), "thread %d of %s: %5.2f %llx %c%%\n", t, "block", t * 0.5,
                0x123456789abcull + (unsigned)t, 'a' + t);
    REQUIRE(!strcmp(have, want), "prints");
}

static void heap(void)
{
    int out[64];
    CUdeviceptr q = upload(NULL, sizeof out);
    RUN("heap", 1, 1, 64, 1, 0, &q);
    download(out, q, sizeof out);
    for (int t = 0; t < 64; t++)
        REQUIRE(out[t] == t * (t + 1) / 2, "heap");
}

static void doubles(void)
{
    enum { N = 200 };
    double x[N], y[N];
    int n = N;
    for (int i = 0; i < N; i++)
        x[i] = draw_float() * 100;
    CUdeviceptr p = upload(x, sizeof x), q = upload(NULL, sizeof y);
    RUN("doubles", 1, 1, 256, 1, 0, &p, &q, &n);
    download(y, q, sizeof y);
    cuMemFree_v2(p);
    for (int i = 0; i < N; i++) {
        double want = sqrt(x[i] * x[i] + 1) / (x[i] + 3) + fma(x[i], 2.0, -1.0);
        REQUIRE(fabs(y[i] - want) <= 1e-12 * (fabs(want) + 1), "doubles");
    }
}

static void basic(void)
{
    vector_add();
    reductions();
    scans();
    sorts();
    histograms();
    atomics();
    locks();
    top_k();
    constants();
    calls();
    prints();
    heap();
    doubles();
}

/* ---- matrix.cu ---- */

static uint16_t to_bf16(float v) /* of a value that fits */
{
    uint32_t bits;
    memcpy(&bits, &v, 4);
    return (uint16_t)(bits >> 16);
}

static uint16_t to_f16(int v) /* of a small integer */
{
    uint32_t bits;
    float f = (float)v;
    memcpy(&bits, &f, 4);
    if (!v)
        return 0;
    return (uint16_t)((bits >> 16 & 0x8000) | ((bits >> 23 & 0xff) - 112) << 10 |
                      (bits >> 13 & 0x3ff));
}

static void gemm_tiled(void)
{
    enum { M = 37, N = 41, K = 50 };
    float a[M * K], b[K * N], c[M * N];
    int m = M, n = N, k = K;
    for (int i = 0; i < M * K; i++)
        a[i] = (float)((int)(draw() % 9) - 4);
    for (int i = 0; i < K * N; i++)
        b[i] = (float)((int)(draw() % 9) - 4);
    CUdeviceptr da = upload(a, sizeof a), db = upload(b, sizeof b), dc = upload(NULL, sizeof c);
    RUN("gemm_tiled", (N + 15) / 16, (M + 15) / 16, 16, 16, 0, &da, &db, &dc, &m, &n, &k);
    download(c, dc, sizeof c);
    cuMemFree_v2(da);
    cuMemFree_v2(db);
    for (int i = 0; i < M * N; i++) {
        float sum = 0;
        for (int j = 0; j < K; j++)
            sum += a[i / N * K + j] * b[j * N + i % N];
        REQUIRE(c[i] == sum, "gemm_tiled");
    }
}

/* Small integers: every sum is exact in any order, so bits must agree. */
static void gemm_tensor(void)
{
    enum { M = 64, N = 64, K = 96 };
    static int a[M * K], b[N * K];
    static uint16_t ha[M * K], hb[N * K];
    static float c[M * N];
    int m = M, n = N, k = K;
    for (int bf16 = 0; bf16 < 2; bf16++) {
        for (int i = 0; i < M * K; i++) {
            a[i] = (int)(draw() % 17) - 8;
            b[i] = (int)(draw() % 17) - 8;
            ha[i] = bf16 ? to_bf16((float)a[i]) : to_f16(a[i]);
            hb[i] = bf16 ? to_bf16((float)b[i]) : to_f16(b[i]);
        }
        CUdeviceptr da = upload(ha, sizeof ha), db = upload(hb, sizeof hb),
                    dc = upload(NULL, sizeof c);
        if (bf16)
            RUN("gemm_mma", N / 64, M / 32, 128, 1, 0, &da, &db, &dc, &m, &n, &k);
        else
            RUN("gemm_wmma", N / 16, M / 16, 32, 1, 0, &da, &db, &dc, &n, &k);
        download(c, dc, sizeof c);
        cuMemFree_v2(da);
        cuMemFree_v2(db);
        for (int i = 0; i < M * N; i++) {
            int sum = 0;
            for (int j = 0; j < K; j++)
                sum += a[i / N * K + j] * b[i % N * K + j];
            REQUIRE(c[i] == (float)sum, bf16 ? "gemm_mma" : "gemm_wmma");
        }
    }
}

static void tile_s8(void)
{
    signed char a[16 * 32], b[8 * 32];
    int c[16 * 8];
    for (int i = 0; i < 512; i++)
        a[i] = (signed char)draw();
    for (int i = 0; i < 256; i++)
        b[i] = (signed char)draw();
    CUdeviceptr da = upload(a, sizeof a), db = upload(b, sizeof b), dc = upload(NULL, sizeof c);
    RUN("tile_s8", 1, 1, 32, 1, 0, &da, &db, &dc);
    download(c, dc, sizeof c);
    cuMemFree_v2(da);
    cuMemFree_v2(db);
    for (int i = 0; i < 128; i++) {
        int sum = 0;
        for (int j = 0; j < 32; j++)
            sum += a[i / 8 * 32 + j] * b[i % 8 * 32 + j];
        REQUIRE(c[i] == sum, "tile_s8");
    }
}

static void attention(void)
{
    enum { T = 24, D = 64 };
    static float q[T * D], k[T * D], v[T * D], out[T * D];
    int tokens = T;
    float scale = 0.125f;
    for (int i = 0; i < T * D; i++)
        q[i] = 2 * draw_float(), k[i] = 2 * draw_float(), v[i] = draw_float();
    CUdeviceptr dq = upload(q, sizeof q), dk = upload(k, sizeof k), dv = upload(v, sizeof v),
                d = upload(NULL, sizeof out);
    RUN("attention", T / 4, 1, 128, 1, 0, &dq, &dk, &dv, &d, &tokens, &scale);
    download(out, d, sizeof out);
    cuMemFree_v2(dq);
    cuMemFree_v2(dk);
    cuMemFree_v2(dv);
    for (int r = 0; r < T; r++) {
        double p[T], sum = 0, most = -INFINITY;
        for (int j = 0; j <= r; j++) {
            p[j] = 0;
            for (int i = 0; i < D; i++)
                p[j] += (double)q[r * D + i] * scale * k[j * D + i];
            most = fmax(most, p[j]);
        }
        for (int j = 0; j <= r; j++)
            sum += p[j] = exp(p[j] - most);
        for (int i = 0; i < D; i++) {
            double want = 0;
            for (int j = 0; j <= r; j++)
                want += p[j] / sum * v[j * D + i];
            REQUIRE(fabs(out[r * D + i] - want) < 1e-5, "attention");
        }
    }
}

/* x * y + (x + 0.5) of small multiples of 1/4: exact in f16. */
static void half_math(void)
{
    enum { N = 64 };
    uint16_t x[2 * N], y[2 * N], out[2 * N];
    int n = N, xi[2 * N], yi[2 * N];
    for (int i = 0; i < 2 * N; i++) {
        x[i] = to_f16(xi[i] = (int)(draw() % 31) - 15);
        y[i] = to_f16(yi[i] = (int)(draw() % 31) - 15);
    }
    CUdeviceptr dx = upload(x, sizeof x), dy = upload(y, sizeof y), d = upload(NULL, sizeof out);
    RUN("half_math", 1, 1, 64, 1, 0, &dx, &dy, &d, &n);
    download(out, d, sizeof out);
    cuMemFree_v2(dx);
    cuMemFree_v2(dy);
    for (int i = 0; i < 2 * N; i++) {
        /* 2 (x y + x) + 1 is an odd integer below 1024: half of it is exact. */
        int twice = 2 * (xi[i] * yi[i] + xi[i]) + 1;
        uint16_t want = to_f16(twice);
        want = (uint16_t)(want - (1 << 10)); /* halved */
        REQUIRE(out[i] == want, "half_math");
    }
}

static void matrix(void)
{
    gemm_tiled();
    gemm_tensor();
    tile_s8();
    attention();
    half_math();
}

/* ---- library.cu ---- */

static void groups(void)
{
    enum { N = 64 };
    int in[N], out[N], v[N];
    for (int i = 0; i < N; i++)
        in[i] = (int)(draw() % 100);
    CUdeviceptr p = upload(in, sizeof in), q = upload(NULL, sizeof out);
    RUN("groups", 1, 1, N, 1, 0, &p, &q);
    download(out, q, sizeof out);
    cuMemFree_v2(p);
    for (int w = 0; w < N; w += 32) {
        int here = 0, total = 0;
        for (int t = w; t < w + 32; t++) {
            v[t] = 0;
            for (int i = 0; i < 8; i++)
                v[t] += in[t / 8 * 8 + i];
            here += v[t] & 1;
        }
        for (int t = w, rank = 0; t < w + 32; t++) {
            if (v[t] & 1)
                v[t] = here * 1000 + rank++;
            total += v[t];
        }
        for (int t = w; t < w + 32; t++)
            REQUIRE(out[t] == v[t] + total, "groups");
    }
}

static void cub(void)
{
    int in[512], out[512], sum = 0, sums[2];
    uint32_t keys[512], sorted[512];
    for (int i = 0; i < 512; i++) {
        in[i] = (int)(draw() % 100) - 30;
        keys[i] = draw();
    }
    CUdeviceptr p = upload(in, sizeof in), q = upload(NULL, sizeof sums);
    RUN("cub_reduce", 2, 1, 128, 1, 0, &p, &q);
    download(sums, q, sizeof sums);
    for (int b = 0; b < 2; b++) {
        sum = 0;
        for (int i = 0; i < 128; i++)
            sum += in[b * 128 + i];
        REQUIRE(sums[b] == sum, "cub_reduce");
    }
    q = upload(NULL, sizeof out);
    RUN("cub_scan", 1, 1, 128, 1, 0, &p, &q);
    download(out, q, sizeof out);
    sum = 0;
    for (int i = 0; i < 512; sum += in[i++])
        REQUIRE(out[i] == sum, "cub_scan");
    q = upload(NULL, 512);
    RUN("cub_warp", 1, 1, 128, 1, 0, &p, &q);
    download(out, q, 512);
    cuMemFree_v2(p);
    for (int w = 0; w < 128; w += 32) {
        int all = 0, running = 0;
        for (int i = 0; i < 32; i++)
            all += in[w + i];
        for (int i = 0; i < 32; i++) {
            running += in[w + i];
            REQUIRE(out[w + i] == running * 1000 + all, "cub_warp");
        }
    }
    p = upload(keys, sizeof keys);
    q = upload(NULL, sizeof sorted);
    RUN("cub_sort", 1, 1, 128, 1, 0, &p, &q);
    download(sorted, q, sizeof sorted);
    cuMemFree_v2(p);
    qsort(keys, 512, 4, by_value);
    REQUIRE(!memcmp(keys, sorted, sizeof keys), "cub_sort");
}

static void library(void)
{
    groups();
    cub();
}

/* ---- the variants ---- */

static char *read_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    char *text = calloc(1, 2 << 20);
    if (!f || !text || !fread(text, 1, (2 << 20) - 1, f)) {
        printf("Bail out! %s cannot be read\n", path);
        exit(1);
    }
    fclose(f);
    return text;
}

static void run_variant(const char *dir, const char *name, const char *kind, int sm,
                        void (*tests)(void))
{
    char path[1000], log[800] = "", label[64];
    CUjit_option option[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {log, (void *)sizeof log};
    snprintf(path, sizeof path, "%s/%s-%s-sm_%d.ptx", dir, name, kind, sm);
    snprintf(label, sizeof label, "%s-%s-sm_%d", name, kind, sm);
    variant = label;
    state = 1;
    char *text = read_file(path);
    CUresult result = cuModuleLoadDataEx(&module, text, 2, option, values);
    free(text);
    if (result != CUDA_SUCCESS) {
        printf("not ok: %s does not load: error %d: %s\n", label, (int)result, log);
        failures++;
        return;
    }
    int before = failures;
    tests();
    need(cuModuleUnload(module), "cuModuleUnload");
    if (failures == before)
        printf("ok: %s\n", label);
}

/* A clean kernel must pass every check: a report here is a false alarm. */
static void no_reports(void)
{
    uint64_t (*count)(void);
    *(void **)&count = dlsym(RTLD_DEFAULT, "moehal_virtual_report_count");
    if (count && count()) {
        printf("not ok: %d reports of checks on kernels that are right\n", (int)count());
        failures++;
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*tests)(void);
    } files[] = {{"basic", basic}, {"matrix", matrix}, {"library", library}};
    static const int sms[] = {90, 89, 80};
    bool all = argc > 2 && !strcmp(argv[2], "all");
    CUcontext context;
    if (argc < 2)
        return 2;
    variant = "start";
    need(cuInit(0), "cuInit");
    need(cuCtxCreate_v2(&context, 0, 0), "cuCtxCreate");
    for (size_t i = 0; i < LENGTH(files); i++)
        for (size_t j = 0; j < (all ? LENGTH(sms) : 1); j++)
            for (int debug = 0; debug < 2; debug++)
                run_variant(argv[1], files[i].name, debug ? "G" : "O3", sms[j], files[i].tests);
    no_reports();
    need(cuCtxDestroy_v2(context), "cuCtxDestroy");
    no_reports();
    printf("%d launches checked, %d failures\n", cases, failures);
    return failures != 0;
}
