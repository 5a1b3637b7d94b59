/* op.c: what a command or a graph's node does when its turn has come. */
#include "driver.h"

#include "../../common/turns.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void op_release(struct op *op)
{
    switch (op->kind) {
    case OP_KERNEL:
        free(op->kernel.params);
        module_release(op->kernel.function->module);
        break;
    case OP_RECORD:
    case OP_WAIT:
        if (op->event)
            event_release(op->event);
        break;
    case OP_GRAPH:
        if (op->run)
            graph_run_release(op->run);
        break;
    default:
        break;
    }
    free(op->staged);
    op->kind = OP_EMPTY;
    op->staged = NULL;
}

bool op_copy(struct op *to, const struct op *from)
{
    *to = *from;
    to->staged = NULL;
    if (from->kind == OP_KERNEL) {
        size_t bytes = from->kernel.function->info->param_bytes;
        to->kernel.params = malloc(bytes ? bytes : 1);
        if (!to->kernel.params)
            return false;
        memcpy(to->kernel.params, from->kernel.params, bytes);
        module_hold(from->kernel.function->module);
    } else if (from->kind == OP_RECORD || from->kind == OP_WAIT) {
        event_hold(from->event);
    }
    return true;
}

/* ---- copies and fills ---- */

static void describe(CUcontext context, uint64_t address, uint64_t bytes, const char *what)
{
    char where[200], text[260];
    const struct vc_alloc *a = vc_find(driver.map, address);
    vc_describe(driver.map, address, where, sizeof where);
    snprintf(text, sizeof text, "%s of %" PRIu64 " bytes at %s", what, bytes, where);
    const char *check = a && !a->live ? "use-after-free" : a ? "out-of-bounds" : "out-of-bounds";
    if (a && a->live && vc_may_access(a, address, bytes, a->device < VC_HOST ? a->device : 0))
        check = "peer";
    vc_report(driver.reports, &(struct vc_finding){.check = check,
                                                   .device = (unsigned)context->device->ordinal,
                                                   .address = address,
                                                   .bytes = bytes,
                                                   .text = text});
}

/* The first and last byte of the rows of one side, the whole span being what must be there. */
static uint64_t span(uint64_t pitch, uint64_t slice, const struct copy *c)
{
    return (c->depth - 1) * slice + (c->height - 1) * pitch + c->width;
}

static CUresult copy_side(CUcontext context, uint64_t address, uint64_t bytes, const char *what)
{
    if (memory_check(context, address, bytes, true) == CUDA_SUCCESS)
        return CUDA_SUCCESS;
    describe(context, address, bytes, what);
    return CUDA_ERROR_ILLEGAL_ADDRESS;
}

static void count_copy(CUcontext context, const struct copy *c, double *ns)
{
    const struct vc_alloc *to = vc_find(driver.map, c->to), *from = vc_find(driver.map, c->from);
    int target = to && to->device < VC_HOST ? to->device : -1;
    int source = from && from->device < VC_HOST ? from->device : -1;
    unsigned device = (unsigned)context->device->ordinal;
    uint64_t bytes = c->width * c->height * c->depth;
    enum driver_counter counter = COUNT_COPIES_ON;
    double rate =
        context->device->limits.memory_clock_khz * 2e3 * context->device->limits.bus_bits / 8 / 2;
    if (source < 0 && target >= 0)
        counter = COUNT_COPIES_IN, rate = 25e9;
    else if (target < 0 && source >= 0)
        counter = COUNT_COPIES_OUT, rate = 25e9;
    else if (source != target)
        counter = COUNT_COPIES_PEER, rate = 200e9;
    count_add(device, counter, 1);
    count_add(device, counter + 1, bytes);
    *ns = 2000 + (double)bytes / rate * 1e9;
}

static CUresult run_copy(CUcontext context, const struct copy *c, double *ns)
{
    if (!c->width || !c->height || !c->depth)
        return CUDA_SUCCESS;
    CUresult result =
        copy_side(context, c->from, span(c->from_pitch, c->from_slice, c), "a copy reads");
    if (result == CUDA_SUCCESS)
        result = copy_side(context, c->to, span(c->to_pitch, c->to_slice, c), "a copy writes");
    if (result != CUDA_SUCCESS)
        return result;
    for (uint64_t z = 0; z < c->depth; z++)
        for (uint64_t y = 0; y < c->height; y++) {
            uint64_t to = c->to + z * c->to_slice + y * c->to_pitch;
            uint64_t from = c->from + z * c->from_slice + y * c->from_pitch;
            memmove((void *)(uintptr_t)to, (const void *)(uintptr_t)from, c->width);
            vc_copy_marks(driver.map, to, from, c->width);
        }
    count_copy(context, c, ns);
    return CUDA_SUCCESS;
}

