/* hwvectors: runs the instruction probes of probes.def on whatever libcuda.so.1 there is.
 *
 *   hwvectors --out DIR       writes vectors.bin and info.txt to DIR
 *   hwvectors --compare FILE  runs them and compares with such a file; exit status 1 on a
 * difference hwvectors --ptx DIR       only writes the probes' PTX
 *
 * --known FILE lists probes that are known to differ, a name and the reason on a line.
 * --driver PATH names the library. Self-contained: C, dlopen, no toolkit. The inputs are made from
 * the probe's name, so that a file holds outputs alone. */
#include <dlfcn.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct probe {
    const char *name;
    int version; /* of PTX: 80 is 8.0 */
    char compare;
    const char *inputs;
    int outputs, n;
    const char *body;
};

static const struct probe probes[] = {
#define x 'x'
#define a 'a'
#define m 'm'
#define P(name, version, compare, inputs, outputs, n, body)                                        \
    {#name, version, compare, inputs, outputs, n, body},
#include "probes.def"
#undef P
#undef x
#undef a
#undef m
};
enum { PROBES = sizeof probes / sizeof probes[0], BLOCK = 128 };

/* ---- inputs ---- */

static uint64_t mix(uint64_t z)
{
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint64_t name_seed(const char *name)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 0x100000001b3u;
    return h;
}

static uint32_t float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

static const uint32_t edges_f32[] = {
    0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007fffff, 0x807fffff, 0x00800000, 0x80800000,
    0x00800001, 0x3f800000, 0xbf800000, 0x3f7fffff, 0x3f800001, 0x40000000, 0x3f000000, 0xbf000000,
    0x3effffff, 0x3fc00000, 0x40200000, 0xc0200000, 0x4b000000, 0x4b000001, 0x4affffff, 0x4b7fffff,
    0x4b800000, 0x4effffff, 0x4f000000, 0xcf000000, 0xcf000001, 0x4f800000, 0x5f000000, 0xdf000000,
    0x5f800000, 0x7f7fffff, 0xff7fffff, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc00000, 0x7f800001,
    0x7fffffff, 0x7fbfffff, 0x477fe000, 0x477fefff, 0x477ff000, 0x47800000, 0x33000000, 0x33000001,
    0x387fc000, 0x38800000, 0x33800000, 0x43e00000, 0x43e80000, 0x43e7ffff, 0x47600000, 0x476fffff,
    0x47700000, 0x3b800000, 0x3a800000, 0x3a000000, 0x3a000001, 0x37000000, 0x37800000, 0x3f8f0000,
    0x3f808000, 0x3f818000, 0x3f801000, 0x3f803000, 0x7f7f8000, 0x7f7f7fff, 0x42fe0000, 0x42ff0000,
    0x43000000, 0x437f0000, 0x437f8000, 0xc3000000, 0xc3010000, 0x46fffe00, 0x47000000, 0xc7000000,
    0x477fff00, 0x42b17218, 0xc2ce8ed0, 0x3f317218, 0x40490fdb, 0x3fc90fdb, 0x7e800000, 0x01000000,
};
static const uint32_t edges_u32[] = {
    0,          1,          2,          31,         32,         33,         0x7f,       0x80,
    0xff,       0x100,      0x7fff,     0x8000,     0xffff,     0x10000,    0x7fffff,   0x800000,
    0xffffff,   0x1000000,  0x1000001,  0x1000003,  0x7fffffff, 0x80000000, 0x80000001, 0xfffffffe,
    0xffffffff, 0xffffff80, 0xffffff7f, 0xffff8000, 0xffff7fff, 0x55555555, 0xaaaaaaaa,
};
static const uint16_t edges_f16[] = {
    0x0000, 0x8000, 0x0001, 0x8001, 0x03ff, 0x0400, 0x3c00, 0xbc00, 0x3bff, 0x3c01, 0x7bff,
    0xfbff, 0x7c00, 0xfc00, 0x7e00, 0xfe00, 0x7c01, 0x7fff, 0x3555, 0x4248, 0x6400, 0x0200,
};
static const uint16_t edges_bf16[] = {
    0x0000, 0x8000, 0x0001, 0x8001, 0x007f, 0x0080, 0x3f80, 0xbf80, 0x3f7f, 0x3f81, 0x7f7f,
    0xff7f, 0x7f80, 0xff80, 0x7fc0, 0xffc0, 0x7f81, 0x7fff, 0x3eab, 0x4049, 0x4300, 0x0040,
};
static const uint64_t edges_f64[] = {
    0,
    0x8000000000000000,
    1,
    0x000fffffffffffff,
    0x0010000000000000,
    0x3ff0000000000000,
    0xbff0000000000000,
    0x3fe0000000000000,
    0x3ff8000000000000,
    0x4004000000000000,
    0x41dfffffffc00000,
    0x41e0000000000000,
    0xc1e0000000000000,
    0x43e0000000000000,
    0xc3e0000000000000,
    0x43f0000000000000,
    0x7fefffffffffffff,
    0x7ff0000000000000,
    0xfff0000000000000,
    0x7ff8000000000000,
    0x7ff0000000000001,
    0x47efffffe0000000,
    0x47effffff0000000,
    0x3690000000000000,
    0x3690000000000001,
    0x36a0000000000000,
    0x380fffffc0000000,
    0x3810000000000000,
    0x4330000000000001,
    0x3ff0000010000000,
    0x3ff0000030000000,
    0x40effc0000000000,
};

#define PICK(list, r) (list)[(r) % (sizeof(list) / sizeof(list)[0])]

static uint16_t small_int_half(int v, bool bf16)
{
    uint32_t f = float_bits((float)v);
    if (!v)
        return 0;
    if (bf16)
        return (uint16_t)(f >> 16);
    return (uint16_t)((f >> 16 & 0x8000) | ((f >> 23 & 0xff) - 127 + 15) << 10 | (f >> 13 & 0x3ff));
}

static uint16_t half_word(char kind, uint64_t r)
{
    uint16_t bits = (uint16_t)(r >> 20);
    switch (kind) {
    case 'h':
        return r & 1 ? PICK(edges_f16, r >> 8) : bits;
    case 'c':
        return r & 1 ? PICK(edges_bf16, r >> 8) : bits;
    case 'H': /* 2^-4 .. 2^4 */
        return (uint16_t)((bits & 0x83ff) | (11 + (r >> 40) % 8) << 10);
    case 'B':
        return (uint16_t)((bits & 0x807f) | (123 + (r >> 40) % 8) << 7);
    default: /* J, L: -8 .. 8 */
        return small_int_half((int)((r >> 20) % 17) - 8, kind == 'L');
    }
}

static uint32_t float_word(char kind, uint64_t r)
{
    uint32_t bits = (uint32_t)(r >> 24);
    switch (kind) {
    case 'f':
        if (r & 1)
            return PICK(edges_f32, r >> 8);
        return r & 2 ? bits : (bits & 0x807fffff) | (uint32_t)(107 + (r >> 8) % 40) << 23;
    case 'F': /* 2^-8 .. 2^8 */
        return (bits & 0x807fffff) | (uint32_t)(119 + (r >> 8) % 16) << 23;
    case 'g': /* an angle */
        if (!(r & 15))
            return PICK(edges_f32, r >> 8);
        return float_bits((float)((double)(int32_t)bits / 2147483648.0 * 6.3));
    default: /* K */
        return float_bits((float)((int)(bits % 17) - 8));
    }
}

static uint64_t double_word(char kind, uint64_t r)
{
    if (kind == 'D') {
        double v = (double)((int)(r % 2001) - 1000);
        uint64_t bits;
        memcpy(&bits, &v, 8);
        return bits;
    }
    if (r & 1)
        return PICK(edges_f64, r >> 8);
    uint64_t bits = mix(r);
    return r & 2 ? bits : (bits & 0x800fffffffffffff) | (1003 + (r >> 8) % 40) << 52;
}

static uint32_t input_word(const struct probe *p, uint64_t seed, int i, int k)
{
    char kind = p->inputs[k];
    uint64_t r = mix(seed + (uint64_t)i * 64 + (uint64_t)k);
    switch (kind) {
    case 'f':
        /* The first elements go through all edges in order. */
        if ((size_t)i < sizeof edges_f32 / 4 && k == 0)
            return edges_f32[i];
        return float_word(kind, r);
    case 'F':
    case 'g':
    case 'K':
        return float_word(kind, r);
    case 'h':
    case 'c':
    case 'H':
    case 'B':
    case 'J':
    case 'L':
        return half_word(kind, r) | (uint32_t)half_word(kind, mix(r)) << 16;
    case 's':
        return r & 7 ? (uint32_t)(r >> 8) % 40 : (uint32_t)(r >> 8);
    case 'n': /* divides anything */
        r = (r & 1 ? PICK(edges_u32, r >> 8) : r >> 8);
        return (uint32_t)r == 0 || (uint32_t)r == ~0u ? 3 : (uint32_t)r;
    case '8': /* four fp8 values of moderate size, never NaN or infinite in either format */
        return (uint32_t)(r >> 8) & 0xbfbfbfbf;
    case 'i':
        return (uint32_t)(i & 255) * 257;
    case 'd':
    case 'D': {
        int first = k; /* of the pair */
        while (first >= 2 && p->inputs[first - 1] == kind)
            first -= 2;
        int pair = k - ((k - (first < 0 ? 0 : first)) & 1);
        uint64_t v = double_word(kind, mix(seed + (uint64_t)i * 64 + (uint64_t)pair));
        return k == pair ? (uint32_t)v : (uint32_t)(v >> 32);
    }
    default: /* u */
        return r & 1 ? PICK(edges_u32, r >> 8) : (uint32_t)(r >> 8);
    }
}

static uint32_t *make_inputs(const struct probe *p)
{
    int words = (int)strlen(p->inputs);
    uint64_t seed = name_seed(p->name);
    uint32_t *in = malloc((size_t)p->n * (size_t)words * 4);
    for (int i = 0; in && i < p->n; i++)
        for (int k = 0; k < words; k++)
            in[i * words + k] = input_word(p, seed, i, k);
    return in;
}

/* ---- the kernel around a body ---- */

static char *make_ptx(const struct probe *p, int capability)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    int words = (int)strlen(p->inputs);
    if (!f)
        return NULL;
    fprintf(f,
            ".version %d.%d\n.target sm_%d\n.address_size 64\n\n"
            ".visible .entry probe(.param .u64 in, .param .u64 out, .param .u64 scratch)\n{\n"
            ".shared .align 16 .b8 smem[4096];\n"
            ".reg .b16 %%h<8>;\n.reg .b32 %%i<16>, %%o<8>, %%b<8>, %%t<4>;\n.reg .f32 %%f<16>;\n"
            ".reg .f64 %%d<8>;\n.reg .b64 %%l<8>, %%a<4>;\n.reg .pred %%p<4>;\n"
            "ld.param.u64 %%a0, [in];\nld.param.u64 %%a1, [out];\nld.param.u64 %%a2, [scratch];\n"
            "mov.u32 %%t0, %%ctaid.x;\nmov.u32 %%t1, %%ntid.x;\nmov.u32 %%t2, %%tid.x;\n"
            "mad.lo.u32 %%t3, %%t0, %%t1, %%t2;\n"
            "mad.wide.u32 %%a0, %%t3, %d, %%a0;\nmad.wide.u32 %%a1, %%t3, %d, %%a1;\n"
            "mad.wide.u32 %%l7, %%t3, 16, %%a2;\n",
            p->version / 10, p->version % 10, capability, words * 4, p->outputs * 4);
    for (int k = 0; k < words; k++)
        fprintf(f, "ld.global.b32 %%i%d, [%%a0+%d];\n", k, 4 * k);
    fprintf(f, "\n%s\n\n", p->body);
    for (int k = 0; k < p->outputs; k++)
        fprintf(f, "st.global.b32 [%%a1+%d], %%o%d;\n", 4 * k, k);
    fprintf(f, "ret;\n}\n");
    fclose(f);
    return text;
}

