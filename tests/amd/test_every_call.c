/*
 * test_every_call.c: a program that makes every call of the HIP runtime that the backend makes, on
 * two virtual GPUs, run again and again, each time with another of its calls failing. It then ends
 * with what it should compute, or with a failure whose message names the function; it leaves no
 * memory of a GPU behind; and once nothing fails any more it runs as at first.
 *
 * usage: test_every_call RUNTIME CODE CALLS
 * RUNTIME: the virtual one. CODE: of docs/examples/relu2.hip. CALLS: how many of each function of
 * runtime.def, at most.
 */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <moehal/moehal.h>

enum { N = 1000, BLOCK = 64, GPUS = 2, BYTES = 2 << 20 /* large: by way of pinned memory */ };

/* ---- the runtime itself ---- */

static struct {
    int (*faults)(const char *list);
    int (*set_device)(int device);
    int (*malloc)(void **memory, size_t bytes);
    int (*stream_create)(void **stream, unsigned flags);
    int (*event_create)(void **event, unsigned flags);
    int (*mem_get_info)(size_t *available, size_t *total);
} hip;

/* Of the embedder, on GPU 0. */
static void *memory, *stream, *event;

static bool find_runtime(const char *path)
{
    static const struct {
        void *to;
        const char *name;
    } symbols[] = {{&hip.faults, "moehal_virtual_faults"},
                   {&hip.set_device, "hipSetDevice"},
                   {&hip.malloc, "hipMalloc"},
                   {&hip.stream_create, "hipStreamCreateWithFlags"},
                   {&hip.event_create, "hipEventCreateWithFlags"},
                   {&hip.mem_get_info, "hipMemGetInfo"}};
    void *library = dlopen(path, RTLD_NOW);
    for (size_t i = 0; library && i < sizeof(symbols) / sizeof(symbols[0]); i++) {
        void *symbol = dlsym(library, symbols[i].name);
        memcpy(symbols[i].to, &symbol, sizeof(symbol));
        if (!symbol)
            return false;
    }
    return library && !hip.set_device(0) && !hip.malloc(&memory, 4 * N) &&
           !hip.stream_create(&stream, 1) && !hip.event_create(&event, 0);
}

/* Memory that both GPUs have left. */
static size_t available(void)
{
    size_t sum = 0, left = 0, all;
    for (int i = 0; i < GPUS; i++)
        if (!hip.set_device(i) && !hip.mem_get_info(&left, &all))
            sum += left;
    hip.set_device(0);
    return sum;
}

/* ---- the program ---- */

struct world {
    mh_runtime *runtime;
    mh_device *devices[GPUS];
    mh_stream *streams[GPUS], *second, *wrapped_stream;
    mh_buffer *buffers[GPUS], *visible, *wrapped_buffer;
    mh_event *begin, *end, *wrapped_event;
    mh_graph *graph;
    mh_module *module;
    mh_kernel *kernel;
    mh_comm *comm;
    char reason[192]; /* why ranks go by way of the host, if they do */
    float sums[N], squares[N], wrapped[N], reduced[N];
};

#define TRY(call)                                                                                  \
    do {                                                                                           \
        mh_status status_ = (call);                                                                \
        if (status_)                                                                               \
            return status_;                                                                        \
    } while (0)

/* Row `row` of a buffer. */
static mh_tensor row(mh_buffer *buffer, uint64_t row)
{
    return mh_tensor_make(buffer, row * 4 * N, MH_F32, 2, (const int64_t[]){1, N});
}

static mh_status add(mh_encoder *encoder, mh_tensor y, mh_tensor a, mh_tensor b)
{
    mh_op_add op = MH_OP_INIT(add, ADD);
    op.y = y, op.a = a, op.b = b;
    return mh_encode(encoder, &op.base);
}

