/* Conversions of f16, of bf16, of bytes and of FP8 as gfx942 has it (no infinities, no negative
 * zero), exhaustively: from every short value, and from every f32 at which the result changes, and
 * its neighbours. The reference rounds in f64 and looks values up. */
#include <math.h>

#include "machine_test.h"

enum { MOST = 1 << 19 };

static const char *folder;
static float inputs[MOST];
static int input_count;

static float of_bits(uint32_t v)
{
    float f;
    memcpy(&f, &v, 4);
    return f;
}

static uint32_t bits_of(float f)
{
    uint32_t v;
    memcpy(&v, &f, 4);
    return v;
}

struct format {
    int exponent, mantissa, bias;
    bool finite; /* no infinities; 0x80 is the NaN */
};

static const struct format half = {5, 10, 15, false}, bfloat = {8, 7, 127, false},
                           fp8 = {4, 3, 8, true}, bf8 = {5, 2, 16, true};

static double value_of(uint32_t v, const struct format *f)
{
    uint32_t e = v >> f->mantissa & ((1u << f->exponent) - 1), m = v & ((1u << f->mantissa) - 1);
    bool negative = v >> (f->exponent + f->mantissa) & 1;
    if (f->finite && v == 0x80)
        return NAN;
    if (!f->finite && e == (1u << f->exponent) - 1)
        return m ? NAN : negative ? -INFINITY : INFINITY;
    double r = e ? ldexp(1.0 + ldexp(m, -f->mantissa), (int)e - f->bias)
                 : ldexp(m, 1 - f->bias - f->mantissa);
    return negative ? -r : r;
}

/* To nearest even, or toward zero: on a grid whose step is exact in f64. */
static uint32_t reference(float x, const struct format *f, bool toward_zero)
{
    uint32_t sign = (uint32_t) !!signbit(x) << (f->exponent + f->mantissa);
    uint32_t all = (1u << f->exponent) - 1,
             nan = f->finite ? 0x80 : sign | all << f->mantissa | 1u << (f->mantissa - 1);
    double a = fabs((double)x), step;
    int e;
    if (isnan(x) || (isinf(x) && f->finite))
        return nan;
    if (isinf(x))
        return sign | all << f->mantissa;
    frexp(a, &e);
    e = e - 1 < 1 - f->bias ? 1 - f->bias : e - 1;
    step = ldexp(1, e - f->mantissa);
    double r = (toward_zero ? floor(a / step) : nearbyint(a / step)) * step;
    uint32_t largest = f->finite ? 0x7f : (all << f->mantissa) - 1;
    if (r > value_of(largest, f))
        return toward_zero ? sign | largest : f->finite ? 0x80 : sign | all << f->mantissa;
    uint32_t low = 0, high = largest; /* values rise with the bits */
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (value_of(middle, f) < r)
            low = middle + 1;
        else
            high = middle;
    }
    return low || !f->finite ? sign | low : 0;
}

static void add(double x)
{
    uint32_t b = bits_of((float)x);
    for (int k = -1; k <= 1 && input_count < MOST; k++)
        inputs[input_count++] = of_bits(b + (uint32_t)k);
}

static void make_inputs(const struct format *f)
{
    uint32_t count = f == &half ? 0x7c00 : f == &bfloat ? 0x7f80 : 0x80;
    input_count = 0;
    for (uint32_t v = 0; v + 1 < count; v++) {
        double x = value_of(v, f), y = value_of(v + 1, f);
        add(x);
        add(-(x + y) / 2);
        add((x + y) / 2);
    }
    for (int e = 0; e < 256; e++)
        for (uint32_t m = 0; m < 4; m++)
            add((double)of_bits((uint32_t)e << 23 | m << 21 | (uint32_t)(e & 1) << 31));
    for (uint32_t k = 0; k < 8; k++)
        inputs[input_count++] = of_bits(0x7f800000 + k * 0x100001);
}

static void to_short(struct device *d, const char *kernel, const struct format *f, size_t bytes,
                     bool toward_zero)
{
    make_inputs(f);
    struct {
        uint64_t o, a;
        int n;
    } args = {device_alloc(d, (uint64_t)input_count * bytes),
              device_upload(d, inputs, (uint64_t)input_count * 4), input_count};
    device_run_clean(d, kernel, ((uint32_t)input_count + 255) / 256, 256, &args, sizeof args);
    for (int i = 0; i < input_count; i++) {
        uint32_t got = 0, want = reference(inputs[i], f, toward_zero);
        memcpy(&got, (uint8_t *)(uintptr_t)args.o + (size_t)i * bytes, bytes);
        bool nans = isnan(value_of(got, f)) && isnan(value_of(want, f));
        if (got != want && !nans)
            fail_msg("%s of %.9g (%08x): %x, not %x", kernel, (double)inputs[i], bits_of(inputs[i]),
                     got, want);
    }
}

