/* launch.c: kernels: their shape, their arguments with the hidden ones, their run. */
#include "driver.h"

#include "../../common/turns.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- the shape ---- */

static hipError_t check_shape(hipFunction_t f, const struct kernel_call *k)
{
    const struct limits *l = &f->module->device->limits;
    const char *name = f->info->name;
    uint64_t threads = (uint64_t)k->block[0] * k->block[1] * k->block[2];
    for (int i = 0; i < 3; i++)
        if (!k->grid[i] || !k->block[i] || k->block[i] > 1024)
            return refuse(hipErrorInvalidConfiguration,
                          "kernel %s: a grid or block is 0, or a block more than 1024", name);
    if (threads > 1024 || threads > f->info->max_threads)
        return refuse(hipErrorInvalidConfiguration, "kernel %s: %u threads a block, %u are allowed",
                      name, (unsigned)threads, f->info->max_threads);
    for (int i = 0; i < 3; i++)
        if (f->info->required[i] && f->info->required[i] != k->block[i])
            return refuse(hipErrorInvalidConfiguration,
                          "kernel %s: reqd_work_group_size wants another block", name);
    if (f->kernel.lds_bytes + (uint64_t)k->dynamic_lds > (uint64_t)l->lds)
        return refuse(hipErrorInvalidConfiguration,
                      "kernel %s: %u + %u bytes of LDS, a workgroup has %d", name,
                      f->kernel.lds_bytes, k->dynamic_lds, l->lds);
    uint64_t blocks = (uint64_t)k->grid[0] * k->grid[1] * k->grid[2];
    if (k->cooperative &&
        blocks > (uint64_t)function_occupancy(f, (int)threads, k->dynamic_lds) * (uint64_t)l->cus)
        return hipErrorCooperativeLaunchTooLarge;
    return hipSuccess;
}

/* ---- the arguments that the program gives ---- */

/* The buffer form: BUFFER_POINTER, p, BUFFER_SIZE, &n, END in any order. */
static hipError_t read_extra(void **extra, const void **buffer, size_t *size)
{
    *buffer = NULL;
    *size = 0;
    for (; *extra != HIP_LAUNCH_PARAM_END; extra += 2) {
        if (*extra == HIP_LAUNCH_PARAM_BUFFER_POINTER)
            *buffer = extra[1];
        else if (*extra == HIP_LAUNCH_PARAM_BUFFER_SIZE && extra[1])
            *size = *(const size_t *)extra[1];
        else
            return hipErrorInvalidValue;
    }
    return *buffer || !*size ? hipSuccess : hipErrorInvalidValue;
}

static hipError_t copy_args(const struct vl_kernel *info, void **params, void **extra, char *to)
{
    const void *buffer;
    size_t size;
    if (params && extra)
        return hipErrorInvalidValue;
    if (extra) {
        hipError_t result = read_extra(extra, &buffer, &size);
        if (result != hipSuccess)
            return result;
        if (size < info->explicit_bytes)
            return refuse(hipErrorInvalidValue, "kernel %s: %zu bytes of arguments, it takes %u",
                          info->name, size, info->explicit_bytes);
        if (info->explicit_bytes)
            memcpy(to, buffer, info->explicit_bytes);
        return hipSuccess;
    }
    if (!params && info->explicit_args)
        return hipErrorInvalidValue;
    for (uint32_t i = 0; i < info->explicit_args; i++) {
        if (!params[i])
            return hipErrorInvalidValue;
        memcpy(to + info->args[i].offset, params[i], info->args[i].size);
    }
    return hipSuccess;
}

