/* events.c: moehal between two queues of your own on an NVIDIA GPU, in order and without the host.
 * Usage: events [LIBRARY] (libcuda.so.1). The same goes for HIP, and for cl_event.
 */
#include <dlfcn.h>
#include <stdio.h>

#include <moehal/moehal.h>

/* As <cuda.h> has them, so that this builds without it. */
typedef void *CUcontext, *CUstream, *CUevent;
typedef unsigned long long CUdeviceptr;

static struct {
    int (*Init)(unsigned flags);
    int (*PrimaryCtxRetain)(CUcontext *context, int device);
    int (*CtxSetCurrent)(CUcontext context);
    int (*StreamCreate)(CUstream *stream, unsigned flags);
    int (*StreamWaitEvent)(CUstream stream, CUevent event, unsigned flags);
    int (*StreamSynchronize)(CUstream stream);
    int (*EventCreate)(CUevent *event, unsigned flags);
    int (*EventRecord)(CUevent event, CUstream stream);
    int (*MemAlloc)(CUdeviceptr *memory, size_t bytes);
    int (*MemsetD32Async)(CUdeviceptr to, unsigned value, size_t words, CUstream stream);
    int (*MemcpyDtoHAsync)(void *to, CUdeviceptr from, size_t bytes, CUstream stream);
} cu;

static int find_driver(const char *path)
{
    static const char *const names[] = {
        "cuInit",
        "cuDevicePrimaryCtxRetain",
        "cuCtxSetCurrent",
        "cuStreamCreate",
        "cuStreamWaitEvent",
        "cuStreamSynchronize",
        "cuEventCreate",
        "cuEventRecord",
        "cuMemAlloc_v2",
        "cuMemsetD32Async",
        "cuMemcpyDtoHAsync_v2",
    };
    void *driver = dlopen(path, RTLD_NOW);
    for (size_t i = 0; driver && i < sizeof(names) / sizeof(names[0]); i++)
        if (!(((void **)&cu)[i] = dlsym(driver, names[i])))
            return 0;
    return driver != NULL;
}

int main(int argc, char **argv)
{
    enum { COUNT = 256, SKIPPED = 77 };
    static float y[COUNT];
    const int64_t shape[] = {1, COUNT};
    CUcontext context;
    CUstream before, after;
    CUevent filled;
    CUdeviceptr memory;
    mh_runtime *runtime = NULL;
    mh_device *device = NULL;
    mh_stream *stream = NULL;
    mh_buffer *buffer = NULL;
    mh_event *start = NULL, *end = NULL;
    uint64_t done = 0;
    if (!find_driver(argc > 1 ? argv[1] : "libcuda.so.1") || cu.Init(0) ||
        cu.PrimaryCtxRetain(&context, 0) || cu.CtxSetCurrent(context)) {
        puts("SKIP: no driver of NVIDIA's, or no GPU");
        return SKIPPED;
    }
    int ok = !cu.StreamCreate(&before, 1) && !cu.StreamCreate(&after, 1) &&
             !cu.EventCreate(&filled, 0) && !cu.MemAlloc(&memory, sizeof(y));

    mh_device_params params = MH_INIT(mh_device_params);
    params.context = MH_CONTEXT_PRIMARY; /* the one that is current here */
    ok = ok && !mh_runtime_create(NULL, &runtime) &&
         !mh_device_open(runtime, "nvidia:0", &params, &device) &&
         !mh_stream_create(device, &stream) &&
         !mh_buffer_wrap(device, memory, sizeof(y), 0, NULL, NULL, &buffer) &&
         !mh_event_wrap(device, (uintptr_t)filled, &start) && !mh_event_create(device, &end);

    /* Yours: fills the memory, and says when that is done. */
    ok = ok && !cu.MemsetD32Async(memory, 0x40400000, COUNT, before) && /* 3.0f */
         !cu.EventRecord(filled, before);

    /* moehal's: begins then, and says when it is done. */
    mh_op_add twice = MH_OP_INIT(add, ADD);
    twice.y = twice.a = twice.b = mh_tensor_make(buffer, 0, MH_F32, 2, shape);
    ok = ok && !mh_stream_wait_event(stream, start) &&
         !mh_encode(mh_stream_encoder(stream), &twice.base) && !mh_event_record(end, stream) &&
         !mh_event_native(end, &done);

    /* Yours again: reads the result. Nobody has waited so far. */
    ok = ok && !cu.StreamWaitEvent(after, (CUevent)(uintptr_t)done, 0) &&
         !cu.MemcpyDtoHAsync(y, memory, sizeof(y), after) && !cu.StreamSynchronize(after);
    printf("%g: %s\n", y[COUNT - 1], ok ? "in order" : mh_last_message());

    mh_event_release(start); /* `filled` stays yours, `end` goes with its event */
    mh_event_release(end);
    mh_buffer_release(buffer);
    mh_stream_release(stream);
    mh_device_release(device);
    mh_runtime_release(runtime);
    return !ok || y[0] != 6 || y[COUNT - 1] != 6;
}
