/* What is said of a kernel's mistakes. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "exec.h"

/* The fp8 and half conversions that no compiler makes vectors of live in convert.c. */

uint64_t va_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t pc_of(const struct va_wave *w, const struct va_insn *i)
{
    return w->text + (uint64_t)(i - w->insns) * 4;
}

/* "kernel: pc 0x... (text + 0x40), v_add_f32 ...: what" */
static void compose(char *text, size_t size, struct va_wave *w, const struct va_insn *i, int lane,
                    const char *what)
{
    char insn[160], who[100] = "";
    va_print(i, insn, sizeof insn);
    const struct va_group *g = w->group;
    if (lane >= 0)
        snprintf(who, sizeof who, " (workgroup %u %u %u, wave %u, lane %d)", g->id[0], g->id[1],
                 g->id[2], w->index, lane);
    else
        snprintf(who, sizeof who, " (workgroup %u %u %u, wave %u)", g->id[0], g->id[1], g->id[2],
                 w->index);
    snprintf(text, size, "kernel %s, pc 0x%llx (text + 0x%llx), %s: %s%s",
             w->launch->launch->kernel->name ? w->launch->launch->kernel->name : "?",
             (unsigned long long)pc_of(w, i), (unsigned long long)(i - w->insns) * 4, insn, what,
             who);
}

/* Whether this one was not reported before and may be. */
static bool first_time(struct va_launch_state *s, const char *check, const struct va_insn *i)
{
    unsigned most = s->launch->max_reports ? s->launch->max_reports : 100;
    for (uint32_t k = 0; k < s->site_count; k++)
        if (s->sites[k].insn == i && s->sites[k].check == check)
            return false;
    if (s->site_count < sizeof s->sites / sizeof s->sites[0])
        s->sites[s->site_count++] = (struct va_site){check, i};
    return s->report_count++ < most;
}

static void report(struct va_wave *w, const char *check, const struct va_insn *i, int lane,
                   uint64_t address, uint64_t bytes, const struct va_insn *other, const char *text)
{
    struct va_launch_state *s = w->launch;
    const struct va_launch *l = s->launch;
    const struct va_group *g = w->group;
    uint32_t thread = w->index * VA_LANES + (lane > 0 ? (uint32_t)lane : 0);
    uint32_t x = l->workgroup[0] ? l->workgroup[0] : 1, y = l->workgroup[1] ? l->workgroup[1] : 1;
    struct vc_finding f = {
        .check = check,
        .kernel = l->kernel->name,
        .file = "code object",
        .line = (uint32_t)(i - w->insns) * 4,
        .code_line = (uint32_t)(i - w->insns) * 4,
        .grid = {l->grid[0], l->grid[1], l->grid[2]},
        .block = {g->id[0], g->id[1], g->id[2]},
        .thread = {thread % x, thread / x % y, thread / x / y},
        .lanes = lane >= 0 && lane < 32 ? 1u << lane : 0,
        .address = address,
        .bytes = bytes,
        .device = l->device,
        .text = text,
    };
    if (other) {
        f.other_file = "code object";
        f.other_line = f.other_code_line = (uint32_t)(other - w->insns) * 4;
    }
    if (l->sinks.report)
        l->sinks.report(l->sinks.context, &f);
}

void va_find(struct va_wave *w, const char *check, int lane, uint64_t address, uint64_t bytes,
             const struct va_insn *other, const char *format, ...)
{
    struct va_launch_state *s = w->launch;
    char what[300], text[700];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    pthread_mutex_lock(&s->lock);
    if (first_time(s, check, w->now)) {
        compose(text, sizeof text, w, w->now, lane, what);
        report(w, check, w->now, lane, address, bytes, other, text);
    }
    pthread_mutex_unlock(&s->lock);
}

void va_fault(struct va_wave *w, enum va_status status, const char *check, int lane,
              uint64_t address, uint64_t bytes, const char *format, ...)
{
    struct va_launch_state *s = w->launch;
    char what[300], text[700];
    int ok = VA_OK;
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    pthread_mutex_lock(&s->lock);
    if (atomic_compare_exchange_strong(&s->status, &ok, (int)status)) {
        compose(text, sizeof text, w, w->now, lane, what);
        s->fault.pc = pc_of(w, w->now);
        snprintf(s->fault.text, sizeof s->fault.text, "%.*s", (int)sizeof s->fault.text - 1, text);
        report(w, check, w->now, lane, address, bytes, NULL, text);
    }
    pthread_mutex_unlock(&s->lock);
    longjmp(w->worker->fail, 1);
}

void va_not_implemented(struct va_wave *w, const struct va_insn *i)
{
    const char *why = "";
    struct va_insn again;
    w->now = i;
    va_decode(i->raw, 3, &again, &why);
    va_fault(w, VA_ILLEGAL_INSTRUCTION, "instruction", -1, 0, 0, "%s",
             again.op == VA_NO_OP ? why : "not implemented by the virtual device");
}