hipError_t kernel_call_make(hipFunction_t f, const uint32_t lanes[3], const uint32_t block[3],
                            unsigned dynamic_lds, bool cooperative, void **params, void **extra,
                            struct kernel_call *out)
{
    *out =
        (struct kernel_call){.function = f, .dynamic_lds = dynamic_lds, .cooperative = cooperative};
    for (int i = 0; i < 3; i++) {
        out->block[i] = block[i];
        out->grid[i] = block[i] ? lanes[i] / block[i] + (lanes[i] % block[i] != 0) : 0;
        out->last[i] = block[i] ? lanes[i] % block[i] : 0;
    }
    hipError_t result = check_shape(f, out);
    if (result != hipSuccess)
        return result;
    out->args = calloc(1, f->info->explicit_bytes ? f->info->explicit_bytes : 1);
    if (!out->args)
        return hipErrorOutOfMemory;
    result = copy_args(f->info, params, extra, out->args);
    if (result != hipSuccess) {
        free(out->args);
        return result;
    }
    lock();
    module_hold(f->module);
    unlock();
    return hipSuccess;
}

/* ---- what the kernel finds in memory ---- */

static uint64_t hidden_value(const struct kernel_call *k, const struct device *d,
                             enum vl_arg_kind kind)
{
    bool partial[3];
    for (int i = 0; i < 3; i++)
        partial[i] = k->last[i] != 0;
    switch (kind) {
    case VL_ARG_BLOCK_COUNT_X: /* whole workgroups */
    case VL_ARG_BLOCK_COUNT_Y:
    case VL_ARG_BLOCK_COUNT_Z:
        return k->grid[kind - VL_ARG_BLOCK_COUNT_X] - partial[kind - VL_ARG_BLOCK_COUNT_X];
    case VL_ARG_GROUP_SIZE_X:
    case VL_ARG_GROUP_SIZE_Y:
    case VL_ARG_GROUP_SIZE_Z:
        return k->block[kind - VL_ARG_GROUP_SIZE_X];
    case VL_ARG_REMAINDER_X:
    case VL_ARG_REMAINDER_Y:
    case VL_ARG_REMAINDER_Z:
        return k->last[kind - VL_ARG_REMAINDER_X];
    case VL_ARG_GRID_DIMS:
        return k->grid[2] * k->block[2] > 1 ? 3 : k->grid[1] * k->block[1] > 1 ? 2 : 1;
    case VL_ARG_DYNAMIC_LDS_SIZE:
        return k->dynamic_lds;
    case VL_ARG_QUEUE:
        return d->queue;
    default: /* offsets are zero in HIP; apertures are in registers on gfx9; no host services */
        return 0;
    }
}

static void write_args(const struct device *d, const struct kernel_call *k)
{
    const struct vl_kernel *info = k->function->info;
    char *to = (char *)(uintptr_t)k->function->kernarg;
    if (!info->kernarg_size)
        return;
    memset(to, 0, info->kernarg_size);
    memcpy(to, k->args, info->explicit_bytes);
    for (uint32_t i = info->explicit_args; i < info->arg_count; i++) {
        const struct vl_arg *a = &info->args[i];
        uint64_t value = hidden_value(k, d, a->kind);
        memcpy(to + a->offset, &value, a->size < sizeof value ? a->size : sizeof value);
    }
}

/* The packet, as the HSA standard lays it out. */
struct dispatch_packet {
    uint16_t header, setup, workgroup[3], reserved0;
    uint32_t grid[3]; /* lanes */
    uint32_t private_bytes, group_bytes;
    uint64_t kernel, kernarg, reserved1, signal;
};
enum { QUEUE_BYTES = 256, PACKET_KERNEL = 2 };

static hipError_t write_packet(struct device *d, const struct kernel_call *k)
{
    if (!d->dispatch) {
        hipError_t result = memory_alloc(d, sizeof(struct dispatch_packet), VC_MODULE,
                                         "the dispatch packet", &d->dispatch);
        if (result == hipSuccess)
            result = memory_alloc(d, QUEUE_BYTES, VC_MODULE, "the queue", &d->queue);
        if (result != hipSuccess)
            return result;
    }
    struct dispatch_packet *p = (struct dispatch_packet *)(uintptr_t)d->dispatch;
    *p = (struct dispatch_packet){
        .header = PACKET_KERNEL,
        .setup = 3,
        .private_bytes = k->function->kernel.scratch_bytes,
        .group_bytes = k->function->kernel.lds_bytes + k->dynamic_lds,
        .kernel = k->function->module->address + k->function->info->descriptor_at,
        .kernarg = k->function->kernarg,
    };
    for (int i = 0; i < 3; i++) {
        p->workgroup[i] = (uint16_t)k->block[i];
        p->grid[i] = k->grid[i] * k->block[i] - (k->last[i] ? k->block[i] - k->last[i] : 0);
    }
    return hipSuccess;
}