static void fill_row(void *to, uint32_t value, uint32_t element, uint64_t count)
{
    if (element == 1) {
        memset(to, (int)(value & 255), count);
        return;
    }
    for (uint64_t i = 0; i < count; i++)
        if (element == 2)
            ((uint16_t *)to)[i] = (uint16_t)value;
        else
            ((uint32_t *)to)[i] = value;
}

static CUresult run_fill(CUcontext context, const struct fill *f, double *ns)
{
    uint64_t row = f->width * f->element;
    if (!row || !f->height)
        return CUDA_SUCCESS;
    CUresult result = copy_side(context, f->to, (f->height - 1) * f->pitch + row, "a memset");
    if (result != CUDA_SUCCESS)
        return result;
    for (uint64_t y = 0; y < f->height; y++) {
        fill_row((void *)(uintptr_t)(f->to + y * f->pitch), f->value, f->element, f->width);
        vc_mark(driver.map, f->to + y * f->pitch, row);
    }
    unsigned device = (unsigned)context->device->ordinal;
    count_add(device, COUNT_FILLS, 1);
    count_add(device, COUNT_FILL_BYTES, row * f->height);
    *ns = 2000 + (double)(row * f->height) * 1e-3;
    return CUDA_SUCCESS;
}

/* ---- kernels ---- */

static void on_report(void *user, const struct vc_finding *finding)
{
    (void)user;
    vc_report(driver.reports, finding);
}

static void on_print(void *user, const char *text, size_t size)
{
    (void)user;
    fwrite(text, 1, size, stdout);
    fflush(stdout);
}

