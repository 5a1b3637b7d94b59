/* bench_limits.c: read bandwidth and FMA rate of a device, sampled between what is measured against
 * them, because the speed of a machine's memory changes from minute to minute. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

/* The work of a sample is handed out in blocks. */
#define BLOCK (UINT64_C(1) << 20)
#define FMA_SECONDS 0.015

struct limits {
    char how[64];
    const char *best_read, *best_fma;
    /* the host's */
    const struct bench_kernels *kernels;
    struct bench_team *team;
    mh_buffer *buffer; /* what is read if the caller has no memory for that */
    struct bench_span *spans;
    uint64_t count, total;
    uint64_t cursor; /* where the next sample goes on */
    struct bench_opencl *opencl;
    struct bench_ops *ops;
    bool unknown;
};

/* ---- the host ---- */

struct reading {
    struct limits *limits;
    const struct bench_read *kernel;
    uint64_t begin, bytes;
    atomic_uint_fast64_t next, digest;
};

/* The memory at byte `at` of all spans, and how much of it there is, at most `most`. */
static const char *find(const struct limits *l, uint64_t at, uint64_t most, uint64_t *bytes)
{
    uint64_t i = 0;
    for (at %= l->total; at >= l->spans[i].bytes; i++)
        at -= l->spans[i].bytes;
    *bytes = l->spans[i].bytes - at < most ? l->spans[i].bytes - at : most;
    return (const char *)l->spans[i].memory + at;
}

static void read_blocks(void *context, uint32_t index)
{
    struct reading *r = context;
    uint64_t digest = 0, at, size;
    (void)index;
    while ((at = atomic_fetch_add(&r->next, BLOCK)) < r->bytes) {
        uint64_t end = r->bytes - at < BLOCK ? r->bytes : at + BLOCK;
        for (; at < end; at += size) {
            const char *memory = find(r->limits, r->begin + at, end - at, &size);
            /* Whole lines, as the weights' own kernels read them but for a few at the edges. */
            uint64_t skip = (64 - (uintptr_t)memory % 64) % 64;
            if (skip < size)
                digest ^= r->kernel->run(memory + skip, size - skip);
        }
    }
    atomic_fetch_xor(&r->digest, digest);
}

struct multiplying {
    const struct bench_fma *kernel;
    const float *memory;
    double until;
    atomic_uint_fast64_t calls;
    _Atomic float sum;
};

static void multiply(void *context, uint32_t index)
{
    struct multiplying *m = context;
    float sum = 0;
    uint64_t calls = 0;
    (void)index;
    do {
        for (int i = 0; i < 16; i++, calls++)
            sum += m->kernel->run(m->memory);
    } while (now_seconds() < m->until);
    atomic_fetch_add(&m->calls, calls);
    m->sum = sum;
}

static mh_status host_read(struct limits *l, uint64_t bytes, double *best)
{
    *best = 0;
    for (size_t i = 0; i < sizeof(l->kernels->read) / sizeof(l->kernels->read[0]); i++) {
        struct reading r = {l, &l->kernels->read[i], l->cursor, bytes, 0, 0};
        double rate = 1e-9 * (double)bytes / bench_team_run(l->team, read_blocks, &r);
        l->cursor = (l->cursor + bytes) % l->total;
        if (rate > *best)
            l->best_read = l->kernels->read[i].name, *best = rate;
    }
    return MH_OK;
}

static mh_status host_fma(struct limits *l, double *best)
{
    float memory[BENCH_FMA_FLOATS];
    for (int i = 0; i < BENCH_FMA_FLOATS; i++)
        memory[i] = 1e-3f * (float)(i % 13);
    *best = 0;
    for (size_t i = 0; i < sizeof(l->kernels->fma) / sizeof(l->kernels->fma[0]); i++) {
        const struct bench_fma *kernel = &l->kernels->fma[i];
        struct multiplying m = {kernel, memory, now_seconds() + FMA_SECONDS, 0, 0};
        double seconds = bench_team_run(l->team, multiply, &m);
        double rate = 1e-9 * kernel->flop * (double)m.calls / seconds;
        if (rate > *best)
            l->best_fma = kernel->name, *best = rate;
    }
    return MH_OK;
}

