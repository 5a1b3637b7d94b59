/* bench_counters.c: what a device counts of its own accord, around a piece of work. */
#include "bench.h"

static uint32_t read_all(mh_device *device, struct bench_counters *c, bool first)
{
    mh_device_counter counter = MH_INIT(mh_device_counter);
    uint32_t i = 0;
    for (; i < BENCH_COUNTERS && !mh_device_read_counter(device, i, &counter); i++) {
        c->name[i] = counter.name;
        c->value[i] = first ? counter.value : counter.value - c->value[i];
    }
    return i;
}

void bench_counters_begin(mh_device *device, struct bench_counters *c)
{
    c->count = read_all(device, c, true);
}

void bench_counters_end(mh_device *device, struct bench_counters *c)
{
    c->count = read_all(device, c, false);
}

json_t *bench_counters_json(const struct bench_counters *c)
{
    json_t *object = json_object();
    for (uint32_t i = 0; i < c->count; i++)
        json_object_set_new(object, c->name[i], json_integer((json_int_t)c->value[i]));
    return object;
}

void bench_counters_print(const struct bench_options *o, const struct bench_counters *c,
                          const char *what)
{
    if (o->counters && !c->count)
        printf("counters: this device counts nothing\n");
    if (c->count)
        printf("counters %s:\n", what);
    for (uint32_t i = 0; i < c->count; i++)
        printf("  %-32s %14llu\n", c->name[i], (unsigned long long)c->value[i]);
}
