/*
 * probe.c: what the device's arithmetic does, found out by running it. Decides between the device's
 * own division and square root and those made of integers, and whether exact can be kept at all.
 */
#include <stdio.h>
#include <string.h>

#include "opencl.h"

static const uint32_t cases[][9] = {
#include "probe_cases.h"
};

#define ROWS ((int)(sizeof(cases) / sizeof(cases[0])))

/* Results of probe.cl by place; `right` is the place in a case. */
enum { PRODUCT, SUM, FMA, TWO_STEPS, RECIPROCAL, ROOT, SOFT_RECIPROCAL, SOFT_ROOT, RESULTS };
static const int right[RESULTS] = {3, 4, 5, 6, 7, 8, 7, 8};

/* Runs the kernel on all cases. */
static mh_status run(struct device *device, float *out)
{
    const mh_core *core = device->core;
    const struct cl_api *cl = device->cl;
    cl_kernel kernel = device->kernels[KERNEL_probe][0];
    cl_int rows = ROWS, code = 0;
    float in[ROWS][3];
    size_t bytes = sizeof(float) * RESULTS * ROWS;
    for (int i = 0; i < ROWS; i++)
        memcpy(in[i], cases[i], sizeof(in[i]));
    const char *call = NULL; /* the one that failed */
    const size_t local = device->lanes, global = 8 * local;
    cl_mem from = NULL, to = NULL;
    cl_command_queue queue = NULL;
#define STEP(name, code_of_call)                                                                   \
    if (!code && ((code_of_call), code))                                                           \
        call = name;
    STEP("clCreateBuffer",
         from = cl->CreateBuffer(device->context, CL_MEM_READ_WRITE, sizeof(in), NULL, &code))
    STEP("clCreateBuffer",
         to = cl->CreateBuffer(device->context, CL_MEM_READ_WRITE, bytes, NULL, &code))
    STEP("clCreateCommandQueue",
         queue = cl->CreateCommandQueue(device->context, device->id, 0, &code))
    STEP("clEnqueueWriteBuffer",
         code = cl->EnqueueWriteBuffer(queue, from, CL_FALSE, 0, sizeof(in), in, 0, NULL, NULL))
    STEP("clSetKernelArg", code = cl->SetKernelArg(kernel, 0, sizeof(from), &from))
    STEP("clSetKernelArg", code = cl->SetKernelArg(kernel, 1, sizeof(to), &to))
    STEP("clSetKernelArg", code = cl->SetKernelArg(kernel, 2, sizeof(rows), &rows))
    STEP("clEnqueueNDRangeKernel",
         code = cl->EnqueueNDRangeKernel(queue, kernel, 1, NULL, &global, &local, 0, NULL, NULL))
    STEP("clEnqueueReadBuffer",
         code = cl->EnqueueReadBuffer(queue, to, CL_TRUE, 0, bytes, out, 0, NULL, NULL))
#undef STEP
    if (queue) {
        cl->Finish(queue);
        cl->ReleaseCommandQueue(queue);
    }
    if (to)
        cl->ReleaseMemObject(to);
    if (from)
        cl->ReleaseMemObject(from);
    return code ? CL_FAIL(core, call, code, "%s: the probe did not run", device->name) : MH_OK;
}

/* The first case that comes out wrong, -1 if none does. */
static int first_wrong(const float *out, int result)
{
    for (int i = 0; i < ROWS; i++)
        /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison,cert-*): bits are compared */
        if (memcmp(&out[i * RESULTS + result], &cases[i][right[result]], 4))
            return i;
    return -1;
}

static void unfit(struct device *device, const float *out, int result, const char *what)
{
    int row = first_wrong(out, result);
    uint32_t got;
    if (row < 0 || device->unfit[0])
        return;
    memcpy(&got, &out[row * RESULTS + result], 4);
    snprintf(device->unfit, sizeof(device->unfit),
             "exact cannot be kept: %s of %08x, %08x, %08x gives %08x, must be %08x", what,
             cases[row][0], cases[row][1], cases[row][2], got, cases[row][right[result]]);
}

static void add_option(struct device *device, const char *option)
{
    size_t used = strlen(device->options);
    snprintf(device->options + used, sizeof(device->options) - used, " %s", option);
}

mh_status opencl_probe(struct device *device)
{
    char reason[192];
    float out[ROWS * RESULTS];
    opencl_prepare(device, KERNEL_probe, 0, false, reason);
    if (reason[0])
        return FAIL(device->core, MH_UNSUPPORTED, "%s: %s", device->name, reason);
    mh_status status = run(device, out);
    if (status)
        return status;
    unfit(device, out, PRODUCT, "a product");
    unfit(device, out, SUM, "a sum");
    unfit(device, out, FMA, "fma");
    unfit(device, out, TWO_STEPS, "a product and a sum, which must not be contracted,");
    if (first_wrong(out, RECIPROCAL) >= 0) {
        add_option(device, "-DSOFT_RCP");
        unfit(device, out, SOFT_RECIPROCAL, "division by integers");
    }
    if (first_wrong(out, ROOT) >= 0) {
        add_option(device, "-DSOFT_SQRT");
        unfit(device, out, SOFT_ROOT, "square root by integers");
    }
    if (device->unfit[0])
        add_option(device, "-DUNFIT");
    return MH_OK;
}
