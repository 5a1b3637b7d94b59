/* Kernels of the embedder's own: loading, refusals, in streams and in graphs, lifetimes. */
#include "world.h"

enum { N = 32 };

/* y += a * x, N values by `blocks` blocks of `threads`. */
struct axpy {
    mh_kernel_arg args[3];
    mh_op_kernel op;
};

static void make_axpy(struct axpy *k, mh_kernel *kernel, mh_buffer *y, mh_buffer *x, float a)
{
    *k = (struct axpy){.op = {.base = {sizeof(k->op), MH_OP_KERNEL, 0, 3, 0, "axpy"}}};
    k->args[0].kind = MH_ARG_TENSOR;
    k->args[0].access = MH_OPERAND_READ | MH_OPERAND_WRITTEN;
    k->args[0].tensor = f32_matrix(y, 64, 1, N);
    k->args[1].kind = MH_ARG_TENSOR;
    k->args[1].access = MH_OPERAND_READ;
    k->args[1].tensor = f32_matrix(x, 0, 1, N);
    k->args[2].kind = MH_ARG_VALUE;
    k->args[2].size = 4;
    memcpy(k->args[2].value, &a, 4);
    k->op.kernel = kernel;
    for (int i = 0; i < 3; i++)
        k->op.grid[i] = k->op.block[i] = 1;
    k->op.grid[0] = 2, k->op.block[0] = N / 2;
    k->op.args = k->args, k->op.arg_count = 3;
}

static mh_buffer *make_buffer(mh_device *device, float value)
{
    mh_buffer *buffer;
    float values[N + 16];
    for (int i = 0; i < N + 16; i++)
        values[i] = value;
    OK(mh_buffer_create(device, sizeof(values), 0, &buffer));
    OK(mh_buffer_write(buffer, 0, values, sizeof(values)));
    return buffer;
}

static void assert_y(mh_buffer *y, float value)
{
    float values[N + 16];
    OK(mh_buffer_read(y, 0, values, sizeof(values)));
    for (int i = 0; i < N + 16; i++)
        assert_true(values[i] == (i < 16 ? 1 : value));
}

static mh_kernel *load(mh_device *device)
{
    mh_module *module;
    mh_kernel *kernel;
    mh_module_params params = MH_INIT(mh_module_params);
    params.image = "kernels axpy";
    OK(mh_module_load(device, &params, &module));
    OK(mh_kernel_create(module, "axpy", &kernel));
    REFUSED(MH_NOT_FOUND, mh_kernel_create(module, "gemm", &(mh_kernel *){0}), "has no 'gemm'");
    mh_module_release(module); /* the kernel keeps it */
    return kernel;
}

static void a_kernel_runs_as_an_op(void **state)
{
    (void)state;
    struct world *w = world_make_with(MH_PLACEMENT_STRICT, PROBE_MODULE);
    mh_kernel *kernel = load(w->probe);
    mh_buffer *y = make_buffer(w->probe, 1), *x = make_buffer(w->probe, 2);
    mh_stream *stream;
    mh_support answer = MH_INIT(mh_support);
    struct axpy k;
    make_axpy(&k, kernel, y, x, 3);
    OK(mh_stream_create(w->probe, &stream));
    OK(mh_device_supports(w->probe, &k.op.base, &answer));
    assert_int_equal(answer.runs, MH_RUNS_NATIVE);
    OK(mh_encode(mh_stream_encoder(stream), &k.op.base));
    memset(&k, 0xff, sizeof(k)); /* read before mh_encode returned */
    mh_kernel_release(kernel);   /* all with work in flight */
    mh_buffer_release(x);
    assert_true(w->control->live_objects == 2);
    OK(mh_stream_wait(stream, MH_FOREVER));
    assert_y(y, 7);
    mh_stream_release(stream);
    assert_true(w->control->live_objects == 0);
    mh_buffer_release(y);
    world_free(w);
}

static void run_graph(uint32_t groups)
{
    struct world *w = world_make_with(MH_PLACEMENT_STRICT, PROBE_MODULE | groups);
    mh_kernel *kernel = load(w->probe);
    mh_buffer *y = make_buffer(w->probe, 1), *x = make_buffer(w->probe, 2);
    mh_stream *stream;
    mh_graph *graph;
    struct axpy k;
    OK(mh_stream_create(w->probe, &stream));
    OK(mh_graph_create(w->probe, &graph));
    for (int i = 0; i < 3; i++) {
        make_axpy(&k, kernel, y, x, (float)i);
        OK(mh_encode(mh_graph_encoder(graph), &k.op.base));
    }
    memset(&k, 0xff, sizeof(k));
    mh_kernel_release(kernel);
    mh_buffer_release(x);
    OK(mh_graph_seal(graph));
    OK(mh_graph_launch(graph, stream));
    OK(mh_graph_launch(graph, stream));
    mh_graph_release(graph);
    OK(mh_stream_wait(stream, MH_FOREVER));
    assert_y(y, 1 + 2 * (0 + 1 + 2) * 2);
    mh_stream_release(stream);
    mh_buffer_release(y);
    world_free(w);
}

