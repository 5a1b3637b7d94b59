/*
 * foreign.c: what the embedder made: its context, queues and buffers, its memory in place, its
 * kernels.
 */
#include <stdio.h>
#include <string.h>

#include "opencl.h"

/* ---- context, queue, buffer ---- */

mh_status opencl_wrap_context(struct device *device, const mh_backend_open *params)
{
    cl_context context = (cl_context)(uintptr_t)params->native_context;
    cl_device_id devices[64];
    size_t size = 0;
    bool there = false;
    if (params->context != MH_CONTEXT_WRAP)
        return FAIL(device->core, MH_UNSUPPORTED, "%s: OpenCL has no primary context: own or wrap",
                    device->name);
    cl_int code = context ? device->cl->GetContextInfo(context, CL_CONTEXT_DEVICES, sizeof(devices),
                                                       devices, &size)
                          : CL_INVALID_CONTEXT;
    if (code)
        return CL_FAIL(device->core, "clGetContextInfo", code, "native_context is no context");
    for (size_t i = 0; i < size / sizeof(devices[0]); i++)
        there |= devices[i] == device->id;
    if (!there)
        return FAIL(device->core, MH_INVALID_ARGUMENT,
                    "native_context: device %s is not in this context", device->name);
    code = device->cl->RetainContext(context);
    if (code)
        return CL_FAIL(device->core, "clRetainContext", code, "native_context");
    device->context = context;
    return MH_OK;
}

static mh_status wrap_stream(void *user, uint64_t native, void **out)
{
    struct device *device = user;
    cl_command_queue queue = (cl_command_queue)(uintptr_t)native;
    cl_context context = NULL;
    cl_device_id id = NULL;
    cl_bitfield properties = 0;
    cl_int code = queue ? device->cl->GetCommandQueueInfo(queue, CL_QUEUE_CONTEXT, sizeof(context),
                                                          &context, NULL)
                        : CL_INVALID_COMMAND_QUEUE;
    if (!code)
        code = device->cl->GetCommandQueueInfo(queue, CL_QUEUE_DEVICE, sizeof(id), &id, NULL);
    if (!code)
        code = device->cl->GetCommandQueueInfo(queue, CL_QUEUE_PROPERTIES, sizeof(properties),
                                               &properties, NULL);
    if (code == CL_INVALID_COMMAND_QUEUE)
        return FAIL(device->core, MH_INVALID_ARGUMENT, "the handle is no command queue");
    if (code)
        return CL_FAIL(device->core, "clGetCommandQueueInfo", code, "the queue");
    if (context != device->context || id != device->id)
        return FAIL(device->core, MH_INVALID_ARGUMENT, "the queue is another %s's",
                    context != device->context ? "context" : "device");
    if (properties & CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE)
        return FAIL(device->core, MH_INVALID_ARGUMENT, "the queue is out of order");
    return opencl_stream_of(device, queue, out);
}

static mh_status wrap_buffer(void *user, uint64_t native, uint64_t size, mh_buffer_view *out)
{
    struct device *device = user;
    cl_mem memory = (cl_mem)(uintptr_t)native;
    cl_context context = NULL;
    size_t bytes = 0;
    cl_int code = memory ? device->cl->GetMemObjectInfo(memory, CL_MEM_CONTEXT, sizeof(context),
                                                        &context, NULL)
                         : CL_INVALID_MEM_OBJECT;
    if (!code)
        code = device->cl->GetMemObjectInfo(memory, CL_MEM_SIZE, sizeof(bytes), &bytes, NULL);
    if (code == CL_INVALID_MEM_OBJECT)
        return FAIL(device->core, MH_INVALID_ARGUMENT, "the handle is no memory object");
    if (code)
        return CL_FAIL(device->core, "clGetMemObjectInfo", code, "the buffer");
    if (context != device->context)
        return FAIL(device->core, MH_INVALID_ARGUMENT, "the buffer is another context's");
    if (bytes < size)
        return FAIL(device->core, MH_INVALID_ARGUMENT, "the buffer has %zu bytes, not %llu", bytes,
                    (unsigned long long)size);
    code = device->cl->RetainMemObject(memory);
    if (code)
        return CL_FAIL(device->core, "clRetainMemObject", code, "the buffer");
    out->handle = memory;
    return MH_OK;
}

