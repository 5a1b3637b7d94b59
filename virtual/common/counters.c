/* Counters of devices, kernels and places: kept under one lock, found by name. */
#include "counters.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool device_ok(int device)
{
    return device >= 0 && device < VC_MAX_DEVICES;
}

void vc_count_add(struct vc_counters *c, unsigned device, unsigned counter, uint64_t n)
{
    pthread_mutex_lock(&c->lock);
    c->device[device].value[counter] += n;
    pthread_mutex_unlock(&c->lock);
}

void vc_count_most(struct vc_counters *c, unsigned device, unsigned counter, uint64_t n)
{
    pthread_mutex_lock(&c->lock);
    uint64_t *value = &c->device[device].value[counter];
    *value = n > *value ? n : *value;
    pthread_mutex_unlock(&c->lock);
}

static struct vc_kernel_counts *find(const struct vc_device_counts *d, const char *name)
{
    for (size_t i = 0; i < d->kernels; i++)
        if (!strcmp(d->kernel[i].name, name))
            return &d->kernel[i];
    return NULL;
}

static struct vc_kernel_counts *find_or_make(struct vc_device_counts *d, const char *name)
{
    struct vc_kernel_counts *k = find(d, name);
    if (k)
        return k;
    struct vc_kernel_counts *grown = realloc(d->kernel, (d->kernels + 1) * sizeof *grown);
    if (!grown)
        return NULL;
    d->kernel = grown;
    char *copy = strdup(name);
    if (!copy)
        return NULL;
    grown[d->kernels] = (struct vc_kernel_counts){.name = copy};
    return &grown[d->kernels++];
}

static void add_place(struct vc_kernel_counts *k, const struct vc_place *p)
{
    size_t low = 0, high = k->places;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (k->place[middle].at < p->at)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == k->places || k->place[low].at != p->at) {
        struct vc_place *grown = realloc(k->place, (k->places + 1) * sizeof *grown);
        if (!grown)
            return;
        k->place = grown;
        memmove(grown + low + 1, grown + low, (k->places - low) * sizeof *grown);
        grown[low] = (struct vc_place){.at = p->at};
        memcpy(grown[low].source, p->source, sizeof p->source);
        k->places++;
    }
    for (int i = 0; i < VC_COLUMNS; i++)
        k->place[low].value[i] += p->value[i];
}

void vc_count_launch(struct vc_counters *c, unsigned device, const char *kernel,
                     const uint64_t *value, const struct vc_place *place, size_t places)
{
    struct vc_device_counts *d = &c->device[device];
    pthread_mutex_lock(&c->lock);
    struct vc_kernel_counts *k = find_or_make(d, kernel);
    for (unsigned i = c->own; i < c->count; i++) {
        d->value[i] += value[i - c->own];
        if (k)
            k->value[i] += value[i - c->own];
    }
    if (k) {
        k->launches++;
        for (size_t i = 0; place && i < places; i++)
            add_place(k, &place[i]);
    }
    pthread_mutex_unlock(&c->lock);
}

int vc_counter_at(const struct vc_counters *c, unsigned index, const char **name,
                  const char **meaning)
{
    if (index >= c->count)
        return -1;
    *name = c->name[index].name;
    *meaning = c->name[index].meaning;
    return 0;
}

int vc_counter(struct vc_counters *c, int device, const char *kernel, const char *name,
               uint64_t *value)
{
    if (!device_ok(device) || !name || !value)
        return -1;
    pthread_mutex_lock(&c->lock);
    const struct vc_device_counts *d = &c->device[device];
    const struct vc_kernel_counts *k = kernel ? find(d, kernel) : NULL;
    const uint64_t *values = k ? k->value : kernel ? NULL : d->value;
    int result = -1;
    if (k && !strcmp(name, "launches")) {
        *value = k->launches;
        result = 0;
    }
    for (unsigned i = kernel ? c->own : 0; values && result && i < c->count; i++)
        if (!strcmp(c->name[i].name, name)) {
            *value = values[i];
            result = 0;
        }
    pthread_mutex_unlock(&c->lock);
    return result;
}

int vc_counters_reset(struct vc_counters *c, int device)
{
    if (!device_ok(device))
        return -1;
    pthread_mutex_lock(&c->lock);
    struct vc_device_counts *d = &c->device[device];
    for (size_t i = 0; i < d->kernels; i++) {
        free(d->kernel[i].name);
        free(d->kernel[i].place);
    }
    free(d->kernel);
    *d = (struct vc_device_counts){0};
    pthread_mutex_unlock(&c->lock);
    return 0;
}

int vc_kernel_at(struct vc_counters *c, int device, unsigned index, const char **kernel,
                 uint64_t *launches)
{
    int result = -1;
    if (!device_ok(device))
        return -1;
    pthread_mutex_lock(&c->lock);
    const struct vc_device_counts *d = &c->device[device];
    if (index < d->kernels) {
        *kernel = d->kernel[index].name;
        if (launches)
            *launches = d->kernel[index].launches;
        result = 0;
    }
    pthread_mutex_unlock(&c->lock);
    return result;
}

char *vc_kernel_places(struct vc_counters *c, int device, const char *kernel)
{
    char *text = NULL;
    size_t size;
    if (!device_ok(device) || !kernel)
        return NULL;
    pthread_mutex_lock(&c->lock);
    const struct vc_kernel_counts *k = find(&c->device[device], kernel);
    FILE *f = k && k->places ? open_memstream(&text, &size) : NULL;
    bool sources = false;
    for (size_t p = 0; f && p < k->places; p++)
        sources |= k->place[p].source[0] != 0;
    for (int i = 0; f && i <= VC_COLUMNS; i++)
        fprintf(f, "%*s%s",
                i == 0   ? 8
                : i <= 3 ? 14
                         : 12,
                c->column[i],
                i < VC_COLUMNS ? " "
                : sources      ? " source\n"
                               : "\n");
    for (size_t p = 0; f && p < k->places; p++) {
        fprintf(f, c->hexadecimal ? "%8" PRIx64 : "%8" PRIu64, k->place[p].at);
        for (int i = 0; i < VC_COLUMNS; i++)
            fprintf(f, " %*" PRIu64, i < 3 ? 14 : 12, k->place[p].value[i]);
        fprintf(f, "%s%s\n", k->place[p].source[0] ? " " : "", k->place[p].source);
    }
    if (f)
        fclose(f);
    pthread_mutex_unlock(&c->lock);
    return text;
}