static void a_kernel_is_recorded(void **state)
{
    (void)state;
    run_graph(0);
    run_graph(PROBE_GRAPH);
}

static void bad_images_say_why(void **state)
{
    (void)state;
    struct world *w = world_make_with(MH_PLACEMENT_AUTO, PROBE_MODULE);
    mh_module_params params = MH_INIT(mh_module_params);
    mh_module *module;
    char log[12];
    params.image = "nonsense here";
    REFUSED(MH_BAD_DATA, mh_module_load(w->probe, &params, &module),
            "probe:0: line 1: expected 'kernels'");
    params.log = log, params.log_size = sizeof(log);
    REFUSED(MH_BAD_DATA, mh_module_load(w->probe, &params, &module), "line 1: exp");
    assert_string_equal(log, "line 1: exp");
    params.log_size = 0;
    REFUSED(MH_INVALID_ARGUMENT, mh_module_load(w->probe, &params, &module), "log_size is 0");
    params.image = NULL;
    REFUSED(MH_INVALID_ARGUMENT, mh_module_load(w->probe, &params, &module), "image is NULL");
    params = MH_INIT(mh_module_params);
    params.image = "kernels a";
    REFUSED(MH_UNSUPPORTED, mh_module_load(w->host, &params, &module), "takes no kernels");
    world_free(w);
}

#define WRONG(change, part)                                                                        \
    do {                                                                                           \
        make_axpy(&k, kernel, y, x, 1);                                                            \
        change;                                                                                    \
        REFUSED(MH_INVALID_ARGUMENT, mh_encode(mh_stream_encoder(stream), &k.op.base), part);      \
        assert_message_has("kernel (layer 3, axpy): ");                                            \
    } while (0)

static void wrong_launches_are_refused(void **state)
{
    (void)state;
    struct world *w = world_make_with(MH_PLACEMENT_AUTO, PROBE_MODULE);
    mh_kernel *kernel = load(w->probe);
    mh_buffer *y = make_buffer(w->probe, 1), *x = make_buffer(w->probe, 2);
    mh_buffer *far = make_buffer(w->host, 0);
    mh_stream *stream;
    struct axpy k;
    OK(mh_stream_create(w->probe, &stream));
    WRONG(k.op.kernel = NULL, "kernel: is NULL");
    WRONG(k.op.grid[0] = 0, "grid[0] is 0");
    WRONG(k.op.grid[1] = 0, "grid[1] is 0, block[1] is 1");
    WRONG(k.op.block[2] = 0, "block[2] is 0");
    WRONG(k.op.arg_count = 33, "arg_count is 33, must be at most 32");
    WRONG(k.op.args = NULL, "args is NULL");
    WRONG(k.op.base.flags = MH_OP_FAST, "flags are 0x1");
    WRONG(k.args[0].kind = 9, "args[0]: kind is 9");
    WRONG(k.args[0].access = 0, "args[0]: access is 0x0");
    WRONG(k.args[1].tensor.buffer = NULL, "args[1]: buffer is NULL");
    WRONG(k.args[1].tensor.buffer = far, "args[1]: its buffer is on host:0");
    WRONG(k.args[1].tensor.offset = 128, "args[1]: ends at byte 256 of a buffer of 192");
    WRONG(k.args[1].tensor.rank = 0, "args[1]: dtype is 1, rank is 0");
    WRONG(k.args[2].size = 17, "args[2]: size is 17, must be 1 to 16");
    WRONG(k.args[2].kind = MH_ARG_LOCAL; k.args[2].size = 0, "args[2]: size is 0");
    make_axpy(&k, kernel, y, x, 1);
    k.op.block[0] = 65; /* what only the device knows */
    REFUSED(MH_UNSUPPORTED, mh_encode(mh_stream_encoder(stream), &k.op.base),
            "not on probe:0: block is larger than 64");
    mh_support answer = MH_INIT(mh_support);
    OK(mh_device_supports(w->probe, &k.op.base, &answer));
    assert_int_equal(answer.runs, MH_RUNS_NOWHERE);
    assert_int_equal(answer.missing, MH_MISSING_LIMIT);
    assert_string_equal(mh_op_name(MH_OP_KERNEL), "kernel");
    assert_int_equal(mh_op_size(MH_OP_KERNEL), sizeof(mh_op_kernel));
    mh_stream_release(stream);
    mh_buffer_release(far);
    mh_buffer_release(x);
    mh_buffer_release(y);
    mh_kernel_release(kernel);
    world_free(w);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kernel_runs_as_an_op),
        cmocka_unit_test(a_kernel_is_recorded),
        cmocka_unit_test(bad_images_say_why),
        cmocka_unit_test(wrong_launches_are_refused),
    };
    return WORLD_MAIN(tests);
}
