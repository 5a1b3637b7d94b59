/* kernel.c: a kernel of your own between moehal's ops.
 * Usage: kernel URI [CODE-OBJECT] (nvidia:0, opencl:0, or amd:0 with relu2.hip compiled)
 */
#include <stdio.h>
#include <string.h>

#include <moehal/moehal.h>

enum { COUNT = 1000, BLOCK = 64, SKIPPED = 77 };

/* x = max(x, 0)^2, which moehal does not have. */
static const char opencl[] = "kernel void relu2(global float *x, uint n)\n"
                             "{\n"
                             "    uint i = get_global_id(0);\n"
                             "    if (i < n)\n"
                             "        x[i] = fmax(x[i], 0.0f) * fmax(x[i], 0.0f);\n"
                             "}\n";
static const char ptx[] = ".version 7.0\n"
                          ".target sm_70\n"
                          ".address_size 64\n"
                          ".visible .entry relu2(.param .u64 x, .param .u32 n)\n"
                          "{\n"
                          "    .reg .pred %past;\n"
                          "    .reg .b32 %block, %size, %i, %n;\n"
                          "    .reg .b64 %x, %at;\n"
                          "    .reg .f32 %v;\n"
                          "    mov.u32 %block, %ctaid.x;\n"
                          "    mov.u32 %size, %ntid.x;\n"
                          "    mov.u32 %i, %tid.x;\n"
                          "    mad.lo.u32 %i, %block, %size, %i;\n"
                          "    ld.param.u32 %n, [n];\n"
                          "    setp.ge.u32 %past, %i, %n;\n"
                          "    @%past bra done;\n"
                          "    ld.param.u64 %x, [x];\n"
                          "    cvta.to.global.u64 %x, %x;\n"
                          "    mul.wide.u32 %at, %i, 4;\n"
                          "    add.u64 %at, %x, %at;\n"
                          "    ld.global.f32 %v, [%at];\n"
                          "    max.f32 %v, %v, 0f00000000;\n"
                          "    mul.rn.f32 %v, %v, %v;\n"
                          "    st.global.f32 [%at], %v;\n"
                          "done:\n"
                          "    ret;\n"
                          "}\n";

/* An AMD GPU takes a code object, which clang makes of relu2.hip. */
static uint64_t read_file(const char *path, char *to, size_t room)
{
    FILE *file = path ? fopen(path, "rb") : NULL;
    size_t size = file ? fread(to, 1, room, file) : 0;
    if (file)
        fclose(file);
    return size;
}

int main(int argc, char **argv)
{
    const char *uri = argc > 1 ? argv[1] : "auto";
    const int64_t shape[] = {1, COUNT};
    const uint32_t n = COUNT;
    static char code[1 << 20];
    float x[COUNT];
    mh_runtime *runtime = NULL;
    mh_device *device = NULL;
    mh_module *module = NULL;
    mh_kernel *kernel = NULL;
    mh_stream *stream = NULL;
    mh_buffer *memory = NULL;
    for (int i = 0; i < COUNT; i++)
        x[i] = (float)(i - COUNT / 2);

    mh_module_params source = MH_INIT(mh_module_params);
    mh_status status = mh_runtime_create(NULL, &runtime);
    if (!status)
        status = mh_device_open(runtime, uri, NULL, &device);
    source.image = status || strncmp(mh_device_uri(device), "nvidia", 6) ? opencl : ptx;
    if (!status && !strncmp(mh_device_uri(device), "amd", 3)) {
        source.image = code;
        source.size = read_file(argc > 2 ? argv[2] : NULL, code, sizeof(code));
    }
    if (!status)
        status = mh_module_load(device, &source, &module); /* compiles it; its log is in errors */
    int skipped =
        status == MH_NOT_FOUND || status == MH_UNSUPPORTED; /* no such device, no kernels */

    int ok = !status && !mh_kernel_create(module, "relu2", &kernel) &&
             !mh_stream_create(device, &stream) &&
             !mh_buffer_create(device, sizeof(x), MH_BUFFER_DEVICE, &memory);

    /* In the kernel's order: a tensor, of which the kernel gets the address, and a number. */
    mh_tensor row = mh_tensor_make(memory, 0, MH_F32, 2, shape);
    mh_kernel_arg args[] = {
        {.kind = MH_ARG_TENSOR, .access = MH_OPERAND_READ | MH_OPERAND_WRITTEN, .tensor = row},
        {.kind = MH_ARG_VALUE, .size = sizeof(n)},
    };
    memcpy(args[1].value, &n, sizeof(n));
    mh_op_kernel relu2 = {
        .base = {.struct_size = sizeof(relu2), .op = MH_OP_KERNEL, .layer = -1, .label = "relu2"},
        .kernel = kernel,
        .grid = {(COUNT + BLOCK - 1) / BLOCK, 1, 1},
        .block = {BLOCK, 1, 1},
        .args = args,
        .arg_count = 2,
    };
    mh_op_add twice = MH_OP_INIT(add, ADD);
    twice.y = twice.a = twice.b = row;

    /* In order with other ops; a graph's encoder takes it just as well. */
    ok = ok && !mh_stream_write(stream, memory, 0, x, sizeof(x)) &&
         !mh_encode(mh_stream_encoder(stream), &relu2.base) &&
         !mh_encode(mh_stream_encoder(stream), &twice.base) &&
         !mh_stream_read(stream, memory, 0, x, sizeof(x)) && !mh_stream_wait(stream, MH_FOREVER);
    if (ok)
        printf("%s: %g %g\n", mh_device_uri(device), x[0], x[COUNT - 1]);
    else
        printf("%s%s\n", skipped ? "SKIP: " : "", mh_last_message());
    ok = ok && x[0] == 0 && x[COUNT - 1] == 2 * 499 * 499;

    mh_buffer_release(memory);
    mh_stream_release(stream);
    mh_kernel_release(kernel);
    mh_module_release(module);
    mh_device_release(device);
    mh_runtime_release(runtime);
    return ok ? 0 : skipped ? SKIPPED : 1;
}
