/*
 * An OpenCL library that passes every call on to the real loader, counts them, and fails one:
 *   FAULTY="clSetKernelArg 17"   the 17th call of that function fails with CL_OUT_OF_RESOURCES
 *   FAULTY_LOG=FILE              at exit: a line "function calls" each, and "fired" if one failed
 *   FAULTY_LATE=MS               writes that do not block begin MS milliseconds later, as on a busy
 *                                machine: host memory that is given up too early is still read then
 *   FAULTY_ALONE=1               the device says that a command buffer may not be enqueued while it
 *                                is under way
 *   FAULTY_BUILDS=FILE           at exit: calls of clBuildProgram, milliseconds in them, and the
 *                                processor's
 *   FAULTY_OPTIONS=TEXT          programs are built with these options too, as by a driver whose
 *                                arithmetic is another
 *   FAULTY_SOURCE="OLD NEW"      sources have NEW, as long as OLD, in its place, as if the compiler
 *                                had made something else of it
 */
#define CL_TARGET_OPENCL_VERSION 120
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include <CL/cl.h>
#include <CL/cl_ext.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FUNCTIONS 64

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    const char *name;
    unsigned long calls;
} counts[FUNCTIONS];
static int fired;
static unsigned builds;
static double building[2]; /* ms: passed, and the processor's */

static void *real(const char *name)
{
    static void *loader;
    if (!loader)
        loader = dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL);
    void *found = loader ? dlsym(loader, name) : NULL;
    if (!found)
        abort(); /* the test checks that there is a loader */
    return found;
}

__attribute__((destructor)) static void tell(void)
{
    const char *path = getenv("FAULTY_LOG");
    FILE *log = path ? fopen(path, "w") : NULL;
    for (int i = 0; log && i < FUNCTIONS && counts[i].name; i++)
        fprintf(log, "%s %lu\n", counts[i].name, counts[i].calls);
    if (log && fired)
        fprintf(log, "fired\n");
    if (log)
        fclose(log);
    path = getenv("FAULTY_BUILDS");
    log = path ? fopen(path, "w") : NULL;
    if (log) {
        fprintf(log, "%u %.0f %.0f\n", builds, building[0], building[1]);
        fclose(log);
    }
}

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* Counts a call; is it the one to fail? Finds the real function at the first. */
static int fails(const char *name, void **function)
{
    char wanted[64] = "";
    unsigned long nth = 0;
    const char *fault = getenv("FAULTY");
    if (fault)
        sscanf(fault, "%63s %lu", wanted, &nth);
    pthread_mutex_lock(&lock);
    if (!*function)
        *function = real(name);
    int i = 0;
    while (counts[i].name && strcmp(counts[i].name, name))
        i++;
    counts[i].name = name;
    int now = ++counts[i].calls == nth && !strcmp(wanted, name);
    fired |= now;
    pthread_mutex_unlock(&lock);
    return now;
}