const mh_backend_wrap opencl_wrap_group = {
    sizeof(opencl_wrap_group),
    wrap_stream,
    wrap_buffer,
    opencl_buffer_destroy,
};

/* ---- the host's memory in place ---- */

static mh_status import(void *user, void *memory, uint64_t size, mh_buffer_view *out)
{
    struct device *device = user;
    cl_uint unified = CL_FALSE;
    cl_int code = device->cl->GetDeviceInfo(device->id, CL_DEVICE_HOST_UNIFIED_MEMORY,
                                            sizeof(unified), &unified, NULL);
    if (code || !unified)
        return FAIL(device->core, MH_UNSUPPORTED, "%s does not share the host's memory",
                    device->name);
    out->handle = device->cl->CreateBuffer(device->context, CL_MEM_READ_WRITE | CL_MEM_USE_HOST_PTR,
                                           size, memory, &code);
    return out->handle ? MH_OK
                       : CL_FAIL(device->core, "clCreateBuffer", code, "%llu bytes of the host's",
                                 (unsigned long long)size);
}

const mh_backend_import opencl_import_group = {
    sizeof(opencl_import_group),
    import,
    opencl_buffer_destroy,
};

/* ---- the embedder's kernels ---- */

struct user_kernel {
    cl_kernel kernel;
    size_t most; /* work-items of a group */
};

static void copy_log(struct device *device, cl_program program, char *log, uint64_t log_size)
{
    size_t size = 0;
    device->cl->GetProgramBuildInfo(program, device->id, CL_PROGRAM_BUILD_LOG, 0, NULL, &size);
    char *all = size ? device->core->allocate(device->core->context, size + 1) : NULL;
    if (!all)
        return;
    all[0] = all[size] = 0;
    device->cl->GetProgramBuildInfo(program, device->id, CL_PROGRAM_BUILD_LOG, size, all, NULL);
    snprintf(log, log_size, "%s", all);
    device->core->deallocate(device->core->context, all);
}

/* OpenCL C is text; anything with a NUL in it is the vendor's binary. */
static mh_status load(void *user, const void *image, uint64_t size, const char *options, char *log,
                      uint64_t log_size, void **out)
{
    struct device *device = user;
    const size_t length = size;
    cl_int state = 0, code = 0;
    cl_program program;
    const unsigned char *binary = image;
    const char *text = image;
    if (memchr(image, 0, length)) {
        program = device->cl->CreateProgramWithBinary(device->context, 1, &device->id, &length,
                                                      &binary, &state, &code);
    } else {
        program = device->cl->CreateProgramWithSource(device->context, 1, &text, &length, &code);
    }
    const char *call = "clCreateProgram";
    if (program && !code && !state) {
        call = "clBuildProgram";
        code = device->cl->BuildProgram(program, 1, &device->id, options, NULL, NULL);
        copy_log(device, program, log, log_size);
    }
    if (program && !code && !state) {
        *out = program;
        return MH_OK;
    }
    if (program)
        device->cl->ReleaseProgram(program);
    if (!log[0])
        snprintf(log, log_size, "%s: %s", call, opencl_name(code ? code : CL_INVALID_BINARY));
    return MH_BAD_DATA;
}

static void unload(void *user, void *module)
{
    ((struct device *)user)->cl->ReleaseProgram(module);
}

static void destroy_kernel(void *user, void *kernel)
{
    struct device *device = user;
    device->cl->ReleaseKernel(((struct user_kernel *)kernel)->kernel);
    device->core->deallocate(device->core->context, kernel);
}

