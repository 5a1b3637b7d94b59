/* What clang makes of plain kernels at -O0 and at -O3 gives the host's results, with every check
 * on, in every order of waves, on one thread and on several. */
#include <math.h>

#include "machine_test.h"

enum { N = 5000, GROUPS = (N + 255) / 256 };

static const char *folder;
static float x[N], y[N], z[N];
static uint32_t a[N], b[N];

static void make_inputs(void)
{
    for (int i = 0; i < N; i++) {
        x[i] = sinf((float)i) * 100;
        y[i] = z[i] = cosf((float)i * 3) + 1.5f;
        a[i] = (uint32_t)i * 2654435761u;
        b[i] = ((uint32_t)i + 7) * 2246822519u >> (i & 31);
    }
    a[5] = b[6] = 0;
    a[7] = b[7] = UINT32_MAX;
    x[8] = 1e-39f, z[8] = 3; /* a denormal, and what becomes one */
    x[9] = 1e-20f, z[9] = 1e20f;
    x[10] = 3e38f, z[10] = 1e-3f;
    x[11] = INFINITY, x[12] = 1, z[12] = 0;
}

static void run_axpy(struct device *d)
{
    struct {
        uint64_t y, x;
        float a;
        int n;
    } args = {device_upload(d, y, sizeof y), device_upload(d, x, sizeof x), 2.5f, N};
    device_run_clean(d, "axpy", GROUPS, 256, &args, sizeof args);
    const float *got = (const float *)(uintptr_t)args.y;
    for (int i = 0; i < N; i++)
        assert_true(got[i] == fmaf(2.5f, x[i], y[i]));
    assert_int_equal(d->counters.valu_flops, 2 * N);
    assert_int_equal(d->counters.store_bytes, 4 * N);
    assert_int_equal(d->counters.load_bytes, 8 * N);
    assert_int_equal(d->counters.unique64, 2 * ((4 * N + 63) / 64));
}

static void run_reduce(struct device *d)
{
    uint64_t out = device_alloc(d, 16);
    struct {
        uint64_t out, x;
        int n;
    } args = {out, device_upload(d, z, sizeof z), N};
    device_run_clean(d, "reduce", 4, 256, &args, sizeof args);
    float s[4][256] = {{0}};
    for (int g = 0; g < 4; g++) {
        for (int i = g * 256; i < N; i += 1024)
            for (int t = 0; t < 256 && i + t < N; t++)
                s[g][t] += z[i + t];
        for (int k = 128; k; k >>= 1)
            for (int t = 0; t < k; t++)
                s[g][t] += s[g][t + k];
        assert_true(((const float *)(uintptr_t)out)[g] == s[g][0]);
    }
    assert_int_equal(d->counters.barriers, 4 * 9);
}

static void run_divide(struct device *d)
{
    struct {
        uint64_t q, dq, a, b;
        int n;
    } args = {device_alloc(d, 4 * N), device_alloc(d, 8 * N), device_upload(d, x, sizeof x),
              device_upload(d, z, sizeof z), N};
    device_run_clean(d, "divide", GROUPS, 256, &args, sizeof args);
    const float *q = (const float *)(uintptr_t)args.q;
    const double *dq = (const double *)(uintptr_t)args.dq;
    for (int i = 0; i < N; i++) {
        float want = x[i] / z[i];
        double wide = (double)x[i] / (double)z[i];
        if (q[i] != want || dq[i] != wide)
            fail_msg("%g / %g: %.9g and %.17g, not %.9g", (double)x[i], (double)z[i], (double)q[i],
                     dq[i], (double)want);
    }
}