/* STATUS: returns a code; OBJECT: returns a handle, and a code by the last argument `e`. */
#define STATUS(name, args, pass)                                                                   \
    CL_API_ENTRY cl_int CL_API_CALL name args                                                      \
    {                                                                                              \
        static void *f;                                                                            \
        return fails(#name, &f) ? CL_OUT_OF_RESOURCES : ((cl_int(*) args)f)pass;                   \
    }
#define OBJECT(type, name, args, pass)                                                             \
    CL_API_ENTRY type CL_API_CALL name args                                                        \
    {                                                                                              \
        static void *f;                                                                            \
        if (!fails(#name, &f))                                                                     \
            return ((type(*) args)f)pass;                                                          \
        *e = CL_OUT_OF_RESOURCES;                                                                  \
        return NULL;                                                                               \
    }
#define EVENTS cl_uint n, const cl_event *w, cl_event *v

STATUS(clGetPlatformIDs, (cl_uint a, cl_platform_id *b, cl_uint *c), (a, b, c))
STATUS(clGetPlatformInfo, (cl_platform_id a, cl_platform_info b, size_t c, void *d, size_t *f_),
       (a, b, c, d, f_))
STATUS(clGetDeviceIDs, (cl_platform_id a, cl_device_type b, cl_uint c, cl_device_id *d, cl_uint *g),
       (a, b, c, d, g))

CL_API_ENTRY cl_int CL_API_CALL clGetDeviceInfo(cl_device_id a, cl_device_info b, size_t c, void *d,
                                                size_t *g)
{
    static void *f;
    if (fails("clGetDeviceInfo", &f))
        return CL_OUT_OF_RESOURCES;
    cl_int code =
        ((cl_int(*)(cl_device_id, cl_device_info, size_t, void *, size_t *))f)(a, b, c, d, g);
    if (!code && d && b == CL_DEVICE_COMMAND_BUFFER_CAPABILITIES_KHR && getenv("FAULTY_ALONE"))
        *(cl_bitfield *)d &= ~(cl_bitfield)CL_COMMAND_BUFFER_CAPABILITY_SIMULTANEOUS_USE_KHR;
    return code;
}

OBJECT(cl_context, clCreateContext,
       (const cl_context_properties *a, cl_uint b, const cl_device_id *c,
        void(CL_CALLBACK *d)(const char *, const void *, size_t, void *), void *g, cl_int *e),
       (a, b, c, d, g, e))
STATUS(clRetainContext, (cl_context a), (a))
STATUS(clReleaseContext, (cl_context a), (a))
STATUS(clGetContextInfo, (cl_context a, cl_context_info b, size_t c, void *d, size_t *g),
       (a, b, c, d, g))
OBJECT(cl_command_queue, clCreateCommandQueue,
       (cl_context a, cl_device_id b, cl_command_queue_properties c, cl_int *e), (a, b, c, e))
STATUS(clRetainCommandQueue, (cl_command_queue a), (a))
STATUS(clReleaseCommandQueue, (cl_command_queue a), (a))
STATUS(clGetCommandQueueInfo,
       (cl_command_queue a, cl_command_queue_info b, size_t c, void *d, size_t *g), (a, b, c, d, g))
OBJECT(cl_mem, clCreateBuffer, (cl_context a, cl_mem_flags b, size_t c, void *d, cl_int *e),
       (a, b, c, d, e))
STATUS(clRetainMemObject, (cl_mem a), (a))
STATUS(clReleaseMemObject, (cl_mem a), (a))
STATUS(clGetMemObjectInfo, (cl_mem a, cl_mem_info b, size_t c, void *d, size_t *g), (a, b, c, d, g))

static void edit(char *text, const char *old, const char *new)
{
    for (char *at = text; (at = strstr(at, old)); at += strlen(new))
        memcpy(at, new, strlen(new));
}

CL_API_ENTRY cl_program CL_API_CALL clCreateProgramWithSource(cl_context a, cl_uint b,
                                                              const char **c, const size_t *d,
                                                              cl_int *e)
{
    static cl_program (*f)(cl_context, cl_uint, const char **, const size_t *, cl_int *);
    const char *change = getenv("FAULTY_SOURCE");
    char old[64] = "", new[64] = "", *copies[16];
    if (fails("clCreateProgramWithSource", (void **)&f)) {
        *e = CL_OUT_OF_RESOURCES;
        return NULL;
    }
    if (!change || d || b > 16 || sscanf(change, "%63s %63s", old, new) != 2 ||
        strlen(old) != strlen(new))
        return f(a, b, c, d, e);
    for (cl_uint i = 0; i < b; i++)
        edit(copies[i] = strdup(c[i]), old, new);
    cl_program made = f(a, b, (const char **)copies, d, e);
    for (cl_uint i = 0; i < b; i++)
        free(copies[i]);
    return made;
}

OBJECT(cl_program, clCreateProgramWithBinary,
       (cl_context a, cl_uint b, const cl_device_id *c, const size_t *d, const unsigned char **g,
        cl_int *h, cl_int *e),
       (a, b, c, d, g, h, e))
CL_API_ENTRY cl_int CL_API_CALL clBuildProgram(cl_program a, cl_uint b, const cl_device_id *c,
                                               const char *d,
                                               void(CL_CALLBACK *g)(cl_program, void *), void *h)
{
    static cl_int (*f)(cl_program, cl_uint, const cl_device_id *, const char *,
                       void(CL_CALLBACK *)(cl_program, void *), void *);
    if (fails("clBuildProgram", (void **)&f))
        return CL_OUT_OF_RESOURCES;
    double began = now(CLOCK_MONOTONIC), used = now(CLOCK_PROCESS_CPUTIME_ID);
    const char *more = getenv("FAULTY_OPTIONS");
    char options[512];
    snprintf(options, sizeof(options), "%s %s", d ? d : "", more ? more : "");
    cl_int code = f(a, b, c, options, g, h);
    pthread_mutex_lock(&lock);
    builds++;
    building[0] += now(CLOCK_MONOTONIC) - began;
    building[1] += now(CLOCK_PROCESS_CPUTIME_ID) - used;
    pthread_mutex_unlock(&lock);
    return code;
}
STATUS(clGetProgramInfo, (cl_program a, cl_program_info b, size_t c, void *d, size_t *g),
       (a, b, c, d, g))
STATUS(clGetProgramBuildInfo,
       (cl_program a, cl_device_id b, cl_program_build_info c, size_t d, void *g, size_t *h),
       (a, b, c, d, g, h))
STATUS(clReleaseProgram, (cl_program a), (a))
OBJECT(cl_kernel, clCreateKernel, (cl_program a, const char *b, cl_int *e), (a, b, e))
STATUS(clReleaseKernel, (cl_kernel a), (a))
STATUS(clSetKernelArg, (cl_kernel a, cl_uint b, size_t c, const void *d), (a, b, c, d))
STATUS(clGetKernelWorkGroupInfo,
       (cl_kernel a, cl_device_id b, cl_kernel_work_group_info c, size_t d, void *g, size_t *h),
       (a, b, c, d, g, h))
STATUS(clEnqueueNDRangeKernel,
       (cl_command_queue a, cl_kernel b, cl_uint c, const size_t *d, const size_t *g,
        const size_t *h, EVENTS),
       (a, b, c, d, g, h, n, w, v))
STATUS(clEnqueueReadBuffer,
       (cl_command_queue a, cl_mem b, cl_bool c, size_t d, size_t g, void *h, EVENTS),
       (a, b, c, d, g, h, n, w, v))

/* Opens the gate that a write stands behind. It is never released: PoCL 3.1 may still look at it.
 */
static void *open_later(void *gate)
{
    long ms = strtol(getenv("FAULTY_LATE"), NULL, 10);
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
    ((cl_int(*)(cl_event, cl_int))real("clSetUserEventStatus"))(gate, CL_COMPLETE);
    return NULL;
}

/* An event that is not over yet; NULL: none is wanted. */
static cl_event gate_of(cl_command_queue queue, cl_bool blocking)
{
    cl_context context;
    cl_int code;
    pthread_t thread;
    if (blocking || !getenv("FAULTY_LATE"))
        return NULL;
    ((cl_int(*)(cl_command_queue, cl_command_queue_info, size_t, void *, size_t *))real(
        "clGetCommandQueueInfo"))(queue, CL_QUEUE_CONTEXT, sizeof(context), &context, NULL);
    cl_event gate = ((cl_event(*)(cl_context, cl_int *))real("clCreateUserEvent"))(context, &code);
    if (!gate || pthread_create(&thread, NULL, open_later, gate))
        abort();
    pthread_detach(thread);
    return gate;
}

typedef cl_int write_buffer(cl_command_queue, cl_mem, cl_bool, size_t, size_t, const void *,
                            cl_uint, const cl_event *, cl_event *);

CL_API_ENTRY cl_int CL_API_CALL clEnqueueWriteBuffer(cl_command_queue a, cl_mem b, cl_bool c,
                                                     size_t d, size_t g, const void *h, EVENTS)
{
    static void *f;
    if (fails("clEnqueueWriteBuffer", &f))
        return CL_OUT_OF_RESOURCES;
    cl_event gate = gate_of(a, c);
    return gate ? ((write_buffer *)f)(a, b, c, d, g, h, 1, &gate, v)
                : ((write_buffer *)f)(a, b, c, d, g, h, n, w, v);
}

STATUS(clEnqueueCopyBuffer,
       (cl_command_queue a, cl_mem b, cl_mem c, size_t d, size_t g, size_t h, EVENTS),
       (a, b, c, d, g, h, n, w, v))
STATUS(clEnqueueMarkerWithWaitList, (cl_command_queue a, EVENTS), (a, n, w, v))
STATUS(clEnqueueBarrierWithWaitList, (cl_command_queue a, EVENTS), (a, n, w, v))
OBJECT(cl_event, clCreateUserEvent, (cl_context a, cl_int *e), (a, e))
STATUS(clSetUserEventStatus, (cl_event a, cl_int b), (a, b))
STATUS(clWaitForEvents, (cl_uint a, const cl_event *b), (a, b))
STATUS(clGetEventInfo, (cl_event a, cl_event_info b, size_t c, void *d, size_t *g), (a, b, c, d, g))
STATUS(clGetEventProfilingInfo, (cl_event a, cl_profiling_info b, size_t c, void *d, size_t *g),
       (a, b, c, d, g))
STATUS(clRetainEvent, (cl_event a), (a))
STATUS(clReleaseEvent, (cl_event a), (a))
STATUS(clFlush, (cl_command_queue a), (a))

/* ---- cl_khr_command_buffer: the driver's own functions, which the loader is asked for ---- */

#define CREATE "clCreateCommandBufferKHR"
#define FINALIZE "clFinalizeCommandBufferKHR"
#define RELEASE "clReleaseCommandBufferKHR"
#define ENQUEUE "clEnqueueCommandBufferKHR"
#define RECORD "clCommandNDRangeKernelKHR"

static clCreateCommandBufferKHR_fn create;
static clFinalizeCommandBufferKHR_fn finalize;
static clReleaseCommandBufferKHR_fn release;
static clEnqueueCommandBufferKHR_fn enqueue;
static clCommandNDRangeKernelKHR_fn record;

static cl_command_buffer_khr CL_API_CALL create_or_fail(cl_uint a, const cl_command_queue *b,
                                                        const cl_command_buffer_properties_khr *c,
                                                        cl_int *e)
{
    if (!fails(CREATE, (void **)&create))
        return create(a, b, c, e);
    *e = CL_OUT_OF_RESOURCES;
    return NULL;
}

static cl_int CL_API_CALL finalize_or_fail(cl_command_buffer_khr a)
{
    return fails(FINALIZE, (void **)&finalize) ? CL_OUT_OF_RESOURCES : finalize(a);
}

static cl_int CL_API_CALL release_or_fail(cl_command_buffer_khr a)
{
    return fails(RELEASE, (void **)&release) ? CL_OUT_OF_RESOURCES : release(a);
}

static cl_int CL_API_CALL enqueue_or_fail(cl_uint a, cl_command_queue *b, cl_command_buffer_khr c,
                                          EVENTS)
{
    return fails(ENQUEUE, (void **)&enqueue) ? CL_OUT_OF_RESOURCES : enqueue(a, b, c, n, w, v);
}

static cl_int CL_API_CALL record_or_fail(cl_command_buffer_khr a, cl_command_queue b,
                                         const cl_ndrange_kernel_command_properties_khr *c,
                                         cl_kernel d, cl_uint g, const size_t *h, const size_t *i,
                                         const size_t *j, cl_uint k, const cl_sync_point_khr *l,
                                         cl_sync_point_khr *m, cl_mutable_command_khr *o)
{
    return fails(RECORD, (void **)&record) ? CL_OUT_OF_RESOURCES
                                           : record(a, b, c, d, g, h, i, j, k, l, m, o);
}

static const struct {
    const char *name;
    void *here;
    void **there;
} extensions[] = {
    {CREATE, (void *)create_or_fail, (void **)&create},
    {FINALIZE, (void *)finalize_or_fail, (void **)&finalize},
    {RELEASE, (void *)release_or_fail, (void **)&release},
    {ENQUEUE, (void *)enqueue_or_fail, (void **)&enqueue},
    {RECORD, (void *)record_or_fail, (void **)&record},
};

CL_API_ENTRY void *CL_API_CALL clGetExtensionFunctionAddressForPlatform(cl_platform_id a,
                                                                        const char *b)
{
    static void *f;
    if (fails("clGetExtensionFunctionAddressForPlatform", &f))
        return NULL;
    void *found = ((void *(*)(cl_platform_id, const char *))f)(a, b);
    for (size_t i = 0; found && i < sizeof(extensions) / sizeof(extensions[0]); i++)
        if (!strcmp(extensions[i].name, b)) {
            *extensions[i].there = found;
            found = extensions[i].here;
        }
    return found;
}

STATUS(clFinish, (cl_command_queue a), (a))