static CUresult status_result(enum vn_status status)
{
    switch (status) {
    case VN_OK:
        return CUDA_SUCCESS;
    case VN_ILLEGAL_ADDRESS:
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    case VN_MISALIGNED_ADDRESS:
        return CUDA_ERROR_MISALIGNED_ADDRESS;
    case VN_INVALID_SPACE:
        return CUDA_ERROR_INVALID_ADDRESS_SPACE;
    case VN_INVALID_PC:
        return CUDA_ERROR_INVALID_PC;
    case VN_ILLEGAL_INSTRUCTION:
        return CUDA_ERROR_ILLEGAL_INSTRUCTION;
    case VN_STACK:
        return CUDA_ERROR_HARDWARE_STACK_ERROR;
    case VN_TRAP:
        return CUDA_ERROR_LAUNCH_FAILED;
    case VN_ASSERT:
        return CUDA_ERROR_ASSERT;
    case VN_DEADLOCK:
    case VN_TIMEOUT:
    case VN_STOPPED:
        return CUDA_ERROR_LAUNCH_TIMEOUT;
    case VN_OUT_OF_MEMORY:
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    return CUDA_ERROR_UNKNOWN;
}

/* Model time: what the device's published rates make of the counts. Not a measurement. */
static double model_ns(const struct limits *l, const struct vn_counters *c)
{
    double clock = l->clock_khz * 1e3, memory = l->memory_clock_khz * 2e3 * l->bus_bits / 8;
    double issue = (double)c->warp_instructions / (4.0 * l->sms * clock);
    double flops = (double)c->float_operations / (l->flops_per_clock * l->sms * clock);
    double matrix = (double)c->matrix_flops / (l->matrix_per_clock * l->sms * clock);
    double bytes = 32.0 * (double)c->unique_sectors / memory;
    double most = issue;
    most = flops > most ? flops : most;
    most = matrix > most ? matrix : most;
    most = bytes > most ? bytes : most;
    return 2000 + most * 1e9;
}

/* A kernel that never ends, as far as a program can tell: until the time limit. */
static CUresult hang(unsigned device, const char *kernel)
{
    uint64_t limit = driver.time_limit_ms ? driver.time_limit_ms : 1000;
    struct timespec t = {(time_t)(limit / 1000), (long)(limit % 1000) * 1000000};
    vc_turns_stand(device);
    nanosleep(&t, NULL);
    vc_log(driver.reports, "kernel %s hangs on request", kernel);
    return CUDA_ERROR_LAUNCH_TIMEOUT;
}

static CUresult run_kernel(CUcontext context, const struct kernel_call *k, double *ns)
{
    struct device *device = context->device;
    CUfunction f = k->function;
    switch (vc_faults_launch(driver.faults)) {
    case VC_LAUNCH_FINE:
        break;
    case VC_LAUNCH_ECC:
        return CUDA_ERROR_ECC_UNCORRECTABLE;
    case VC_LAUNCH_LOST:
        device->lost = true;
        return CUDA_ERROR_UNKNOWN;
    case VC_LAUNCH_HANG:
        return hang((unsigned)device->ordinal, f->info->name);
    }
    if (device->lost)
        return CUDA_ERROR_UNKNOWN;
    static _Atomic uint64_t grid_id;
    struct vn_launch launch = {
        .image = f->module->image,
        .function = f->index,
        .grid = {k->grid[0], k->grid[1], k->grid[2]},
        .block = {k->block[0], k->block[1], k->block[2]},
        .dynamic_shared = k->shared,
        .params = k->params,
        .cooperative = k->cooperative,
        .map = driver.map,
        .pool = device->workers,
        .device = device->ordinal,
        .sm_count = (uint32_t)device->limits.sms,
        .compute_capability = (uint32_t)device->limits.capability,
        .max_shared = (uint32_t)device->limits.shared_optin,
        .stack_limit = (uint32_t)context->limit[CU_LIMIT_STACK_SIZE],
        .heap = &context->heap,
        .grid_id = ++grid_id,
        .checks = driver.checks,
        .count = driver.count_on,
        .count_lines = driver.count_lines,
        .fuse = driver.fuse,
        .schedule = driver.schedule,
        .seed = driver.seed,
        .time_limit_ms = driver.time_limit_ms,
        .sinks = {.report = on_report, .print = on_print},
    };
    if (device->after)
        memcpy(launch.after, device->after, sizeof launch.after);
    struct vn_counters counters = {0};
    enum vn_status status = vn_execute(&launch, &counters);
    count_launch(f, (unsigned)device->ordinal, &counters);
    count_add((unsigned)device->ordinal, COUNT_BLOCKS,
              (uint64_t)k->grid[0] * k->grid[1] * k->grid[2]);
    *ns = model_ns(&device->limits, &counters);
    vn_counters_free(&counters);
    if (status != VN_OK)
        vc_log(driver.reports, "kernel %s: status %d", f->info->name, (int)status);
    return status_result(status);
}

/* ---- all ---- */

static void run_callback(struct op *op)
{
    CUstream stream = op->host.stream;
    op->host.callback(stream, (CUresult)op->context->error, op->host.user);
}

CUresult op_run(struct op *op, double *ns)
{
    unsigned device = (unsigned)op->context->device->ordinal;
    switch (op->kind) {
    case OP_EMPTY:
    case OP_RECORD:
    case OP_WAIT:
    case OP_WAIT_VALUE:
        return CUDA_SUCCESS;
    case OP_KERNEL:
        return run_kernel(op->context, &op->kernel, ns);
    case OP_COPY:
        return run_copy(op->context, &op->copy, ns);
    case OP_FILL:
        return run_fill(op->context, &op->fill, ns);
    case OP_HOST:
        count_add(device, COUNT_HOST_FUNCTIONS, 1);
        op->host.fn(op->host.user);
        return CUDA_SUCCESS;
    case OP_CALLBACK:
        count_add(device, COUNT_HOST_FUNCTIONS, 1);
        run_callback(op);
        return CUDA_SUCCESS;
    case OP_WRITE_VALUE:
        if (op->value.wide)
            __atomic_store_n((uint64_t *)(uintptr_t)op->value.address, op->value.value,
                             __ATOMIC_RELEASE);
        else
            __atomic_store_n((uint32_t *)(uintptr_t)op->value.address, (uint32_t)op->value.value,
                             __ATOMIC_RELEASE);
        vc_mark(driver.map, op->value.address, op->value.wide ? 8 : 4);
        return CUDA_SUCCESS;
    case OP_FREE:
        return memory_free_now(op->address);
    case OP_GRAPH:
        count_add(device, COUNT_GRAPH_LAUNCHES, 1);
        return graph_run_ops(op->run, ns);
    }
    return CUDA_ERROR_UNKNOWN;
}