static uint64_t integers(uint32_t xi, uint32_t yi)
{
    uint32_t reversed = 0;
    uint64_t w = ((uint64_t)xi << 32) | yi;
    uint64_t r = xi / yi + xi % yi + (uint64_t)((int64_t)(int32_t)xi / (int32_t)yi) +
                 (w / (xi | 1)) * 3 + w % (yi | 7) + (uint64_t)__builtin_popcount(xi) +
                 (uint64_t)__builtin_clz(yi) + (w >> (yi & 63)) +
                 (uint64_t)((int64_t)w >> (xi & 63));
    r ^= (uint64_t)xi * yi;
    r += (uint64_t)((int64_t)(int32_t)xi * (int32_t)yi);
    for (int k = 0; k < 32; k++)
        reversed |= (xi >> k & 1) << (31 - k);
    r ^= reversed;
    for (uint32_t k = 0; k < (yi & 15); k++)
        r = r * 6364136223846793005ull + k;
    return r;
}

static void run_integers(struct device *d)
{
    struct {
        uint64_t o, a, b;
        int n;
    } args = {device_alloc(d, 8 * N), device_upload(d, a, sizeof a), device_upload(d, b, sizeof b),
              N};
    device_run_clean(d, "integers", GROUPS, 256, &args, sizeof args);
    for (int i = 0; i < N; i++)
        assert_int_equal(((const uint64_t *)(uintptr_t)args.o)[i], integers(a[i], b[i] | 1));
}

static void run_scratch(struct device *d)
{
    struct {
        uint64_t o, a;
        int n;
    } args = {device_alloc(d, 4 * N), device_upload(d, a, sizeof a), N};
    device_run_clean(d, "scratch", GROUPS, 256, &args, sizeof args);
    for (int i = 0; i < N; i++)
        assert_int_equal(((const uint32_t *)(uintptr_t)args.o)[i],
                         a[i] * (a[i] & 15) + a[i] * (a[i] >> 4 & 15));
}

static void run_atomics(struct device *d)
{
    uint32_t o[20] = {0};
    uint64_t p[8] = {0};
    float f[4] = {0};
    struct {
        uint64_t o, p, f, a;
        int n;
    } args = {device_upload(d, o, sizeof o), device_upload(d, p, sizeof p),
              device_upload(d, f, sizeof f), device_upload(d, a, sizeof a), N};
    device_run_clean(d, "atomics", GROUPS, 256, &args, sizeof args);
    for (int i = 0; i < N; i++) {
        o[a[i] & 15]++;
        p[a[i] & 7] += a[i];
        o[16 + (a[i] & 3)] = a[i] > o[16 + (a[i] & 3)] ? a[i] : o[16 + (a[i] & 3)];
        f[a[i] & 3]++;
    }
    assert_memory_equal((void *)(uintptr_t)args.o, o, sizeof o);
    assert_memory_equal((void *)(uintptr_t)args.p, p, sizeof p);
    assert_memory_equal((void *)(uintptr_t)args.f, f, sizeof f);
}

static void run_all(struct device *d)
{
    run_axpy(d);
    run_reduce(d);
    run_divide(d);
    run_integers(d);
    run_scratch(d);
    run_atomics(d);
}

static void test_object(void **state)
{
    struct device d = {.checks = VA_CHECK_DEFAULT};
    device_load(&d, folder, *state);
    run_all(&d);
    d.schedule = VA_ADVERSARIAL;
    run_all(&d);
    d.schedule = VA_RANDOM;
    for (d.seed = 1; d.seed < 4; d.seed++)
        run_all(&d);
    d.pool = vg_pool_create(3);
    run_all(&d);
    device_close(&d);
}

/* ---- exchanges in LDS: one lane's do not touch another's, so their order does not matter ---- */

enum { LDS_WORDS = 256, LDS_LANES = 64 };

struct lds_model {
    uint32_t lds[LDS_WORDS], back[LDS_LANES][4];
    const uint32_t (*data)[2];
};

static uint32_t swap(uint32_t *at, uint32_t v)
{
    uint32_t old = *at;
    *at = v;
    return old;
}

static void model_wrap(struct lds_model *m)
{
    for (int l = 0; l < LDS_LANES; l++) {
        uint32_t old = m->lds[64 + l], most = m->data[l][0], add = m->data[l][1];
        m->back[l][0] = swap(&m->lds[64 + l], old >= most ? old - most : old + add);
    }
}