/* ---- the driver ---- */

static struct {
    int (*cuInit)(unsigned);
    int (*cuDriverGetVersion)(int *);
    int (*cuDeviceGet)(int *, int);
    int (*cuDeviceGetName)(char *, int, int);
    int (*cuDeviceGetAttribute)(int *, int, int);
    int (*cuCtxCreate_v2)(void **, unsigned, int);
    int (*cuCtxDestroy_v2)(void *);
    int (*cuModuleLoadDataEx)(void **, const void *, unsigned, int *, void **);
    int (*cuModuleUnload)(void *);
    int (*cuModuleGetFunction)(void **, void *, const char *);
    int (*cuMemAlloc_v2)(uint64_t *, size_t);
    int (*cuMemFree_v2)(uint64_t);
    int (*cuMemcpyHtoD_v2)(uint64_t, const void *, size_t);
    int (*cuMemcpyDtoH_v2)(void *, uint64_t, size_t);
    int (*cuMemsetD8_v2)(uint64_t, unsigned char, size_t);
    int (*cuLaunchKernel)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                          unsigned, void *, void **, void **);
    int (*cuCtxSynchronize)(void);
} cu;

static bool open_driver(const char *path)
{
    void *library = dlopen(path, RTLD_NOW);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        return false;
    }
#define GET(name)                                                                                  \
    if (!(*(void **)&cu.name = dlsym(library, #name))) {                                           \
        fprintf(stderr, "%s: no %s\n", path, #name);                                               \
        return false;                                                                              \
    }
    GET(cuInit)
    GET(cuDriverGetVersion)
    GET(cuDeviceGet)
    GET(cuDeviceGetName)
    GET(cuDeviceGetAttribute)
    GET(cuCtxCreate_v2)
    GET(cuCtxDestroy_v2)
    GET(cuModuleLoadDataEx)
    GET(cuModuleUnload)
    GET(cuModuleGetFunction)
    GET(cuMemAlloc_v2)
    GET(cuMemFree_v2)
    GET(cuMemcpyHtoD_v2)
    GET(cuMemcpyDtoH_v2)
    GET(cuMemsetD8_v2)
    GET(cuLaunchKernel)
    GET(cuCtxSynchronize)
    return true;
}

/* The outputs, or NULL and the driver's code and words. */
static uint32_t *run_probe(const struct probe *p, int capability, int *code, char *log,
                           size_t log_size)
{
    size_t in_bytes = (size_t)p->n * strlen(p->inputs) * 4;
    size_t out_bytes = (size_t)p->n * (size_t)p->outputs * 4, scratch_bytes = (size_t)p->n * 16;
    uint32_t *in = make_inputs(p), *out = malloc(out_bytes);
    char *text = make_ptx(p, capability);
    void *module = NULL, *kernel;
    uint64_t d_in = 0, d_out = 0, d_scratch = 0;
    int option[] = {5, 6}; /* the error log and its size */
    void *values[] = {log, (void *)log_size};
    log[0] = '\0';
    if (!in || !out || !text)
        goto fail;
    if ((*code = cu.cuModuleLoadDataEx(&module, text, 2, option, values)) ||
        (*code = cu.cuModuleGetFunction(&kernel, module, "probe")) ||
        (*code = cu.cuMemAlloc_v2(&d_in, in_bytes)) ||
        (*code = cu.cuMemAlloc_v2(&d_out, out_bytes)) ||
        (*code = cu.cuMemAlloc_v2(&d_scratch, scratch_bytes)) ||
        (*code = cu.cuMemcpyHtoD_v2(d_in, in, in_bytes)) ||
        (*code = cu.cuMemsetD8_v2(d_out, 0, out_bytes)) ||
        (*code = cu.cuMemsetD8_v2(d_scratch, 0, scratch_bytes)))
        goto fail;
    void *params[] = {&d_in, &d_out, &d_scratch};
    int block = p->n < BLOCK ? p->n : BLOCK;
    if ((*code = cu.cuLaunchKernel(kernel, (unsigned)(p->n / block), 1, 1, (unsigned)block, 1, 1, 0,
                                   NULL, params, NULL)) ||
        (*code = cu.cuCtxSynchronize()) || (*code = cu.cuMemcpyDtoH_v2(out, d_out, out_bytes)))
        goto fail;
    goto done;
fail:
    free(out);
    out = NULL;
done:
    if (d_in)
        cu.cuMemFree_v2(d_in);
    if (d_out)
        cu.cuMemFree_v2(d_out);
    if (d_scratch)
        cu.cuMemFree_v2(d_scratch);
    if (module)
        cu.cuModuleUnload(module);
    free(in);
    free(text);
    return out;
}

/* ---- comparing ---- */

static bool is_nan(uint32_t v)
{
    return (v & 0x7fffffff) > 0x7f800000;
}

static uint32_t distance_f32(uint32_t u, uint32_t v)
{
    if (is_nan(u) || is_nan(v))
        return is_nan(u) && is_nan(v) ? 0 : ~0u;
    int64_t s = u >> 31 ? -(int64_t)(u & 0x7fffffff) : (int64_t)u;
    int64_t t = v >> 31 ? -(int64_t)(v & 0x7fffffff) : (int64_t)v;
    return (uint32_t)(s > t ? s - t : t - s);
}

struct record {
    char name[64];
    int n, outputs, code;
    uint32_t *words;
};

static bool read_record(FILE *f, struct record *r)
{
    if (fscanf(f, "%63s %d %d %d", r->name, &r->n, &r->outputs, &r->code) != 4 ||
        fgetc(f) != '\n' || r->n < 0 || r->n > 1 << 16 || r->outputs < 0 || r->outputs > 16)
        return false;
    size_t words = r->code ? 0 : (size_t)r->n * (size_t)r->outputs;
    r->words = malloc(words * 4 + 1);
    return r->words && fread(r->words, 4, words, f) == words;
}

/* ---- what PTX allows: two results that are both right may be this far apart ---- */

static float as_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static bool starts(const char *name, const char *word)
{
    return !strncmp(name, word, strlen(word));
}

/* Two halves, each as sign and magnitude: at most two steps apart. */
static bool halves_close(uint32_t want, uint32_t have, bool bf16)
{
    for (int shift = 0; shift < 32; shift += 16) {
        int u = (int)(want >> shift & 0xffff), v = (int)(have >> shift & 0xffff);
        int infinite = bf16 ? 0x7f80 : 0x7c00;
        bool nan_u = (u & 0x7fff) > infinite, nan_v = (v & 0x7fff) > infinite;
        if (nan_u || nan_v) {
            if (nan_u != nan_v)
                return false;
            continue;
        }
        u = u & 0x8000 ? -(u & 0x7fff) : u;
        v = v & 0x8000 ? -(v & 0x7fff) : v;
        if (abs(u - v) > 2)
            return false;
    }
    return true;
}

static bool approximation_close(const struct probe *p, uint32_t input, uint32_t want, uint32_t have)
{
    double u = (double)as_float(want), v = (double)as_float(have), x = (double)as_float(input);
    if (strstr(p->name, "f16x2"))
        return halves_close(want, have, strstr(p->name, "bf16x2") != NULL);
    if (is_nan(want) || is_nan(have))
        return is_nan(want) && is_nan(have);
    if (starts(p->name, "sin") || starts(p->name, "cos")) {
        if (fabs(x) > 314)
            return fabs(v) <= 1; /* nothing is promised */
        return fabs(u - v) <= (fabs(x) <= 3.1416 ? 0x1p-19 : 0x1p-13);
    }
    if (starts(p->name, "lg2") && !isinf(u))
        return fabs(u - v) <= 0x1p-21 * fmax(1, fabs(u));
    return distance_f32(want, have) <= (starts(p->name, "tanh") ? 8192 : 4);
}

/* Sums of products: the order and the precision between are not specified. `scale` is the largest
 * magnitude among the results of the same matrix. */
static bool sum_close(uint32_t want, uint32_t have, double scale, bool half)
{
    if (half)
        return halves_close(want, have, false);
    double u = (double)as_float(want), v = (double)as_float(have);
    if (isnan(u) || isnan(v) || isinf(u) || isinf(v))
        return (isnan(u) && isnan(v)) || u == v;
    return fabs(u - v) <= 0x1p-19 * scale;
}

static double scale_of(const struct probe *p, const uint32_t *want, int element)
{
    double scale = 0;
    int first = element / 32 * 32 * p->outputs;
    for (int i = first; i < first + 32 * p->outputs; i++)
        if (isfinite(as_float(want[i])))
            scale = fmax(scale, fabs((double)as_float(want[i])));
    return scale;
}

static bool allowed(const struct probe *p, const uint32_t *in, const uint32_t *want,
                    const uint32_t *have, int i)
{
    int element = i / p->outputs;
    if (p->compare == 'a')
        return approximation_close(p, in[element * (int)strlen(p->inputs)], want[i], have[i]);
    return p->compare == 'm' && sum_close(want[i], have[i], scale_of(p, want, element),
                                          strstr(p->name, "_f16_f16") != NULL);
}

/* How a probe's words differ: how many, how many more than PTX allows, and the first of those. */
struct difference {
    int count, wrong, first;
};

static struct difference compare_words(const struct probe *p, const uint32_t *want,
                                       const uint32_t *have)
{
    struct difference d = {0, 0, -1};
    uint32_t *in = make_inputs(p);
    for (int i = 0; in && i < p->n * p->outputs; i++) {
        if (want[i] == have[i])
            continue;
        d.count++;
        if (allowed(p, in, want, have, i))
            continue;
        d.wrong++;
        if (d.first < 0)
            d.first = i;
    }
    free(in);
    return d;
}

static void show(const struct probe *p, const struct record *r, const uint32_t *have,
                 const struct difference *d)
{
    int i = d->first / p->outputs, words = (int)strlen(p->inputs);
    uint32_t *in = make_inputs(p);
    printf("  element %d, word %d: measured %08x, here %08x; inputs", i, d->first % p->outputs,
           r->words[d->first], have[d->first]);
    for (int k = 0; in && k < words && k < 8; k++)
        printf(" %08x", in[i * words + k]);
    printf("\n");
    free(in);
}

static const struct probe *find_probe(const char *name)
{
    for (int i = 0; i < PROBES; i++)
        if (!strcmp(probes[i].name, name))
            return &probes[i];
    return NULL;
}

static const char *known_file;

static bool is_known(const char *name)
{
    char line[400], word[64];
    FILE *f = known_file ? fopen(known_file, "r") : NULL;
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f))
        found = sscanf(line, "%63s", word) == 1 && !strcmp(word, name);
    if (f)
        fclose(f);
    return found;
}