static mh_status square(struct world *w, mh_tensor x)
{
    mh_kernel_arg args[] = {
        {.kind = MH_ARG_TENSOR, .access = MH_OPERAND_READ | MH_OPERAND_WRITTEN, .tensor = x},
        {.kind = MH_ARG_VALUE, .size = sizeof(uint32_t)}};
    memcpy(args[1].value, &(uint32_t){N}, sizeof(uint32_t));
    mh_op_kernel op = {
        .base = {.struct_size = sizeof(op), .op = MH_OP_KERNEL, .layer = -1, .label = "relu2"},
        .kernel = w->kernel,
        .grid = {(N + BLOCK - 1) / BLOCK, 1, 1},
        .block = {BLOCK, 1, 1},
        .args = args,
        .arg_count = 2};
    return mh_encode(mh_stream_encoder(w->streams[0]), &op.base);
}

static mh_status open_all(struct world *w, const mh_module_params *code, const char *image)
{
    mh_memory_info info = MH_INIT(mh_memory_info);
    TRY(mh_runtime_create(NULL, &w->runtime));
    for (int i = 0; i < GPUS; i++)
        TRY(mh_device_open(w->runtime, i ? "amd:1" : "amd:0", NULL, &w->devices[i]));
    for (int i = 0; i < GPUS; i++)
        TRY(mh_stream_create(w->devices[i], &w->streams[i]));
    /* Before large copies, whose pinned memory and events have a substitute. */
    TRY(mh_buffer_create(w->devices[0], 4 * N, MH_BUFFER_HOST_VISIBLE, &w->visible));
    TRY(mh_event_create(w->devices[0], &w->begin));
    TRY(mh_event_create(w->devices[0], &w->end));
    TRY(mh_event_record(w->begin, w->streams[0]));
    for (int i = 0; i < GPUS; i++) {
        TRY(mh_buffer_create(w->devices[i], BYTES, MH_BUFFER_DEVICE, &w->buffers[i]));
        TRY(mh_stream_write(w->streams[i], w->buffers[i], 0, image, BYTES));
    }
    TRY(mh_device_memory(w->devices[0], &info));
    TRY(mh_stream_create(w->devices[0], &w->second));
    TRY(mh_module_load(w->devices[0], code, &w->module));
    return mh_kernel_create(w->module, "relu2", &w->kernel);
}

/* Ops, a graph of one, a kernel, between two events; another stream waits for the second. */
static mh_status compute(struct world *w)
{
    mh_encoder *encoder = mh_stream_encoder(w->streams[0]);
    mh_buffer *b = w->buffers[0];
    uint64_t ns;
    TRY(add(encoder, row(b, 2), row(b, 0), row(b, 1)));
    TRY(mh_graph_create(w->devices[0], &w->graph));
    TRY(add(mh_graph_encoder(w->graph), row(b, 3), row(b, 2), row(b, 1)));
    TRY(mh_graph_seal(w->graph));
    TRY(mh_graph_launch(w->graph, w->streams[0]));
    TRY(mh_stream_copy(w->streams[0], w->visible, 0, b, 3 * 4 * N, 4 * N));
    TRY(square(w, row(w->visible, 0)));
    TRY(mh_event_record(w->end, w->streams[0]));
    TRY(mh_stream_wait_event(w->second, w->end));
    TRY(mh_stream_read(w->second, b, 3 * 4 * N, w->sums, 4 * N));
    TRY(mh_stream_wait(w->second, UINT64_C(60000000000)));
    TRY(mh_stream_wait(w->streams[0], MH_FOREVER));
    TRY(mh_buffer_read(w->visible, 0, w->squares, 4 * N));
    TRY(mh_event_wait(w->begin, MH_FOREVER));
    TRY(mh_event_wait(w->end, MH_FOREVER));
    return mh_event_elapsed(w->begin, w->end, &ns);
}