static void model_exchange2(struct lds_model *m)
{
    for (int l = 0; l < LDS_LANES; l++) {
        m->back[l][0] = swap(&m->lds[64 + l], m->data[l][0]);
        m->back[l][1] = swap(&m->lds[128 + l], m->data[l][1]);
    }
}

static void model_exchange2_far(struct lds_model *m)
{
    for (int l = 0; l < LDS_LANES; l++) {
        m->back[l][0] = swap(&m->lds[3 * 64 + l], m->data[l][0]);
        m->back[l][1] = swap(&m->lds[1 * 64 + l], m->data[l][1]);
    }
}

static void exchange_wide(struct lds_model *m, int lanes)
{
    for (int l = 0; l < lanes; l++)
        for (int k = 0; k < 4; k++)
            m->back[l][k] =
                swap(&m->lds[(k < 2 ? 0 : 128) + 2 * l + (k & 1)], m->data[l][k == 1 || k == 2]);
}

static void model_exchange2_wide(struct lds_model *m)
{
    exchange_wide(m, 32);
}

static void model_exchange2_wide_far(struct lds_model *m)
{
    exchange_wide(m, LDS_LANES);
}

static void model_exchange_marked(struct lds_model *m)
{
    for (int l = 0; l < LDS_LANES; l++)
        for (int k = 0; k < 2; k++) {
            uint32_t *at = &m->lds[128 + 2 * l + k], v = m->data[l][k];
            m->back[l][k] = *at;
            if (v & 0x80000000)
                *at = v & 0x7fffffff;
        }
}

static void model_counters(struct lds_model *m)
{
    uint32_t appended = m->lds[5], consumed = m->lds[200];
    for (int l = 0; l < LDS_LANES; l++) {
        m->back[l][0] = l % 3 ? 7 : appended;
        m->back[l][1] = l < 60 ? 7 : consumed;
        m->lds[5] += l % 3 == 0;
        m->lds[200] -= l >= 60;
    }
}

static void test_lds(void **state)
{
    static const struct {
        const char *name;
        void (*model)(struct lds_model *m);
    } kernels[] = {{"wrap", model_wrap},
                   {"exchange2", model_exchange2},
                   {"exchange2_far", model_exchange2_far},
                   {"exchange2_wide", model_exchange2_wide},
                   {"exchange2_wide_far", model_exchange2_wide_far},
                   {"exchange_marked", model_exchange_marked},
                   {"counters", model_counters}};
    struct device d = {.checks = VA_CHECK_DEFAULT};
    (void)state;
    device_load(&d, folder, "lds.co");
    for (size_t k = 0; k < sizeof kernels / sizeof kernels[0]; k++) {
        struct lds_model m = {.data = (const uint32_t(*)[2])b};
        struct {
            uint64_t out, in, data;
        } args = {device_alloc(&d, sizeof m.lds + sizeof m.back),
                  device_upload(&d, a, sizeof m.lds), device_upload(&d, b, 8 * LDS_LANES)};
        device_run_clean(&d, kernels[k].name, 1, LDS_LANES, &args, sizeof args);
        memcpy(m.lds, a, sizeof m.lds);
        kernels[k].model(&m);
        const uint32_t *got = (const uint32_t *)(uintptr_t)args.out;
        for (uint32_t i = 0; i < LDS_WORDS; i++)
            if (got[i] != m.lds[i])
                fail_msg("%s: word %u of LDS: %x, not %x", kernels[k].name, i, got[i], m.lds[i]);
        for (uint32_t i = 0; i < 4 * LDS_LANES; i++)
            if (got[LDS_WORDS + i] != m.back[i / 4][i % 4])
                fail_msg("%s: lane %u, result %u: %x, not %x", kernels[k].name, i / 4, i % 4,
                         got[LDS_WORDS + i], m.back[i / 4][i % 4]);
    }
    device_close(&d);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        {"-O0", test_object, NULL, NULL, "plain-O0.co"},
        {"-O3", test_object, NULL, NULL, "plain-O3.co"},
        cmocka_unit_test(test_lds),
    };
    folder = argc > 1 ? argv[1] : ".";
    make_inputs();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
