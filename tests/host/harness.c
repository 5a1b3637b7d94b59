#include "harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define MEMORY ((uint64_t)8 << 20)

uint32_t below(struct harness *h, uint32_t n)
{
    h->random = h->random * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(h->random ^ h->random >> 15) * n >> 32);
}

float uniform(struct harness *h)
{
    return (float)((int32_t)below(h, 1u << 24) - (1 << 23)) * 0x1p-23f;
}

struct harness *harness_open(const char *isa, uint32_t threads)
{
    struct harness *h = calloc(1, sizeof(*h));
    mh_device_params params = MH_INIT(mh_device_params);
    params.threads = threads;
    OK(mh_runtime_create(NULL, &h->runtime));
    setenv("MOEHAL_HOST_ISA", isa, 1);
    mh_status status = mh_device_open(h->runtime, "host", &params, &h->device);
    unsetenv("MOEHAL_HOST_ISA");
    if (status) {
        print_message("%s: not tried: %s\n", isa, mh_last_message());
        mh_runtime_release(h->runtime);
        free(h);
        return NULL;
    }
    OK(mh_stream_create(h->device, &h->stream));
    OK(mh_buffer_create(h->device, MEMORY, 0, &h->memory));
    h->base = mh_buffer_host(h->memory);
    h->before = malloc(MEMORY);
    h->hash = 0xcbf29ce484222325;
    h->random = 12345;
    harness_clear(h);
    return h;
}

void harness_clear(struct harness *h)
{
    for (int i = 0; i < h->weight_count; i++) {
        mh_weight_release(h->weights[i]);
        free(h->images[i]);
    }
    h->weight_count = 0;
    memset(h->base, 0xA5, h->used ? h->used : MEMORY);
    h->used = 0;
    h->fault = make(h, MH_U32, 0, 1, 1, 0, 0);
}

void harness_close(struct harness *h)
{
    harness_clear(h);
    mh_buffer_release(h->memory);
    mh_stream_release(h->stream);
    mh_device_release(h->device);
    mh_runtime_release(h->runtime);
    free(h->before);
    free(h);
}

/* ---- tensors ---- */

static unsigned char *element(const struct harness *h, const mh_tensor *t, int64_t i, int64_t j,
                              int64_t k)
{
    return h->base + t->offset + i * t->stride[0] + j * t->stride[1] + k * t->stride[2];
}

float *f32_at(const struct harness *h, const mh_tensor *t, int64_t i, int64_t j, int64_t k)
{
    return (float *)(void *)element(h, t, i, j, k);
}

int32_t *i32_at(const struct harness *h, const mh_tensor *t, int64_t i, int64_t j)
{
    return (int32_t *)(void *)element(h, t, i, j, 0);
}

mh_tensor make(struct harness *h, mh_dtype dtype, int64_t gap, uint32_t rank, int64_t a, int64_t b,
               int64_t c)
{
    const int64_t shape[] = {a, rank > 1 ? b : 1, rank > 2 ? c : 1};
    int64_t size = (int64_t)mh_dtype_size(dtype);
    mh_tensor t = mh_tensor_make(h->memory, h->used + 64, dtype, rank, shape);
    if (rank > 1)
        t.stride[0] += gap * size;
    h->used += 128 + (uint64_t)(a * (rank > 1 ? t.stride[0] : size));
    h->used = (h->used + 63) & ~UINT64_C(63);
    assert_true(h->used < MEMORY);
    for (int64_t i = 0; i < a; i++)
        for (int64_t j = 0; j < shape[1]; j++)
            for (int64_t k = 0; k < shape[2]; k++) {
                memset(element(h, &t, i, j, k), 0, (size_t)size);
                if (dtype == MH_F32)
                    *f32_at(h, &t, i, j, k) = uniform(h);
            }
    return t;
}

/* ---- weights ---- */

static double fp8_value(uint8_t byte)
{
    int exponent = byte >> 3 & 15, fraction = byte & 7;
    double magnitude = exponent ? ldexp(8 + fraction, exponent - 10) : ldexp(fraction, -9);
    if ((byte & 0x7F) == 0x7F)
        return NAN;
    return byte & 0x80 ? -magnitude : magnitude;
}

static float fill_element(struct harness *h, mh_format format, unsigned char *at, float scale)
{
    float value = uniform(h) / 4;
    binary16 half;
    uint32_t bits;
    switch (format) {
    case MH_FORMAT_F32:
        memcpy(at, &value, 4);
        return value;
    case MH_FORMAT_F16:
        half = (binary16)value;
        memcpy(at, &half, 2);
        return (float)half;
    case MH_FORMAT_BF16:
        memcpy(&bits, &value, 4);
        bits &= 0xFFFF0000;
        at[0] = (unsigned char)(bits >> 16), at[1] = (unsigned char)(bits >> 24);
        memcpy(&value, &bits, 4);
        return value;
    default:
        *at = (unsigned char)below(h, 256);
        if ((*at & 0x7F) == 0x7F)
            *at ^= 1;
        return (float)(fp8_value(*at) * (double)scale); /* exact in f64: rounded once */
    }
}