/* ---- the run ---- */

/* The machine says where in the text; the object may know the source. */
static void on_report(void *user, const struct vc_finding *finding)
{
    const struct vl_code *code = ((const struct ihipModuleSymbol_t *)user)->module->code;
    struct vc_finding f = *finding;
    f.silent_code = true;
    f.other_line = f.other_code_line = 0; /* the text has it */
    if (!vl_code_line(code, code->text_at + finding->code_line, &f.file, &f.line)) {
        f.file = NULL;
        f.line = 0;
    }
    vc_report(driver.reports, &f);
}

static hipError_t status_error(enum va_status status)
{
    switch (status) {
    case VA_OK:
        return hipSuccess;
    case VA_ILLEGAL_ADDRESS:
    case VA_MISALIGNED_ADDRESS:
        return hipErrorIllegalAddress;
    case VA_INVALID_PC:
    case VA_ILLEGAL_INSTRUCTION:
    case VA_REGISTER:
    case VA_STACK:
    case VA_TRAP:
        return hipErrorLaunchFailure;
    case VA_ASSERT:
        return hipErrorAssert;
    case VA_DEADLOCK:
    case VA_TIMEOUT:
    case VA_STOPPED:
        return hipErrorLaunchTimeOut;
    case VA_INVALID_CONFIGURATION:
        return hipErrorInvalidConfiguration;
    case VA_OUT_OF_MEMORY:
        return hipErrorOutOfMemory;
    }
    return hipErrorUnknown;
}

/* Model time: what the device's published rates make of the counts. Not a measurement. */
static double model_ns(const struct limits *l, const struct va_counters *c)
{
    double clock = l->clock_khz * 1e3, memory = l->memory_clock_khz * 2e3 * l->bus_bits / 8;
    double times[] = {
        (double)c->wave_instructions / (4.0 * l->cus * clock),
        (double)c->valu_flops / (l->flops_per_clock * l->cus * clock),
        (double)c->mfma_flops / (l->matrix_per_clock * l->cus * clock),
        64.0 * (double)c->unique64 / memory,
    };
    double most = 0;
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++)
        most = times[i] > most ? times[i] : most;
    return 2000 + most * 1e9;
}

/* A kernel that never ends, as far as a program can tell: until the time limit. */
static hipError_t hang(unsigned device, const char *kernel)
{
    uint64_t limit = driver.time_limit_ms ? driver.time_limit_ms : 1000;
    struct timespec t = {(time_t)(limit / 1000), (long)(limit % 1000) * 1000000};
    vc_turns_stand(device);
    nanosleep(&t, NULL);
    vc_log(driver.reports, "kernel %s hangs on request", kernel);
    return hipErrorLaunchTimeOut;
}

static hipError_t wanted_fault(struct device *device, const char *kernel)
{
    switch (vc_faults_launch(driver.faults)) {
    case VC_LAUNCH_FINE:
        break;
    case VC_LAUNCH_ECC:
        return hipErrorECCNotCorrectable;
    case VC_LAUNCH_LOST:
        device->lost = true;
        break;
    case VC_LAUNCH_HANG:
        return hang((unsigned)device->ordinal, kernel);
    }
    return device->lost ? hipErrorUnknown : hipSuccess;
}

