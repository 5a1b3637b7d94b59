#include "faults.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FAULTS = 32, ANY_DEVICE = -1 };

enum kind { FAIL, OOM, ECC, LOST, HANG };

struct fault {
    enum kind kind;
    char name[64];
    uint64_t n; /* counts down to the call that fails; bytes for OOM */
    int code, device;
};

struct vc_faults {
    pthread_mutex_t lock;
    _Atomic bool any;
    struct fault list[MAX_FAULTS];
    int count;
};

struct vc_faults *vc_faults_create(void)
{
    struct vc_faults *f = calloc(1, sizeof *f);
    if (f)
        pthread_mutex_init(&f->lock, NULL);
    return f;
}

void vc_faults_destroy(struct vc_faults *f)
{
    if (!f)
        return;
    pthread_mutex_destroy(&f->lock);
    free(f);
}

bool vc_parse_bytes(const char *text, const char *end, uint64_t *value)
{
    char *rest;
    if (text >= end || *text < '0' || *text > '9')
        return false;
    unsigned long long n = strtoull(text, &rest, 10);
    int shift = 0;
    if (rest < end) {
        const char *unit = strchr("KkMmGgTt", *rest);
        if (!unit || !*unit)
            return false;
        shift = 10 * (int)((unit - "KkMmGgTt") / 2 + 1);
        rest++;
    }
    if (rest != end || n > (UINT64_MAX >> shift) || (shift && n >> (63 - shift)))
        return false;
    *value = (uint64_t)n << shift;
    return true;
}

struct field {
    const char *at, *end;
};

static struct field next_field(const char **at, const char *end)
{
    struct field f = {*at, *at};
    while (f.end < end && *f.end != ':')
        f.end++;
    *at = f.end < end ? f.end + 1 : end;
    return f;
}

static bool is(struct field f, const char *word)
{
    return (size_t)(f.end - f.at) == strlen(word) && !memcmp(f.at, word, strlen(word));
}

static bool parse_one(const char *at, const char *end, struct fault *out)
{
    static const char *const words[] = {"fail", "oom", "ecc", "lost", "hang"};
    uint64_t value;
    struct field word = next_field(&at, end);
    int kind = 0;
    while (kind < 5 && !is(word, words[kind]))
        kind++;
    if (kind == 5)
        return false;
    *out = (struct fault){.kind = (enum kind)kind, .code = -1, .device = ANY_DEVICE};
    if (kind == FAIL) {
        struct field name = next_field(&at, end);
        size_t n = (size_t)(name.end - name.at);
        if (!n || n >= sizeof out->name)
            return false;
        memcpy(out->name, name.at, n);
    }
    struct field number = next_field(&at, end);
    if (!vc_parse_bytes(number.at, number.end, &out->n) || (kind != OOM && !out->n))
        return false;
    if (at < end) { /* a result code, or a device */
        struct field last = next_field(&at, end);
        if ((kind != FAIL && kind != OOM) || at < end ||
            !vc_parse_bytes(last.at, last.end, &value) || value > 100000)
            return false;
        *(kind == FAIL ? &out->code : &out->device) = (int)value;
    }
    return true;
}

bool vc_faults_set(struct vc_faults *f, const char *list, char why[static 200])
{
    struct fault parsed[MAX_FAULTS];
    int count = 0;
    for (const char *at = list ? list : ""; *at;) {
        const char *end = strchrnul(at, ',');
        if (count == MAX_FAULTS) {
            snprintf(why, 200, "more than %d faults", MAX_FAULTS);
            return false;
        }
        if (!parse_one(at, end, &parsed[count++])) {
            snprintf(why, 200,
                     "no such fault: %.*s (fail:NAME:N[:CODE], oom:BYTES[:DEVICE], "
                     "ecc:N, lost:N, hang:N)",
                     (int)(end - at > 60 ? 60 : end - at), at);
            return false;
        }
        at = *end ? end + 1 : end;
    }
    pthread_mutex_lock(&f->lock);
    memcpy(f->list, parsed, sizeof parsed[0] * (size_t)count);
    f->count = count;
    f->any = count > 0;
    pthread_mutex_unlock(&f->lock);
    return true;
}

bool vc_faults_call(struct vc_faults *f, const char *name, int *code)
{
    bool fails = false;
    if (!f->any)
        return false;
    pthread_mutex_lock(&f->lock);
    for (int i = 0; i < f->count; i++) {
        struct fault *x = &f->list[i];
        if (x->kind != FAIL || !x->n || strcmp(x->name, name))
            continue;
        if (!--x->n) {
            *code = x->code;
            fails = true;
        }
    }
    pthread_mutex_unlock(&f->lock);
    return fails;
}

enum vc_launch_fault vc_faults_launch(struct vc_faults *f)
{
    enum vc_launch_fault result = VC_LAUNCH_FINE;
    if (!f->any)
        return result;
    pthread_mutex_lock(&f->lock);
    for (int i = 0; i < f->count; i++) {
        struct fault *x = &f->list[i];
        if (x->kind < ECC || !x->n)
            continue;
        x->n--;
        if (x->n)
            continue;
        result = x->kind == ECC ? VC_LAUNCH_ECC : x->kind == LOST ? VC_LAUNCH_LOST : VC_LAUNCH_HANG;
    }
    pthread_mutex_unlock(&f->lock);
    return result;
}

uint64_t vc_faults_memory(struct vc_faults *f, unsigned device)
{
    uint64_t limit = UINT64_MAX;
    if (!f->any)
        return limit;
    pthread_mutex_lock(&f->lock);
    for (int i = 0; i < f->count; i++) {
        const struct fault *x = &f->list[i];
        if (x->kind == OOM && (x->device == ANY_DEVICE || x->device == (int)device) && x->n < limit)
            limit = x->n;
    }
    pthread_mutex_unlock(&f->lock);
    return limit;
}