mh_weight *make_weight(struct harness *h, mh_format format, int64_t experts, int64_t out,
                       int64_t in, float **values)
{
    int64_t size = format == MH_FORMAT_F32 ? 4 : format == MH_FORMAT_FP8 ? 1 : 2;
    int64_t down = (out + 127) / 128, across = (in + 127) / 128, count = experts * out * in;
    size_t data_bytes = (size_t)(count * size), scale_count = (size_t)(experts * down * across);
    /* One allocation: values, then an odd byte, data, an odd number of bytes, scales. */
    char *image = malloc((size_t)count * 4 + data_bytes + scale_count * 4 + 16);
    *values = (float *)(void *)image;
    unsigned char *data = (unsigned char *)image + count * 4 + 1;
    unsigned char *scales = data + data_bytes + 1 + data_bytes % 2;
    for (size_t i = 0; i < scale_count; i++) {
        float scale = 0.001f + (float)below(h, 1000) / 1e6f;
        memcpy(scales + 4 * i, &scale, 4);
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t e = i / (out * in), row = i / in % out, column = i % in;
        float scale;
        memcpy(&scale, scales + 4 * ((e * down + row / 128) * across + column / 128), 4);
        (*values)[i] = fill_element(h, format, data + i * size, scale);
    }
    mh_weight_params p = MH_INIT(mh_weight_params);
    p.format = format, p.experts = experts, p.out = out, p.in = in;
    mh_weight_piece piece = MH_INIT(mh_weight_piece);
    piece.flags = MH_PIECE_STAYS;
    piece.expert_count = experts, piece.row_count = out;
    piece.plane[0] = data, piece.plane[1] = scales;
    mh_weight *weight;
    OK(mh_weight_create(h->device, &p, &weight));
    OK(mh_weight_write(weight, &piece));
    OK(mh_weight_seal(weight));
    h->weights[h->weight_count] = weight;
    h->images[h->weight_count++] = image;
    return weight;
}

/* ---- running ---- */

static void take_output(struct harness *h, const mh_tensor *t)
{
    int64_t shape[3] = {1, 1, 1};
    size_t size = (size_t)mh_dtype_size(t->dtype);
    for (uint32_t i = 0; i < t->rank && i < 3; i++)
        shape[i] = t->shape[i];
    for (int64_t i = 0; i < shape[0]; i++)
        for (int64_t j = 0; j < shape[1]; j++)
            for (int64_t k = 0; k < shape[2]; k++) {
                unsigned char *at = element(h, t, i, j, k);
                float value = t->dtype == MH_F32 ? *f32_at(h, t, i, j, k) : 0;
                /* Any NaN is one NaN (numerics rule 12). */
                for (size_t b = 0; b < size; b++)
                    h->hash = (h->hash ^ (value != value ? 0xFF : at[b])) * 0x100000001b3;
                memcpy(h->before + (at - h->base), at, size); /* may have changed */
            }
}

/* Under hostile_mode the caller flushes denormals and rounds toward zero, as embedders may: the
 * bits must be the same, and the caller must find its mode again. */
static void encode_and_wait(struct harness *h, const mh_op *op)
{
#if defined(__SSE2__)
    uint32_t saved = _mm_getcsr(), wanted = h->hostile_mode ? 0x1F80 | 0x8040 | 0x6000 : saved;
    _mm_setcsr(wanted);
#endif
    mh_status status = mh_encode(mh_stream_encoder(h->stream), op);
    if (!status)
        status = mh_stream_wait(h->stream, MH_FOREVER);
#if defined(__SSE2__)
    uint32_t after = _mm_getcsr();
    _mm_setcsr(saved);
    if ((after ^ wanted) & ~0x3Fu) /* the low bits are sticky exceptions */
        fail_msg("%s left the float mode at %#x, it was %#x", mh_op_name(op->op), after, wanted);
#endif
    if (status)
        fail_msg("%s: %s", mh_op_name(op->op), mh_last_message());
}

uint32_t run(struct harness *h, const mh_op *op, const mh_tensor *outputs)
{
    *i32_at(h, &h->fault, 0, 0) = 0;
    memcpy(h->before, h->base, h->used + 64);
    encode_and_wait(h, op);
    take_output(h, &h->fault);
    for (; outputs->rank; outputs++)
        take_output(h, outputs);
    for (uint64_t i = 0; i < h->used + 64; i++)
        if (h->before[i] != h->base[i])
            fail_msg("%s wrote outside its outputs, at byte %llu", mh_op_name(op->op),
                     (unsigned long long)i);
    return (uint32_t)*i32_at(h, &h->fault, 0, 0);
}

void for_each_form(void (*body)(struct harness *h))
{
    static const char *const isas[] = {"scalar", "avx2", "avx512"};
    uint64_t hash = 0;
    for (int i = 0; i < 3; i++)
        for (uint32_t threads = 1; threads <= 3; threads++) {
            struct harness *h = harness_open(isas[i], threads);
            if (!h)
                break;
            h->hostile_mode = threads == 2;
            body(h);
            if (!hash)
                hash = h->hash;
            else if (hash != h->hash)
                fail_msg("%s with %u threads%s has other bits than scalar with one", isas[i],
                         threads, h->hostile_mode ? " and a hostile float mode" : "");
            harness_close(h);
        }
    assert_true(hash != 0);
}
