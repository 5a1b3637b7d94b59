#include "builtin.h"

#include <stdio.h>

enum { TEXT_LIMIT = 8192 };

/* A byte or string of any space, checked. */
static uint64_t read_bytes(struct vn_warp *w, uint64_t address, uint32_t size, uint32_t lane)
{
    enum vn_space space;
    uint64_t v = 0;
    memcpy(&v, vn_generic(w, address, size, 0, lane, &space), size);
    return v;
}

static size_t read_string(struct vn_warp *w, uint64_t address, uint32_t lane, char *out,
                          size_t size)
{
    size_t n = 0;
    for (; n + 1 < size; n++) {
        out[n] = (char)read_bytes(w, address + n, 1, lane);
        if (!out[n])
            return n;
    }
    out[n] = 0;
    return n;
}

struct text {
    char *at;
    size_t used, size;
};

static void append(struct text *t, const char *bytes, size_t n)
{
    if (n > t->size - t->used)
        n = t->size - t->used;
    memcpy(t->at + t->used, bytes, n);
    t->used += n;
}

/* One conversion of the format, its flags copied to spec without a length modifier. */
static const char *conversion(const char *f, char *spec, size_t size, int *longs, int *stars)
{
    size_t n = 0;
    *longs = *stars = 0;
    for (; *f && !strchr("diouxXeEfFgGaAcspn%", *f); f++) {
        if (*f == 'l' || *f == 'j' || *f == 'z' || *f == 't')
            ++*longs;
        else if (*f == 'h')
            *longs -= 4;
        else if (n + 8 < size) {
            spec[n++] = *f;
            *stars += *f == '*';
        }
    }
    spec[n] = 0;
    return f;
}

/* The arguments lie one after the other, each at its natural alignment: int 4, long and double 8.
 */
static uint64_t argument(struct vn_warp *w, uint64_t *at, uint32_t size, uint32_t lane)
{
    *at = (*at + size - 1) & ~(uint64_t)(size - 1);
    uint64_t v = read_bytes(w, *at, size, lane);
    *at += size;
    return v;
}

static uint32_t format(struct vn_warp *w, uint64_t format_at, uint64_t list, uint32_t lane,
                       struct text *out)
{
    char pattern[1024], spec[64], piece[1400];
    uint32_t count = 0;
    read_string(w, format_at, lane, pattern, sizeof pattern);
    for (const char *f = pattern; *f;) {
        if (*f != '%') {
            size_t n = strcspn(f, "%");
            append(out, f, n);
            f += n;
            continue;
        }
        if (f[1] == '%') {
            append(out, "%", 1);
            f += 2;
            continue;
        }
        int longs, stars, width[2] = {0, 0};
        spec[0] = '%';
        f = conversion(f + 1, spec + 1, sizeof spec - 1, &longs, &stars);
        if (!*f)
            break;
        for (int k = 0; k < stars && k < 2; k++)
            width[k] = (int)argument(w, &list, 4, lane);
        size_t n = strlen(spec);
        char c = *f++;
        int len = 0;
        count++;
#define PRINT(value)                                                                               \
    (stars == 0   ? snprintf(piece, sizeof piece, spec, value)                                     \
     : stars == 1 ? snprintf(piece, sizeof piece, spec, width[0], value)                           \
                  : snprintf(piece, sizeof piece, spec, width[0], width[1], value))
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        if (strchr("diouxX", c)) {
            uint64_t v = argument(w, &list, longs > 0 ? 8 : 4, lane);
            if (longs <= 0 && (c == 'd' || c == 'i'))
                v = longs == -8   ? (uint64_t)(int8_t)v
                    : longs == -4 ? (uint64_t)(int16_t)v
                                  : (uint64_t)(int32_t)v;
            memcpy(spec + n, "ll", 2);
            spec[n + 2] = c;
            spec[n + 3] = 0;
            len = PRINT((long long)v);
        } else if (strchr("eEfFgGaA", c)) {
            uint64_t v = argument(w, &list, 8, lane);
            double d;
            memcpy(&d, &v, 8);
            spec[n] = c;
            spec[n + 1] = 0;
            len = PRINT(d);
        } else if (c == 'c') {
            spec[n] = c;
            spec[n + 1] = 0;
            len = PRINT((int)argument(w, &list, 4, lane));
        } else if (c == 's') {
            char string[1024];
            uint64_t at = argument(w, &list, 8, lane);
            read_string(w, at, lane, string, sizeof string);
            spec[n] = c;
            spec[n + 1] = 0;
            len = PRINT(string);
        } else if (c == 'p') {
            uint64_t v = argument(w, &list, 8, lane);
            spec[n] = c;
            spec[n + 1] = 0;
            len = PRINT((void *)(uintptr_t)v);
        } else { /* %n is not done */
            argument(w, &list, 8, lane);
        }
#pragma GCC diagnostic pop
        if (len > 0)
            append(out, piece, (size_t)len < sizeof piece ? (size_t)len : sizeof piece - 1);
    }
    return count;
}

static uint64_t chunk(struct vn_warp *w, const struct vn_insn *insn, uint32_t k, uint32_t lane)
{
    uint32_t code = w->pool[insn->pool + insn->mode + k];
    const void *p = vn_at(w, code);
    return (code & VN_FILE_MASK) == VN_R32 ? ((const uint32_t *)p)[lane]
                                           : ((const uint64_t *)p)[lane];
}