/* The same sum in the embedder's memory, on its stream, waited for by its event. */
static mh_status embed(struct world *w, const float *image)
{
    TRY(mh_stream_wrap(w->devices[0], (uintptr_t)stream, &w->wrapped_stream));
    TRY(mh_buffer_wrap(w->devices[0], (uintptr_t)memory, 4 * N, 0, NULL, NULL, &w->wrapped_buffer));
    TRY(mh_event_wrap(w->devices[0], (uintptr_t)event, &w->wrapped_event));
    mh_tensor x = row(w->wrapped_buffer, 0);
    TRY(mh_stream_write(w->wrapped_stream, w->wrapped_buffer, 0, image, 4 * N));
    TRY(add(mh_stream_encoder(w->wrapped_stream), x, x, x));
    TRY(mh_event_record(w->wrapped_event, w->wrapped_stream));
    TRY(mh_event_wait(w->wrapped_event, MH_FOREVER));
    return mh_buffer_read(w->wrapped_buffer, 0, w->wrapped, 4 * N);
}

/* The first rows of both GPUs, added up by both. */
static mh_status exchange(struct world *w)
{
    mh_comm_params params = MH_INIT(mh_comm_params);
    mh_comm_info info = MH_INIT(mh_comm_info);
    mh_tensor x[GPUS], y[GPUS];
    for (int i = 0; i < GPUS; i++)
        x[i] = row(w->buffers[i], 0), y[i] = row(w->buffers[i], 5);
    params.capacity = 1 << 16;
    TRY(mh_comm_create(w->streams, GPUS, NULL, &w->comm));
    TRY(mh_comm_set(w->comm, &params));
    TRY(mh_comm_all_reduce(w->comm, y, x));
    TRY(mh_comm_wait(w->comm, MH_FOREVER));
    TRY(mh_comm_get_info(w->comm, &info));
    snprintf(w->reason, sizeof(w->reason), "%s", info.native ? "" : info.reason);
    return mh_buffer_read(w->buffers[1], 5 * 4 * N, w->reduced, 4 * N);
}

static mh_status run(struct world *w, const mh_module_params *code, const float *image)
{
    *w = (struct world){0};
    TRY(open_all(w, code, (const char *)image));
    TRY(compute(w));
    TRY(embed(w, image));
    return exchange(w);
}

static void drop(struct world *w)
{
    mh_comm_release(w->comm);
    mh_event_release(w->wrapped_event);
    mh_event_release(w->begin);
    mh_event_release(w->end);
    mh_graph_release(w->graph);
    mh_kernel_release(w->kernel);
    mh_module_release(w->module);
    mh_buffer_release(w->visible);
    mh_buffer_release(w->wrapped_buffer);
    mh_stream_release(w->wrapped_stream);
    mh_stream_release(w->second);
    for (int i = 0; i < GPUS; i++) {
        mh_buffer_release(w->buffers[i]);
        mh_stream_release(w->streams[i]);
        mh_device_release(w->devices[i]);
    }
    mh_runtime_release(w->runtime);
}

static bool right(const struct world *w, const float *image)
{
    for (int i = 0; i < N; i++) {
        float a = image[i], b = image[N + i], sum = a + b + b;
        if (w->sums[i] != sum || w->squares[i] != (sum > 0 ? sum * sum : 0) ||
            w->wrapped[i] != a + a || w->reduced[i] != a + a)
            return false;
    }
    return true;
}

/* ---- failures ---- */

static const char *const functions[] = {
#define SYMBOL(need, result, field, name, args) name,
#include "runtime.def"
#undef SYMBOL
};
enum { FUNCTIONS = sizeof(functions) / sizeof(functions[0]) };

static bool is(const char *name, const char *const *list)
{
    while (*list && strcmp(*list, name))
        list++;
    return *list;
}

/* These hand out words. */
static const char *const texts[] = {"hipGetErrorName", "hipGetErrorString", NULL};
/* Whoever gives back has nobody to tell, and what was not taken back is still there. */
static const char *const undoing[] = {
    "hipFree",         "hipHostFree",     "hipEventDestroy",     "hipStreamDestroy",
    "hipModuleUnload", "hipGraphDestroy", "hipGraphExecDestroy", NULL};

