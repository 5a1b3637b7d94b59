/*
 * test_gemm_counts.c: what the main loops of gemm.ptx's and gemm_columns.ptx's kernels cost on the
 * virtual GPU, exactly: the difference between K and 2 K. Per mma at most two other instructions of
 * a warp for bf16, three for FP8; at most 192 bytes of shared memory read, and no bank met twice.
 */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <moehal/moehal.h>

typedef int kernel_counter(int device, const char *kernel, const char *name, uint64_t *value);

static mh_runtime *runtime;
static mh_device *device;
static mh_stream *stream;
static kernel_counter *count_of;

#define OK(call) assert_int_equal((call), MH_OK)

static uint64_t count(const char *kernel, const char *name)
{
    uint64_t value = 0;
    count_of(0, kernel, name, &value);
    return value;
}

static mh_weight *weight(mh_format format, int64_t out, int64_t in)
{
    mh_weight *w = NULL;
    mh_weight_params params = MH_INIT(mh_weight_params);
    mh_weight_piece piece = MH_INIT(mh_weight_piece);
    char *zeros = calloc((size_t)(out * in), 2);
    params.format = format, params.experts = 1, params.out = out, params.in = in;
    OK(mh_weight_create(device, &params, &w));
    piece.expert_count = 1, piece.row_count = out;
    piece.plane[0] = piece.plane[1] = zeros;
    OK(mh_weight_write(w, &piece));
    OK(mh_weight_seal(w));
    free(zeros);
    return w;
}

struct counts {
    uint64_t launches, instructions, matrix, passes;
};

static struct counts read_counts(const char *kernel)
{
    return (struct counts){count(kernel, "launches"), count(kernel, "warp_instructions"),
                           count(kernel, "matrix_operations"), count(kernel, "shared_passes")};
}

/* What an op adds. */
static struct counts counted(const char *kernel, const mh_op *op)
{
    struct counts before = read_counts(kernel);
    OK(mh_encode(mh_stream_encoder(stream), op));
    OK(mh_stream_wait(stream, MH_FOREVER));
    struct counts after = read_counts(kernel);
    return (struct counts){after.launches - before.launches,
                           after.instructions - before.instructions, after.matrix - before.matrix,
                           after.passes - before.passes};
}

/* A linear of `tokens` rows. */
static struct counts linear(const char *kernel, mh_format format, int64_t tokens, int64_t out,
                            int64_t in)
{
    mh_op_linear op = MH_OP_INIT(linear, LINEAR);
    mh_buffer *memory = NULL;
    uint64_t x_bytes = 4 * (uint64_t)(tokens * in), y_bytes = 4 * (uint64_t)(tokens * out);
    char *zeros = calloc(1, x_bytes);
    OK(mh_buffer_create(device, x_bytes + y_bytes, 0, &memory));
    OK(mh_buffer_write(memory, 0, zeros, x_bytes));
    op.base.flags = MH_OP_FAST;
    op.x = mh_tensor_make(memory, 0, MH_F32, 2, (const int64_t[]){tokens, in});
    op.y = mh_tensor_make(memory, x_bytes, MH_F32, 2, (const int64_t[]){tokens, out});
    op.w = weight(format, out, in);
    struct counts added = counted(kernel, &op.base);
    mh_weight_release(op.w);
    mh_buffer_release(memory);
    free(zeros);
    return added;
}

static void check(const char *kernel, mh_format format, int64_t tokens, uint64_t most_others)
{
    enum { OUT = 128, K = 1024 };
    int64_t rows = tokens > 64 ? 128 : 64, k = format == MH_FORMAT_FP8 ? 32 : 16;
    struct counts one = linear(kernel, format, tokens, OUT, K);
    struct counts two = linear(kernel, format, tokens, OUT, 2 * K);
    uint64_t matrix = two.matrix - one.matrix, passes = two.passes - one.passes;
    uint64_t others = two.instructions - one.instructions - matrix;
    printf("%s, format %u: %.3f others and %.1f shared bytes an mma\n", kernel, format,
           (double)others / (double)matrix, 128 * (double)passes / (double)matrix);
    assert_int_equal(one.launches, 1);
    assert_int_equal(matrix, rows / 16 * (OUT / 8) * (K / k));
    assert_true(others <= most_others * matrix);
    /* A pass is 128 bytes; FP8's scales of rows are beside. */
    uint64_t scales = format == MH_FORMAT_FP8 ? 16 : 0;
    assert_true(100 * 128 * passes <= 105 * (192 + scales) * matrix);
}