/* What became of a probe: 0 as measured, 1 otherwise and that is known, 2 otherwise. */
static int judge(const struct probe *p, bool differs)
{
    bool known = is_known(p->name);
    if (known && !differs) {
        printf("%-32s FAILED: it agrees now; take it off the list of differences\n", p->name);
        return 2;
    }
    return differs ? known ? 1 : 2 : 0;
}

static int compare_file(const char *path, int capability)
{
    FILE *f = fopen(path, "rb");
    struct record r;
    int failed = 0, known = 0, compared = 0, close_ones = 0, not_run = 0;
    char log[600];
    if (!f) {
        fprintf(stderr, "%s: cannot be read\n", path);
        return 2;
    }
    while (read_record(f, &r)) {
        const struct probe *p = find_probe(r.name);
        int code = 0;
        if (!p || r.code || p->n != r.n || p->outputs != r.outputs) {
            printf("%-32s not compared: %s\n", r.name,
                   r.code ? "it did not run on the hardware" : "the probe is another one now");
            not_run++;
            free(r.words);
            continue;
        }
        uint32_t *have = run_probe(p, capability, &code, log, sizeof log);
        struct difference d = {0};
        compared++;
        if (have)
            d = compare_words(p, r.words, have);
        bool differs = !have || d.wrong;
        int verdict = judge(p, differs);
        failed += verdict == 2;
        known += verdict == 1;
        const char *word = verdict == 1 ? "known" : "FAILED";
        if (!have) {
            printf("%-32s %s: error %d here: %.300s\n", r.name, word, code, log);
        } else if (differs) {
            printf("%-32s %s: %d of %d words differ\n", r.name, word, d.wrong, p->n * p->outputs);
            show(p, &r, have, &d);
        } else if (d.count) {
            printf("%-32s %d of %d words differ, as PTX allows\n", r.name, d.count,
                   p->n * p->outputs);
            close_ones++;
        }
        free(have);
        free(r.words);
    }
    fclose(f);
    printf("%d probes compared, %d failed, %d differ as is known, %d differ where PTX allows it, "
           "%d not compared\n",
           compared, failed, known, close_ones, not_run);
    return failed ? 1 : compared ? 0 : 2;
}