static void result(struct vn_warp *w, const struct vn_insn *insn, uint32_t lane, uint64_t v)
{
    if (!insn->mode)
        return;
    uint32_t code = w->pool[insn->pool];
    void *p = vn_at(w, code);
    if ((code & VN_FILE_MASK) == VN_R32)
        ((uint32_t *)p)[lane] = (uint32_t)v;
    else
        ((uint64_t *)p)[lane] = v;
}

static void print(struct vn_warp *w, const struct vn_insn *insn, uint32_t lane)
{
    struct vn_launch_state *s = w->launch;
    char bytes[TEXT_LIMIT];
    struct text text = {bytes, 0, sizeof bytes};
    uint64_t list = chunk(w, insn, 1, lane);
    uint32_t n = format(w, chunk(w, insn, 0, lane), list, lane, &text);
    result(w, insn, lane, n);
    pthread_mutex_lock(&s->lock);
    if (s->launch->sinks.print)
        s->launch->sinks.print(s->launch->sinks.context, bytes, text.used);
    pthread_mutex_unlock(&s->lock);
}

static void assert_failed(struct vn_warp *w, const struct vn_insn *insn, uint32_t mask)
{
    uint32_t lane = (uint32_t)__builtin_ctz(mask);
    char message[256], file[256], function[256];
    read_string(w, chunk(w, insn, 0, lane), lane, message, sizeof message);
    read_string(w, chunk(w, insn, 1, lane), lane, file, sizeof file);
    read_string(w, chunk(w, insn, 3, lane), lane, function, sizeof function);
    uint32_t line = (uint32_t)chunk(w, insn, 2, lane);
    const uint32_t *b = w->block->id;
    char text[900];
    const uint32_t *tid[3] = {(uint32_t *)(void *)w->specials[VN_TID_X],
                              (uint32_t *)(void *)w->specials[VN_TID_Y],
                              (uint32_t *)(void *)w->specials[VN_TID_Z]};
    int n = snprintf(text, sizeof text,
                     "%s:%u: %s: block: [%u,%u,%u], thread: [%u,%u,%u] Assertion `%s` failed.\n",
                     file, line, function, b[0], b[1], b[2], tid[0][lane], tid[1][lane],
                     tid[2][lane], message);
    struct vn_launch_state *s = w->launch;
    pthread_mutex_lock(&s->lock);
    if (s->launch->sinks.print)
        s->launch->sinks.print(s->launch->sinks.context, text,
                               (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
    pthread_mutex_unlock(&s->lock);
    vn_fault(w, VN_ASSERT, "assert", NULL, mask, "assertion `%s` failed at %s:%u", message, file,
             line);
}

static uint64_t allocate(struct vn_warp *w, uint64_t size)
{
    const struct vn_launch *l = w->launch->launch;
    struct vn_heap *heap = l->heap;
    if (!heap || !size || size > heap->limit)
        return 0;
    if (atomic_fetch_add(&heap->used, size) + size > heap->limit) {
        atomic_fetch_sub(&heap->used, size);
        return 0;
    }
    struct vc_alloc_info info = {.bytes = size,
                                 .align = 16,
                                 .device = l->device,
                                 .kind = VC_HEAP,
                                 .access = 1u << l->device,
                                 .owner = heap};
    uint64_t at = vc_alloc(l->map, &info);
    if (!at)
        atomic_fetch_sub(&heap->used, size);
    return at;
}

static void release(struct vn_warp *w, uint64_t at, uint32_t lane)
{
    const struct vn_launch *l = w->launch->launch;
    if (!at)
        return;
    const struct vc_alloc *a = vc_find(l->map, at);
    struct vn_access access = {"global", "free", at, 0, lane};
    if (!a || a->kind != VC_HEAP || a->base != at)
        vn_fault(w, VN_ILLEGAL_ADDRESS, "invalid", &access, 1u << lane,
                 "free of what malloc did not return");
    uint64_t size = a->size;
    if (!a->live || !vc_free(l->map, at))
        vn_fault(w, VN_ILLEGAL_ADDRESS, "use-after-free", &access, 1u << lane, "freed twice");
    if (l->heap)
        atomic_fetch_sub(&l->heap->used, size);
}

void vn_builtin(struct vn_warp *w, const struct vn_insn *insn, uint32_t mask, uint32_t builtin)
{
    static const uint8_t arguments[] = {0, 2, 4, 1, 1};
    if (insn->q < arguments[builtin])
        vn_fault(w, VN_INVALID_PC, "invalid", NULL, mask,
                 "a function of the device runtime is called with %u arguments", insn->q);
    if (builtin == VN_BUILTIN_ASSERTFAIL)
        assert_failed(w, insn, mask);
    for (uint32_t m = mask; m; m &= m - 1) {
        uint32_t lane = (uint32_t)__builtin_ctz(m);
        if (builtin == VN_BUILTIN_VPRINTF)
            print(w, insn, lane);
        else if (builtin == VN_BUILTIN_MALLOC)
            result(w, insn, lane, allocate(w, chunk(w, insn, 0, lane)));
        else
            release(w, chunk(w, insn, 0, lane), lane);
    }
}