static void bf16_products(void **state)
{
    (void)state;
    check("gemm_128", MH_FORMAT_BF16, 100, 2);
    check("gemm_64", MH_FORMAT_BF16, 40, 2);
}

static void fp8_products(void **state)
{
    (void)state;
    check("gemm_128", MH_FORMAT_FP8, 100, 3);
    check("gemm_64", MH_FORMAT_FP8, 40, 3);
}

/* A transposed projection of 64 tokens, one head of `rows` rows, 128 columns. */
static struct counts head_columns(mh_format format, int64_t rows)
{
    enum { TOKENS = 64, COLUMNS = 128 };
    mh_op_head_linear op = MH_OP_INIT(head_linear, HEAD_LINEAR);
    mh_buffer *memory = NULL;
    uint64_t x_bytes = 4 * (uint64_t)(TOKENS * rows), y_bytes = 4 * TOKENS * COLUMNS;
    char *zeros = calloc(1, x_bytes);
    OK(mh_buffer_create(device, x_bytes + y_bytes, 0, &memory));
    OK(mh_buffer_write(memory, 0, zeros, x_bytes));
    op.base.flags = MH_OP_FAST;
    op.x = mh_tensor_make(memory, 0, MH_F32, 3, (const int64_t[]){TOKENS, 1, rows});
    op.y = mh_tensor_make(memory, x_bytes, MH_F32, 3, (const int64_t[]){TOKENS, 1, COLUMNS});
    op.w = weight(format, rows, COLUMNS);
    op.head_rows = op.row_count = rows, op.transposed = 1;
    struct counts added = counted("gemm_columns", &op.base);
    mh_weight_release(op.w);
    mh_buffer_release(memory);
    free(zeros);
    return added;
}

/* FP8 weights become bf16 on their way into shared memory: most instructions are of that, and what
 * is asserted of them is what docs/nvidia.md says. */
static void check_columns(mh_format format, uint64_t most_others, uint64_t written)
{
    struct counts one = head_columns(format, 128), two = head_columns(format, 256);
    uint64_t matrix = two.matrix - one.matrix, passes = two.passes - one.passes;
    uint64_t others = two.instructions - one.instructions - matrix;
    printf("gemm_columns, format %u: %.3f others and %.1f shared bytes an mma\n", format,
           (double)others / (double)matrix, 128 * (double)passes / (double)matrix);
    assert_int_equal(one.launches, 1);
    assert_int_equal(matrix, 64 / 16 * (128 / 8) * (128 / 16));
    assert_true(others <= most_others * matrix);
    assert_int_equal(128 * passes, (192 + written) * matrix);
}

static void columns_products(void **state)
{
    (void)state;
    check_columns(MH_FORMAT_BF16, 2, 32); /* the inputs' writes; weights come by cp.async */
    check_columns(MH_FORMAT_FP8, 8, 96);
}

static int open_device(void **state)
{
    (void)state;
    OK(mh_runtime_create(NULL, &runtime));
    OK(mh_device_open(runtime, "nvidia:0", NULL, &device));
    OK(mh_stream_create(device, &stream));
    void *driver = dlopen(getenv("MOEHAL_NVIDIA_DRIVER"), RTLD_NOW | RTLD_NOLOAD);
    assert_non_null(driver);
    *(void **)&count_of = dlsym(driver, "moehal_virtual_kernel_counter");
    assert_non_null(count_of);
    return 0;
}

static int close_device(void **state)
{
    (void)state;
    mh_stream_release(stream);
    mh_device_release(device);
    mh_runtime_release(runtime);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bf16_products),
                                       cmocka_unit_test(fp8_products),
                                       cmocka_unit_test(columns_products)};
    return cmocka_run_group_tests(tests, open_device, close_device);
}