static void from_short(struct device *d, const char *kernel, const struct format *f, size_t bytes)
{
    static uint8_t in[65536 * 4];
    uint32_t count = f->finite ? 256 : 65536;
    for (uint32_t i = 0; i < count; i++)
        memcpy(in + i * bytes, &i, bytes);
    struct {
        uint64_t o, a;
        int n;
    } args = {device_alloc(d, 4ull * count), device_upload(d, in, count * bytes), (int)count};
    device_run_clean(d, kernel, (count + 255) / 256, 256, &args, sizeof args);
    for (uint32_t i = 0; i < count; i++) {
        float got = ((const float *)(uintptr_t)args.o)[i];
        double want = value_of(i, f);
        if (isnan(got) != isnan(want) ||
            (!isnan(want) && ((double)got != want || !signbit(got) != !signbit(want))))
            fail_msg("%s of %x: %.9g, not %.9g", kernel, i, (double)got, want);
    }
}

static void test_half(void **state)
{
    struct device d = {.checks = VA_CHECK_DEFAULT};
    (void)state;
    device_load(&d, folder, "convert.co");
    from_short(&d, "f32_of_f16", &half, 2);
    to_short(&d, "f16_of_f32", &half, 2, false);
    to_short(&d, "half_toward_zero", &half, 4, true);
    device_close(&d);
}

static void test_bfloat(void **state)
{
    struct device d = {.checks = VA_CHECK_DEFAULT};
    (void)state;
    device_load(&d, folder, "convert.co");
    from_short(&d, "f32_of_bf16", &bfloat, 2);
    to_short(&d, "bf16_of_f32", &bfloat, 2, false);
    device_close(&d);
}

static void test_float8(void **state)
{
    struct device d = {.checks = VA_CHECK_DEFAULT};
    (void)state;
    device_load(&d, folder, "convert.co");
    from_short(&d, "f32_of_fp8", &fp8, 4);
    from_short(&d, "f32_of_bf8", &bf8, 4);
    from_short(&d, "f32_of_fp8_byte3", &fp8, 4);
    from_short(&d, "f32_of_bf8_byte1", &bf8, 4);
    from_short(&d, "f32_of_fp8_pair", &fp8, 4);
    from_short(&d, "f32_of_bf8_pair", &bf8, 4);
    to_short(&d, "fp8_of_f32", &fp8, 4, false);
    to_short(&d, "bf8_of_f32", &bf8, 4, false);
    to_short(&d, "fp8_of_f32_high", &fp8, 4, false);
    device_close(&d);
}

/* Random bits, as many as are cut off, are added below the last bit that stays. */
static uint32_t reference_random(float x, uint32_t seed, const struct format *f)
{
    double a = fabs((double)x);
    int e, cut = 23 - f->mantissa;
    if (isnan(x) || isinf(x))
        return 0x80;
    frexp(a, &e);
    e = e - 1 < 1 - f->bias ? 1 - f->bias : e - 1;
    double whole = floor(ldexp(a, 23 - e)), random = floor(ldexp(seed, cut - 32));
    double r = ldexp(floor(ldexp(whole + random, -cut)), e - f->mantissa);
    if (r > value_of(0x7f, f))
        return 0x80;
    return reference((float)(signbit(x) ? -r : r), f, true);
}

static void check_random(struct device *d, const char *kernel, const struct format *f, int byte)
{
    static const uint32_t some[] = {0, UINT32_MAX, 0x80000000, 0x7fffffff, 0x12345678, 0x00000fff};
    static uint32_t seeds[MOST];
    static float x[MOST];
    int n = 0;
    bool negative = strstr(kernel, "negative");
    make_inputs(f);
    for (int i = 0; i < input_count; i++)
        for (unsigned k = 0; k < sizeof some / sizeof some[0] && n < MOST; k++, n++) {
            x[n] = inputs[i];
            seeds[n] = some[k];
        }
    assert_true(n < MOST);
    struct {
        uint64_t o, a, seeds;
        int n;
    } args = {device_alloc(d, 4ull * (uint32_t)n), device_upload(d, x, 4ull * (uint32_t)n),
              device_upload(d, seeds, 4ull * (uint32_t)n), n};
    device_run_clean(d, kernel, ((uint32_t)n + 255) / 256, 256, &args, sizeof args);
    for (int i = 0; i < n; i++) {
        float in = negative ? -fabsf(x[i]) : x[i];
        uint32_t got = ((const uint32_t *)(uintptr_t)args.o)[i], mask = 255u << 8 * byte;
        uint32_t want = (0xa5a5a5a5 & ~mask) | reference_random(in, seeds[i], f) << 8 * byte;
        if (got != want)
            fail_msg("%s of %.9g (%08x) and %08x: %x, not %x", kernel, (double)in, bits_of(in),
                     seeds[i], got, want);
    }
}