/* Memory of the kind that weights are in when they are not used in place. */
static mh_status own_memory(struct limits *l, mh_device *device)
{
    uint64_t bytes = UINT64_C(1) << 29; /* beyond any cache */
    mh_status status = mh_buffer_create(device, bytes, 0, &l->buffer);
    if (status)
        return status;
    l->spans[0] = (struct bench_span){mh_buffer_host(l->buffer), bytes};
    l->count = 1;
    memset(mh_buffer_host(l->buffer), 1, bytes); /* untouched pages are all one page of zeros */
    return MH_OK;
}

static mh_status open_host(struct limits *l, mh_device *device, const struct bench_span *spans,
                           uint64_t count, uint32_t threads)
{
    l->kernels = bench_kernels();
    l->team = bench_team_create(threads);
    l->spans = calloc(count ? count : 1, sizeof(*l->spans));
    if (!l->team || !l->spans)
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: %u threads could not be started", threads);
    for (uint64_t i = 0; i < count; i++)
        if (spans[i].bytes)
            l->spans[l->count++] = spans[i];
    mh_status status = l->count ? MH_OK : own_memory(l, device);
    for (uint64_t i = 0; i < l->count; i++)
        l->total += l->spans[i].bytes;
    snprintf(l->how, sizeof(l->how), "%s kernels, %u thread%s", l->kernels->isa, threads,
             threads > 1 ? "s" : "");
    return status;
}

/* ---- either ---- */

mh_status limits_open(mh_device *device, const struct bench_span *spans, uint64_t count,
                      uint32_t threads, struct limits **out)
{
    struct limits *l = calloc(1, sizeof(*l));
    *out = l;
    if (l)
        l->best_read = l->best_fma = "none";
    else
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for limits");
    if (!strncmp(mh_device_uri(device), "host:", 5))
        return open_host(l, device, spans, count, threads);
    if (!strncmp(mh_device_uri(device), "opencl:", 7)) {
        snprintf(l->how, sizeof(l->how), "OpenCL kernels made for that");
        return bench_opencl_open(device, &l->opencl);
    }
    mh_device_info info = MH_INIT(mh_device_info);
    mh_status status = mh_device_get_info(device, &info);
    if (!status && info.flags & MH_DEVICE_IS_VIRTUAL) {
        snprintf(l->how, sizeof(l->how), "nothing: a virtual device has no speed");
        l->unknown = true;
        return MH_OK;
    }
    if (!status)
        status = bench_ops_open(device, &l->ops);
    l->unknown = status == MH_UNSUPPORTED;
    snprintf(l->how, sizeof(l->how), "%s",
             l->unknown ? "nothing: this device has no linear op" : "ops of the device");
    return l->unknown ? MH_OK : status;
}

void limits_close(struct limits *l)
{
    if (!l)
        return;
    bench_team_free(l->team);
    mh_buffer_release(l->buffer);
    bench_opencl_close(l->opencl);
    bench_ops_close(l->ops);
    free(l->spans);
    free(l);
}

mh_status limits_read(struct limits *l, uint64_t bytes, double *GBps)
{
    *GBps = 0;
    if (l->unknown)
        return MH_OK;
    return l->opencl ? bench_opencl_read(l->opencl, GBps, &l->best_read)
           : l->ops  ? bench_ops_read(l->ops, GBps, &l->best_read)
                     : host_read(l, bytes, GBps);
}

mh_status limits_fma(struct limits *l, double *GFLOPS)
{
    *GFLOPS = 0;
    if (l->unknown)
        return MH_OK;
    return l->opencl ? bench_opencl_fma(l->opencl, GFLOPS, &l->best_fma)
           : l->ops  ? bench_ops_fma(l->ops, GFLOPS, &l->best_fma)
                     : host_fma(l, GFLOPS);
}

bool limits_known(const struct limits *l)
{
    return !l->unknown;
}

const char *limits_how(const struct limits *l)
{
    return l->how;
}

const char *limits_best_read(const struct limits *l)
{
    return l->best_read;
}

const char *limits_best_fma(const struct limits *l)
{
    return l->best_fma;
}
