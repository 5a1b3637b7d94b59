/* Speed of the machine: wave instructions a second of one core, counters on; ratios and rates are
 * printed, none is asserted, but results are. usage: bench FOLDER */
#include <math.h>
#include <time.h>

#include "machine_test.h"

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* others may use the core too */
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static const char *folder;

static void measure(struct device *d, const char *name, uint32_t groups, const void *args,
                    size_t bytes)
{
    static const struct {
        const char *name;
        unsigned checks;
    } modes[] = {{"no checks", 0}, {"bounds", VA_CHECK_BOUNDS}, {"every check", VA_CHECK_DEFAULT}};
    for (int m = 0; m < 3; m++) {
        double best = INFINITY;
        d->checks = modes[m].checks;
        for (int k = 0; k < 3; k++) {
            double start = now();
            device_run_clean(d, name, groups, 256, args, bytes);
            double took = now() - start;
            best = took < best ? took : best;
        }
        const struct va_counters *c = &d->counters;
        printf("%-10s %-12s %9llu wave instructions in %6.1f ms: %5.1f M/s, %.2f GFLOP/s\n", name,
               modes[m].name, (unsigned long long)c->wave_instructions, best * 1e3,
               (double)c->wave_instructions / best * 1e-6,
               (double)(c->valu_flops + c->mfma_flops) / best * 1e-9);
    }
}

static void run_stream(struct device *d)
{
    enum { N = 1 << 20 };
    float *x = calloc(N, 4);
    struct {
        uint64_t y, x;
        float a;
        int n;
    } args = {device_upload(d, x, 4 * N), device_upload(d, x, 4 * N), 0.5f, N};
    free(x);
    measure(d, "stream", 16, &args, sizeof args);
}

static void run_gemm(struct device *d, const char *name, bool bf16, int n)
{
    size_t count = (size_t)n * (size_t)n;
    float *a = malloc(count * 4), *b = malloc(count * 4);
    uint16_t *ha = malloc(count * 2), *hb = malloc(count * 2);
    for (size_t i = 0; i < count; i++) { /* small integers: sums are exact */
        a[i] = (float)((int)(i * 7 % 13) - 6);
        b[i] = (float)((int)(i * 5 % 11) - 5);
        memcpy(&ha[i], (char *)&a[i] + 2, 2);
        memcpy(&hb[i], (char *)&b[i] + 2, 2);
    }
    struct {
        uint64_t c, a, b;
        int n;
    } args = {device_alloc(d, count * 4),
              bf16 ? device_upload(d, ha, count * 2) : device_upload(d, a, count * 4),
              bf16 ? device_upload(d, hb, count * 2) : device_upload(d, b, count * 4), n};
    measure(d, name, (uint32_t)(bf16 ? n / 64 * (n / 64) : n / 32 * (n / 32)), &args, sizeof args);
    const float *c = (const float *)(uintptr_t)args.c;
    for (int i = 0; i < n; i += 37)
        for (int j = 0; j < n; j++) {
            double want = 0;
            for (int k = 0; k < n; k++)
                want += (double)a[i * n + k] * (double)(bf16 ? b[j * n + k] : b[k * n + j]);
            if ((double)c[i * n + j] != want)
                fail_msg("%s: (%d, %d) %g, not %g", name, i, j, (double)c[i * n + j], want);
        }
    free(a), free(b), free(ha), free(hb);
}

static double dot(const float *a, const float *b)
{
    double sum = 0;
    for (int i = 0; i < 64; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

static void run_attention(struct device *d)
{
    enum {
        HEADS = 4,
        QUERIES = 16,
        CONTEXT = 512,
        Q = HEADS * QUERIES * 64,
        KV = HEADS * CONTEXT * 64
    };
    static float q[Q], k[KV], v[KV];
    for (int i = 0; i < KV; i++) {
        k[i] = (float)(i * 7 % 41 - 20) / 16;
        v[i] = (float)(i * 5 % 37 - 18) / 8;
        q[i % Q] = (float)(i * 3 % 29 - 14) / 8;
    }
    struct {
        uint64_t out, q, k, v;
        int queries, context;
    } args = {device_alloc(d, sizeof q),
              device_upload(d, q, sizeof q),
              device_upload(d, k, sizeof k),
              device_upload(d, v, sizeof v),
              QUERIES,
              CONTEXT};
    measure(d, "attention", HEADS, &args, sizeof args);
    const float *out = (const float *)(uintptr_t)args.out;
    for (int row = 0; row < HEADS * QUERIES; row++) {
        const float *keys = k + row / QUERIES * CONTEXT * 64,
                    *values = v + row / QUERIES * CONTEXT * 64;
        double want[64] = {0}, sum = 0;
        for (int t = 0; t < CONTEXT; t++) {
            double weight = exp(dot(q + row * 64, keys + t * 64) / 8);
            sum += weight;
            for (int c = 0; c < 64; c++)
                want[c] += weight * (double)values[t * 64 + c];
        }
        for (int c = 0; c < 64; c++)
            if (fabs((double)out[row * 64 + c] - want[c] / sum) > 1e-5)
                fail_msg("attention: (%d, %d) %g, not %g", row, c, (double)out[row * 64 + c],
                         want[c] / sum);
    }
}

static void test_speed(void **state)
{
    struct device d = {0};
    (void)state;
    device_load(&d, folder, "speed.co");
    run_stream(&d);
    run_gemm(&d, "gemm", false, 256);
    run_attention(&d);
    run_gemm(&d, "gemm_bf16", true, 512);
    device_close(&d);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_speed)};
    folder = argc > 1 ? argv[1] : ".";
    return cmocka_run_group_tests(tests, NULL, NULL);
}