/* With seeds that lie evenly, a number is rounded up as often as it lies above the lower
 * neighbour; what is a number of the format stays, whatever the seed. */
static void check_fair(struct device *d)
{
    enum { SEEDS = 1024, PARTS = 16 };
    static float x[SEEDS];
    static uint32_t seeds[SEEDS];
    uint64_t o = device_alloc(d, sizeof seeds), a = device_alloc(d, sizeof x);
    for (int k = 0; k < SEEDS; k++)
        seeds[k] = (uint32_t)k << 22;
    struct {
        uint64_t o, a, seeds;
        int n;
    } args = {o, a, device_upload(d, seeds, sizeof seeds), SEEDS};
    vc_mark(d->map, a, sizeof x);
    for (uint32_t code = 1; code < 0x7f; code += 5)
        for (int part = 0; part < PARTS; part += 3) {
            double low = value_of(code, &fp8), high = value_of(code + 1, &fp8);
            int up = 0;
            for (int k = 0; k < SEEDS; k++)
                x[k] = (float)(low + (high - low) * part / PARTS);
            memcpy((void *)(uintptr_t)a, x, sizeof x);
            device_run_clean(d, "fp8_random", SEEDS / 256, 256, &args, sizeof args);
            for (int k = 0; k < SEEDS; k++) {
                uint32_t got = ((const uint32_t *)(uintptr_t)o)[k] >> 16 & 255;
                assert_true(got == code || got == code + 1);
                up += got != code;
            }
            assert_int_equal(up, SEEDS * part / PARTS);
        }
}

static void test_random_float8(void **state)
{
    struct device d = {.checks = VA_CHECK_DEFAULT};
    (void)state;
    device_load(&d, folder, "convert.co");
    check_random(&d, "fp8_random", &fp8, 2);
    check_random(&d, "bf8_random", &bf8, 0);
    check_random(&d, "fp8_random_negative", &fp8, 3);
    check_fair(&d);
    device_close(&d);
}

static void check_bytes(struct device *d, const char *kernel, double (*rounded)(double))
{
    input_count = 0;
    for (int k = -40; k < 1100; k++)
        add(k / 4.0);
    for (uint32_t k = 0; k < 64; k++)
        inputs[input_count++] = of_bits(k << 26 | 0x123456);
    inputs[input_count++] = INFINITY;
    inputs[input_count++] = -INFINITY;
    inputs[input_count++] = NAN;
    struct {
        uint64_t o, a;
        int n;
    } args = {device_alloc(d, (uint64_t)input_count * 4),
              device_upload(d, inputs, (uint64_t)input_count * 4), input_count};
    device_run_clean(d, kernel, ((uint32_t)input_count + 255) / 256, 256, &args, sizeof args);
    for (int i = 0; i < input_count; i++) {
        double r = isnan(inputs[i]) ? 0 : fmin(fmax(rounded((double)inputs[i]), 0), 255);
        uint32_t got = ((const uint32_t *)(uintptr_t)args.o)[i], shift = 8 * ((uint32_t)i & 3);
        uint32_t want = (0x11223344 & ~(255u << shift)) | (uint32_t)r << shift;
        if (got != want)
            fail_msg("%s of %.9g: %x, not %x", kernel, (double)inputs[i], got, want);
    }
}

static void test_bytes(void **state)
{
    struct device d = {.checks = VA_CHECK_DEFAULT};
    (void)state;
    device_load(&d, folder, "convert.co");
    check_bytes(&d, "byte_nearest", nearbyint);
    check_bytes(&d, "byte_up", ceil);
    check_bytes(&d, "byte_down", floor);
    check_bytes(&d, "byte_toward_zero", trunc);
    check_bytes(&d, "byte_accumulated", nearbyint);
    device_close(&d);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_half), cmocka_unit_test(test_bfloat), cmocka_unit_test(test_float8),
        cmocka_unit_test(test_random_float8), cmocka_unit_test(test_bytes)};
    folder = argc > 1 ? argv[1] : ".";
    return cmocka_run_group_tests(tests, NULL, NULL);
}