hipError_t kernel_run(struct device *device, const struct kernel_call *k, double *ns)
{
    hipFunction_t f = k->function;
    hipError_t result = wanted_fault(device, f->info->name);
    if (result == hipSuccess)
        result = write_packet(device, k);
    if (result != hipSuccess)
        return result;
    write_args(device, k);
    static _Atomic uint64_t dispatches;
    uint64_t dispatch_id = ++dispatches;
    struct va_launch launch = {
        .code = f->module->text,
        .kernel = &f->kernel,
        .grid = {k->grid[0], k->grid[1], k->grid[2]},
        .workgroup = {k->block[0], k->block[1], k->block[2]},
        .last_workgroup = {k->last[0], k->last[1], k->last[2]},
        .dynamic_lds = k->dynamic_lds,
        .kernarg = f->kernarg,
        .dispatch = device->dispatch,
        .queue = device->queue,
        .dispatch_id = dispatch_id,
        .cooperative = k->cooperative,
        .map = driver.map,
        .pool = device->workers,
        .device = (unsigned)device->ordinal,
        .checks = driver.checks,
        .count = driver.count_on,
        .count_pcs = driver.count_pcs,
        .schedule = driver.schedule,
        .seed = driver.seed,
        .time_limit_ms = driver.time_limit_ms,
        .sinks = {.context = f, .report = on_report},
    };
    if (device->after)
        memcpy(launch.after, device->after, sizeof launch.after);
    struct va_counters counters = {0};
    struct va_fault fault = {0};
    enum va_status status = va_execute(&launch, &counters, &fault);
    count_launch(f, (unsigned)device->ordinal, &counters);
    *ns = model_ns(&device->limits, &counters);
    va_counters_free(&counters);
    if (status != VA_OK)
        vc_log(driver.reports, "kernel %s: %s", f->info->name, fault.text);
    return status_error(status);
}

/* ---- calls ---- */

static hipError_t launch(const char *name, hipFunction_t f, bool host, const uint32_t lanes[3],
                         const uint32_t block[3], unsigned lds, hipStream_t handle,
                         bool cooperative, void **params, void **extra)
{
    hipStream_t stream;
    ENTER_DEVICE(name, device);
    hipError_t result = stream_resolve(device, handle, &stream);
    if (result == hipSuccess && host)
        result = registered_function(stream->device, f, &f);
    else if (result == hipSuccess && !vc_handle_is(f, HANDLE_FUNCTION))
        result = hipErrorInvalidHandle;
    if (result == hipSuccess && f->module->device != stream->device)
        result = refuse(hipErrorInvalidHandle, "%s: kernel of device %d, stream of device %d", name,
                        f->module->device->ordinal, stream->device->ordinal);
    struct op op = {.kind = OP_KERNEL};
    if (result == hipSuccess)
        result = kernel_call_make(f, lanes, block, lds, cooperative, params, extra, &op.kernel);
    return done(result == hipSuccess ? stream_submit(stream, &op, NULL) : result);
}

/* Blocks to lanes; a grid has fewer than 2^32 in each direction. */
static hipError_t launch_blocks(const char *name, hipFunction_t f, bool host, dim3 grid, dim3 block,
                                unsigned lds, hipStream_t stream, bool cooperative, void **params,
                                void **extra)
{
    const uint32_t blocks[3] = {grid.x, grid.y, grid.z}, size[3] = {block.x, block.y, block.z};
    uint32_t lanes[3];
    for (int i = 0; i < 3; i++) {
        uint64_t n = (uint64_t)blocks[i] * size[i];
        if (n > UINT32_MAX)
            return done(hipErrorInvalidConfiguration);
        lanes[i] = (uint32_t)n;
    }
    return launch(name, f, host, lanes, size, lds, stream, cooperative, params, extra);
}

HIP_API hipError_t hipModuleLaunchKernel(hipFunction_t f, unsigned gx, unsigned gy, unsigned gz,
                                         unsigned bx, unsigned by, unsigned bz, unsigned lds,
                                         hipStream_t stream, void **params, void **extra)
{
    return launch_blocks("hipModuleLaunchKernel", f, false, (dim3){gx, gy, gz}, (dim3){bx, by, bz},
                         lds, stream, false, params, extra);
}

HIP_API hipError_t hipEventRecord(hipEvent_t event, hipStream_t stream);