static mh_status find_kernel(void *user, void *module, const char *name, void **out)
{
    struct device *device = user;
    cl_int code = 0;
    cl_kernel kernel = device->cl->CreateKernel(module, name, &code);
    if (code == CL_INVALID_KERNEL_NAME)
        return FAIL(device->core, MH_NOT_FOUND, "the module has no kernel '%.100s'", name);
    if (!kernel)
        return CL_FAIL(device->core, "clCreateKernel", code, "kernel '%.100s'", name);
    struct user_kernel *k = device->core->allocate(device->core->context, sizeof(*k));
    if (!k) {
        device->cl->ReleaseKernel(kernel);
        return MH_OUT_OF_MEMORY;
    }
    k->kernel = kernel;
    code = device->cl->GetKernelWorkGroupInfo(kernel, device->id, CL_KERNEL_WORK_GROUP_SIZE,
                                              sizeof(k->most), &k->most, NULL);
    if (code) {
        destroy_kernel(user, k);
        return CL_FAIL(device->core, "clGetKernelWorkGroupInfo", code, "kernel '%.100s'", name);
    }
    *out = k;
    return MH_OK;
}

const mh_backend_module opencl_module_group = {
    sizeof(opencl_module_group), load, unload, find_kernel, destroy_kernel,
};

void opencl_supports_kernel(struct device *device, const mh_op_kernel *op, char reason[192])
{
    const struct user_kernel *k = mh_view_kernel(op->kernel)->handle;
    uint64_t items = (uint64_t)op->block[0] * op->block[1] * op->block[2];
    (void)device;
    if (items > k->most)
        snprintf(reason, 192, "block has %llu work-items, this kernel runs with at most %zu",
                 (unsigned long long)items, k->most);
    if (op->shared_bytes)
        snprintf(reason, 192, "shared_bytes is %llu, must be 0: OpenCL has MH_ARG_LOCAL",
                 (unsigned long long)op->shared_bytes);
    for (uint32_t i = 0; i < op->arg_count; i++)
        if (op->args[i].kind == MH_ARG_TENSOR && op->args[i].tensor.offset)
            snprintf(reason, 192,
                     "argument %u: its offset is %llu, must be 0: OpenCL passes buffers", i,
                     (unsigned long long)op->args[i].tensor.offset);
}

static cl_int set_argument(struct device *device, cl_kernel kernel, uint32_t i,
                           const mh_kernel_arg *arg)
{
    cl_mem memory;
    switch (arg->kind) {
    case MH_ARG_TENSOR:
        memory = mh_view_buffer(arg->tensor.buffer)->handle;
        return device->cl->SetKernelArg(kernel, i, sizeof(memory), &memory);
    case MH_ARG_LOCAL:
        return device->cl->SetKernelArg(kernel, i, arg->size, NULL);
    default:
        return device->cl->SetKernelArg(kernel, i, arg->size, arg->value);
    }
}

mh_status opencl_encode_kernel(struct stream *stream, const mh_op_kernel *op)
{
    struct device *device = stream->device;
    const struct user_kernel *k = mh_view_kernel(op->kernel)->handle;
    size_t global[3], local[3];
    const char *call = "clSetKernelArg";
    cl_int code = 0;
    uint32_t i = 0;
    for (int d = 0; d < 3; d++) {
        local[d] = op->block[d];
        global[d] = (size_t)op->grid[d] * op->block[d];
    }
    pthread_mutex_lock(&device->lock);
    for (; !code && i < op->arg_count; i++)
        code = set_argument(device, k->kernel, i, &op->args[i]);
    if (!code) {
        call = "clEnqueueNDRangeKernel";
        code = device->cl->EnqueueNDRangeKernel(stream->queue, k->kernel, 3, NULL, global, local, 0,
                                                NULL, NULL);
    }
    pthread_mutex_unlock(&device->lock);
    return code ? CL_FAIL(device->core, call, code, "the embedder's kernel, argument %u", i)
                : MH_OK;
}