static FILE *log_of_runtime;

/* The function that has failed since the last time, or "". */
static const char *failed(void)
{
    static char name[64];
    char line[700];
    *name = 0;
    clearerr(log_of_runtime);
    while (fgets(line, sizeof(line), log_of_runtime))
        if (strstr(line, ": fails on request"))
            sscanf(line, "%*[^:]: %63[^:]", name);
    return name;
}

struct sweep {
    mh_module_params code;
    const float *image;
    int told[FUNCTIONS], calls, bad;
};

/* Returns the function that failed, "" if none did. */
static const char *with_fault(struct sweep *s, const char *fault)
{
    struct world w;
    size_t before = available();
    hip.faults(fault);
    mh_status status = run(&w, &s->code, s->image);
    char message[2048];
    snprintf(message, sizeof(message), "%s", status ? mh_last_message() : w.reason);
    bool wrong = !status && !right(&w, s->image);
    drop(&w);
    hip.faults("");
    const char *name = failed();
    size_t after = available();
    const char *what = wrong                                   ? "another result"
                       : *message && !strstr(message, name)    ? "the message does not name it"
                       : status && !*name                      ? "a failure out of nothing"
                       : before != after && !is(name, undoing) ? "memory is left behind"
                                                               : NULL;
    if (what)
        printf("%s, %s: %s: %s\n", fault, name, what, message);
    s->bad += what != NULL;
    s->calls += *name != 0;
    for (int i = 0; i < FUNCTIONS; i++)
        s->told[i] += *message && !strcmp(functions[i], name);
    return name;
}

/* The first `most` calls of a function, as far as there are so many; it polls as often as it takes.
 */
static void sweep(struct sweep *s, int function, int most)
{
    const char *name = functions[function];
    int n = 1;
    if (!strcmp(name, "hipEventQuery") && most > 4)
        most = 4;
    for (; n <= most; n++) {
        char fault[128];
        bool fails = false;
        snprintf(fault, sizeof(fault), "fail:%s:%d", name, n);
        /* A wait for an event that is over makes no call, and how soon one is, is chance. */
        for (int i = 0; !fails && i < (n == 1 ? 30 : 1); i++)
            fails = *with_fault(s, fault) != 0;
        if (!fails)
            break;
    }
    if (n == 1 || (!s->told[function] && !is(name, undoing))) {
        printf("%s: %s\n", name, n == 1 ? "is not called" : "no failure is told");
        s->bad++;
    }
}

int main(int argc, char **argv)
{
    static char code[1 << 20], path[] = "/tmp/moehal-calls-XXXXXX";
    static float image[BYTES / 4];
    struct sweep s = {.code = MH_INIT(mh_module_params), .image = image};
    struct world w;
    int log = mkstemp(path);
    FILE *file = argc == 4 ? fopen(argv[2], "rb") : NULL;
    if (log < 0 || !file || setenv("MOEHAL_VIRTUAL_LOG", path, 1) || !find_runtime(argv[1]))
        return 2;
    log_of_runtime = fdopen(log, "r");
    unlink(path);
    s.code.image = code;
    s.code.size = fread(code, 1, sizeof(code), file);
    fclose(file);
    for (int i = 0; i < BYTES / 4; i++)
        image[i] = (float)(i % 37 - 18);

    if (run(&w, &s.code, image) || !right(&w, image) || *w.reason) {
        printf("without a fault: %s %s\n", mh_last_message(), w.reason);
        return 1;
    }
    drop(&w);
    for (int i = 0; i < FUNCTIONS; i++)
        if (!is(functions[i], texts))
            sweep(&s, i, atoi(argv[3]));
    if (run(&w, &s.code, image) || !right(&w, image)) {
        printf("afterwards: %s\n", mh_last_message());
        s.bad++;
    }
    drop(&w);
    printf("%d calls failed, %d wrong\n", s.calls, s.bad);
    fclose(log_of_runtime);
    return s.bad != 0;
}