/* ---- the command ---- */

static FILE *open_in(const char *dir, const char *name, const char *mode)
{
    char path[1000];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, mode);
    if (!f)
        fprintf(stderr, "%s: cannot be written\n", path);
    return f;
}

static int write_ptx(const char *dir)
{
    for (int i = 0; i < PROBES; i++) {
        char name[100];
        snprintf(name, sizeof name, "%s.ptx", probes[i].name);
        FILE *f = open_in(dir, name, "w");
        char *text = make_ptx(&probes[i], 90);
        if (!f || !text)
            return 2;
        fputs(text, f);
        fclose(f);
        free(text);
    }
    return 0;
}

static int write_vectors(const char *dir, int capability, const char *device, int version)
{
    FILE *f = open_in(dir, "vectors.bin", "wb"), *info = open_in(dir, "info.txt", "w");
    int failed = 0;
    char log[600];
    if (!f || !info)
        return 2;
    fprintf(info, "device %s\ncompute capability %d.%d\ndriver API version %d.%d\n", device,
            capability / 10, capability % 10, version / 1000, version % 1000 / 10);
    for (int i = 0; i < PROBES; i++) {
        const struct probe *p = &probes[i];
        int code = 0;
        uint32_t *out = run_probe(p, capability, &code, log, sizeof log);
        fprintf(f, "%s %d %d %d\n", p->name, p->n, p->outputs, out ? 0 : code ? code : -1);
        if (out)
            fwrite(out, 4, (size_t)p->n * (size_t)p->outputs, f);
        else
            fprintf(info, "%s: error %d: %s\n", p->name, code, log);
        failed += !out;
        free(out);
    }
    fprintf(info, "%d probes, %d did not run\n", PROBES, failed);
    printf("%d probes, %d did not run\n", PROBES, failed);
    return fclose(f) || fclose(info) ? 2 : 0;
}

