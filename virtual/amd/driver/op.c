/* op.c: what a command or a graph's node does when its turn has come. */
#include "driver.h"

#include <stdlib.h>
#include <string.h>

void op_release(struct op *op)
{
    switch (op->kind) {
    case OP_KERNEL:
        free(op->kernel.args);
        module_release(op->kernel.function->module);
        break;
    case OP_RECORD:
    case OP_WAIT:
        event_release(op->event);
        break;
    case OP_GRAPH:
        exec_release(op->exec);
        break;
    default:
        break;
    }
    op->kind = OP_EMPTY;
}

bool op_copy(struct op *to, const struct op *from)
{
    *to = *from;
    if (from->kind == OP_KERNEL) {
        size_t bytes = from->kernel.function->info->explicit_bytes;
        to->kernel.args = malloc(bytes ? bytes : 1);
        if (!to->kernel.args) {
            to->kind = OP_EMPTY;
            return false;
        }
        memcpy(to->kernel.args, from->kernel.args, bytes);
        module_hold(from->kernel.function->module);
    } else if (from->kind == OP_RECORD || from->kind == OP_WAIT) {
        event_hold(from->event);
    }
    return true;
}

static void write_value(const struct op *op)
{
    if (op->value.wide)
        __atomic_store_n((uint64_t *)(uintptr_t)op->value.address, op->value.value,
                         __ATOMIC_RELEASE);
    else
        __atomic_store_n((uint32_t *)(uintptr_t)op->value.address, (uint32_t)op->value.value,
                         __ATOMIC_RELEASE);
    vc_mark(driver.map, op->value.address, op->value.wide ? 8 : 4);
}

hipError_t op_run(struct op *op, double *ns)
{
    unsigned device = (unsigned)op->device->ordinal;
    switch (op->kind) {
    case OP_EMPTY:
    case OP_RECORD:
    case OP_WAIT:
    case OP_WAIT_VALUE:
        return hipSuccess;
    case OP_KERNEL:
        return kernel_run(op->device, &op->kernel, ns);
    case OP_COPY:
        return copy_run(op->device, &op->copy, ns);
    case OP_FILL:
        return fill_run(op->device, &op->fill, ns);
    case OP_HOST:
        count_add(device, COUNT_HOST_FUNCTIONS, 1);
        op->host.fn(op->host.user);
        return hipSuccess;
    case OP_CALLBACK:
        count_add(device, COUNT_HOST_FUNCTIONS, 1);
        op->host.callback(op->host.stream, (hipError_t)op->device->error, op->host.user);
        return hipSuccess;
    case OP_WRITE_VALUE:
        write_value(op);
        return hipSuccess;
    case OP_FREE:
        return memory_free_now(op->address) == hipSuccess ? hipSuccess : hipErrorIllegalAddress;
    case OP_GRAPH:
        count_add(device, COUNT_GRAPH_LAUNCHES, 1);
        return exec_run(op->exec, ns);
    }
    return hipErrorUnknown;
}
