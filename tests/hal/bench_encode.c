/*
 * What mh_encode costs through the core, by a backend that does nothing: ns an op, the best and the
 * median of 15 rounds. argv: STUB_MODULE
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <moehal/moehal.h>

enum { ROUNDS = 15, OPS = 200000 };

#define TRY(call)                                                                                  \
    do {                                                                                           \
        if ((call) != MH_OK) {                                                                     \
            fprintf(stderr, "%s: %s\n", #call, mh_last_message());                                 \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    return *(const double *)a < *(const double *)b ? -1 : 1;
}

static void measure(const char *name, mh_stream *stream, const mh_op *op)
{
    double ns[ROUNDS];
    for (int r = 0; r < ROUNDS; r++) {
        double begin = now();
        for (int i = 0; i < OPS; i++)
            TRY(mh_encode(mh_stream_encoder(stream), op));
        ns[r] = (now() - begin) / OPS;
    }
    qsort(ns, ROUNDS, sizeof(ns[0]), by_size);
    printf("mh_encode of %-18s %6.1f ns, median %6.1f ns\n", name, ns[0], ns[ROUNDS / 2]);
}

static mh_weight *make_weight(mh_device *device, int64_t experts, int64_t out, int64_t in)
{
    mh_weight_params params = MH_INIT(mh_weight_params);
    mh_weight_piece piece = MH_INIT(mh_weight_piece);
    mh_weight *weight;
    params.format = MH_FORMAT_F32, params.experts = experts, params.out = out, params.in = in;
    piece.expert_count = experts, piece.row_count = out;
    piece.plane[0] = calloc((size_t)(experts * out * in), 4);
    TRY(mh_weight_create(device, &params, &weight));
    TRY(mh_weight_write(weight, &piece));
    TRY(mh_weight_seal(weight));
    free((void *)(uintptr_t)piece.plane[0]);
    return weight;
}

static mh_tensor take(mh_buffer *buffer, uint64_t *used, mh_dtype dtype, uint32_t rank, int64_t a,
                      int64_t b, int64_t c)
{
    const int64_t shape[] = {a, b, c};
    mh_tensor t = mh_tensor_make(buffer, *used, dtype, rank, shape);
    *used += (uint64_t)(4 * a * (rank > 1 ? b : 1) * (rank > 2 ? c : 1));
    return t;
}

int main(int argc, char **argv)
{
    const char *module = argc > 1 ? argv[1] : "";
    mh_runtime_params params = MH_INIT(mh_runtime_params);
    params.modules = &module, params.module_count = 1;
    mh_runtime *runtime;
    mh_device *device;
    mh_stream *stream;
    mh_buffer *buffer;
    uint64_t used = 0;
    TRY(mh_runtime_create(&params, &runtime));
    TRY(mh_device_open(runtime, "stub", NULL, &device));
    TRY(mh_stream_create(device, &stream));
    TRY(mh_buffer_create(device, 1 << 20, 0, &buffer));

    mh_weight *w = make_weight(device, 1, 64, 64);
    mh_op_linear linear = MH_OP_INIT(linear, LINEAR);
    linear.y = take(buffer, &used, MH_F32, 2, 1, 64, 0);
    linear.x = take(buffer, &used, MH_F32, 2, 1, 64, 0);
    linear.w = w;
    measure("linear", stream, &linear.base);

    mh_weight *bank = make_weight(device, 4, 64, 64);
    mh_op_moe_down_combine moe = MH_OP_INIT(moe_down_combine, MOE_DOWN_COMBINE);
    moe.y = moe.h = take(buffer, &used, MH_F32, 2, 1, 64, 0);
    moe.x = take(buffer, &used, MH_F32, 3, 1, 2, 64);
    moe.shared_x = take(buffer, &used, MH_F32, 2, 1, 64, 0);
    moe.weights = take(buffer, &used, MH_F32, 2, 1, 2, 0);
    moe.experts = take(buffer, &used, MH_I32, 2, 1, 2, 0);
    moe.fault = take(buffer, &used, MH_U32, 1, 1, 0, 0);
    moe.w = bank, moe.shared_w = w;
    measure("moe_down_combine", stream, &moe.base);

    mh_weight *kv_b = make_weight(device, 1, 2 * 16, 8); /* the op with most operands */
    mh_op_mla_qkv qkv = MH_OP_INIT(mla_qkv, MLA_QKV);
    qkv.y = take(buffer, &used, MH_F32, 3, 1, 2, 12);
    qkv.cache = take(buffer, &used, MH_F32, 3, 4, 64, 12);
    qkv.q = take(buffer, &used, MH_F32, 3, 1, 2, 12);
    qkv.kv = take(buffer, &used, MH_F32, 2, 1, 12, 0);
    qkv.norm = take(buffer, &used, MH_F32, 1, 8, 0, 0);
    qkv.table = take(buffer, &used, MH_F32, 2, 256, 4, 0);
    qkv.positions = take(buffer, &used, MH_I32, 1, 1, 0, 0);
    qkv.slots = take(buffer, &used, MH_I32, 1, 1, 0, 0);
    qkv.page_table = take(buffer, &used, MH_I32, 2, 1, 4, 0);
    qkv.fault = take(buffer, &used, MH_U32, 1, 1, 0, 0);
    qkv.w = kv_b, qkv.head_rows = 16, qkv.eps = 1e-6f;
    measure("mla_qkv", stream, &qkv.base);

    mh_weight_release(kv_b);
    mh_weight_release(bank);
    mh_weight_release(w);
    mh_buffer_release(buffer);
    mh_stream_release(stream);
    mh_device_release(device);
    mh_runtime_release(runtime);
    return 0;
}