int main(int argc, char **argv)
{
    const char *mode = NULL, *argument = NULL, *driver = "libcuda.so.1";
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--driver"))
            driver = argv[i + 1];
        else if (!strcmp(argv[i], "--known"))
            known_file = argv[i + 1];
        else
            mode = argv[i], argument = argv[i + 1];
    }
    if (!mode) {
        fprintf(stderr,
                "usage: hwvectors [--driver PATH] --out DIR | --compare FILE | --ptx DIR\n");
        return 2;
    }
    if (!strcmp(mode, "--ptx"))
        return write_ptx(argument);
    char name[200] = "";
    int device, major = 0, minor = 0, version = 0, code;
    void *context;
    if (!open_driver(driver))
        return 2;
    if ((code = cu.cuInit(0)) || (code = cu.cuDeviceGet(&device, 0)) ||
        (code = cu.cuCtxCreate_v2(&context, 0, device))) {
        fprintf(stderr, "%s: no device: error %d\n", driver, code);
        return 2;
    }
    cu.cuDriverGetVersion(&version);
    cu.cuDeviceGetName(name, sizeof name, device);
    cu.cuDeviceGetAttribute(&major, 75, device);
    cu.cuDeviceGetAttribute(&minor, 76, device);
    printf("%s, sm_%d%d, driver API %d\n", name, major, minor, version);
    int status = 2;
    if (!strcmp(mode, "--out"))
        status = write_vectors(argument, 10 * major + minor, name, version);
    else if (!strcmp(mode, "--compare"))
        status = compare_file(argument, 10 * major + minor);
    cu.cuCtxDestroy_v2(context);
    return status;
}