/* Sizes in lanes, which need not be multiples, and events around. Exported by their C++ names. */
HIP_API hipError_t ext_module_launch(
    hipFunction_t f, uint32_t gx, uint32_t gy, uint32_t gz, uint32_t bx, uint32_t by, uint32_t bz,
    size_t lds, hipStream_t stream, void **params, void **extra, hipEvent_t begin, hipEvent_t end,
    uint32_t flags) __asm__("_Z24hipExtModuleLaunchKernelP18ihipModuleSymbol_tjjjjjjmP12ihipStream_"
                            "tPPvS4_"
                            "P11ihipEvent_tS6_j");
HIP_API hipError_t hcc_module_launch(
    hipFunction_t f, uint32_t gx, uint32_t gy, uint32_t gz, uint32_t bx, uint32_t by, uint32_t bz,
    size_t lds, hipStream_t stream, void **params, void **extra, hipEvent_t begin,
    hipEvent_t
        end) __asm__("_Z24hipHccModuleLaunchKernelP18ihipModuleSymbol_tjjjjjjmP12ihipStream_tPPvS4_"
                     "P11ihipEvent_tS6_");

HIP_API hipError_t ext_module_launch(hipFunction_t f, uint32_t gx, uint32_t gy, uint32_t gz,
                                     uint32_t bx, uint32_t by, uint32_t bz, size_t lds,
                                     hipStream_t stream, void **params, void **extra,
                                     hipEvent_t begin, hipEvent_t end, uint32_t flags)
{
    const uint32_t lanes[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
    (void)flags;
    hipError_t result = begin ? hipEventRecord(begin, stream) : hipSuccess;
    if (result == hipSuccess)
        result = launch("hipExtModuleLaunchKernel", f, false, lanes, block, (unsigned)lds, stream,
                        false, params, extra);
    return result == hipSuccess && end ? hipEventRecord(end, stream) : result;
}

HIP_API hipError_t hcc_module_launch(hipFunction_t f, uint32_t gx, uint32_t gy, uint32_t gz,
                                     uint32_t bx, uint32_t by, uint32_t bz, size_t lds,
                                     hipStream_t stream, void **params, void **extra,
                                     hipEvent_t begin, hipEvent_t end)
{
    return ext_module_launch(f, gx, gy, gz, bx, by, bz, lds, stream, params, extra, begin, end, 0);
}

HIP_API hipError_t hipLaunchKernel(const void *host, dim3 grid, dim3 block, void **params,
                                   size_t lds, hipStream_t stream)
{
    return launch_blocks("hipLaunchKernel", (hipFunction_t)host, true, grid, block, (unsigned)lds,
                         stream, false, params, NULL);
}

HIP_API hipError_t hipLaunchKernel_spt(const void *host, dim3 grid, dim3 block, void **params,
                                       size_t lds, hipStream_t stream)
{
    return hipLaunchKernel(host, grid, block, params, lds, stream ? stream : hipStreamPerThread);
}

HIP_API hipError_t hipLaunchCooperativeKernel(const void *host, dim3 grid, dim3 block,
                                              void **params, unsigned lds, hipStream_t stream)
{
    /* by host address, or by function: HIP 5 has no other call for the latter */
    bool by_host = !vc_handle_is(host, HANDLE_FUNCTION);
    return launch_blocks("hipLaunchCooperativeKernel", (hipFunction_t)host, by_host, grid, block,
                         lds, stream, true, params, NULL);
}

HIP_API hipError_t hipLaunchCooperativeKernel_spt(const void *host, dim3 grid, dim3 block,
                                                  void **params, uint32_t lds, hipStream_t stream)
{
    return hipLaunchCooperativeKernel(host, grid, block, params, lds,
                                      stream ? stream : hipStreamPerThread);
}

HIP_API hipError_t hipExtLaunchKernel(const void *host, dim3 grid, dim3 block, void **params,
                                      size_t lds, hipStream_t stream, hipEvent_t begin,
                                      hipEvent_t end, int flags)
{
    (void)flags;
    hipError_t result = begin ? hipEventRecord(begin, stream) : hipSuccess;
    if (result == hipSuccess)
        result = hipLaunchKernel(host, grid, block, params, lds, stream);
    return result == hipSuccess && end ? hipEventRecord(end, stream) : result;
}
