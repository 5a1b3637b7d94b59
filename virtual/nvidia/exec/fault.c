/* What went wrong, where, and next to what. */
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "../../common/report.h"
#include "exec.h"

uint64_t vn_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The source line of an instruction, if .loc told. */
static void locate(const struct vn_module *m, const struct vn_insn *i, const char **file,
                   uint32_t *line, uint32_t *code_line)
{
    *code_line = i->line;
    const struct vn_source *s = &m->sources[i->source];
    *file = s->file < m->file_count ? m->files[s->file] : NULL;
    *line = *file ? s->line : 0;
}

static bool is_header(const char *file)
{
    const char *dot = strrchr(file, '.');
    return dot && (!strcmp(dot, ".h") || !strcmp(dot, ".hpp") || !strcmp(dot, ".cuh"));
}

static void place_of(uint64_t linear, const uint32_t size[3], uint32_t place[3])
{
    place[0] = (uint32_t)(linear % size[0]);
    place[1] = (uint32_t)(linear / size[0] % size[1]);
    place[2] = (uint32_t)(linear / ((uint64_t)size[0] * size[1]));
}

/* One report a place and check: the rest are repetitions. */
static bool seen_before(struct vn_launch_state *s, const char *check, uint32_t line)
{
    for (uint32_t i = 0; i < s->site_count; i++) {
        if (s->sites[i].line == line && s->sites[i].check == check)
            return true;
    }
    uint32_t most = sizeof s->sites / sizeof *s->sites;
    if (s->site_count < most)
        s->sites[s->site_count++] = (struct vn_site){.check = check, .line = line};
    return false;
}

static void send(struct vn_warp *w, const char *check, const struct vn_access *access,
                 uint32_t lanes, const struct vr_party *other, const char *text)
{
    struct vn_launch_state *s = w->launch;
    const struct vn_launch *l = s->launch;
    const struct vn_module *m = s->image->module;
    const struct vn_insn *insn = w->next - 1;
    uint32_t lane = access ? access->lane : lanes ? (uint32_t)__builtin_ctz(lanes) : 0;
    struct vc_finding f = {
        .check = check, .kernel = s->code->info.name, .lanes = lanes, .device = l->device};
    locate(m, insn, &f.file, &f.line, &f.code_line);
    /* In a helper without lines, or of a header: the line that called it. */
    for (uint32_t at = w->frame; (!f.file || is_header(f.file)) && w->frames[at].depth;
         at = w->frames[at].parent) {
        const char *file;
        uint32_t line, ignored;
        locate(m, w->frames[at].ret - 1, &file, &line, &ignored);
        if (file && !is_header(file)) {
            f.file = file;
            f.line = line;
        }
    }
    memcpy(f.grid, l->grid, sizeof f.grid);
    memcpy(f.block, w->block->id, sizeof f.block);
    place_of(w->index * 32 + lane, l->block, f.thread);
    if (access) {
        f.address = access->address;
        f.bytes = access->size;
    }
    if (other && other->insn && (other->code || !other->apart)) {
        const uint32_t *grid = other->apart ? other->grid : l->grid;
        const struct vn_image *image = other->apart ? other->code : s->image;
        locate(image->module, other->insn, &f.other_file, &f.other_line, &f.other_code_line);
        place_of(other->block, grid, f.other_block);
        place_of(other->warp * 32 + other->lane, other->apart ? other->size : l->block,
                 f.other_thread);
        f.other_kernel = other->apart ? other->kernel : NULL;
        f.other_device = other->device;
    }
    f.text = text;
    pthread_mutex_lock(&s->lock);
    uint64_t most = l->max_reports ? l->max_reports : 100;
    if (!seen_before(s, check, f.code_line) && s->report_count < most) {
        s->report_count++;
        if (l->sinks.report)
            l->sinks.report(l->sinks.context, &f);
    }
    pthread_mutex_unlock(&s->lock);
}

static void nearest(struct vn_warp *w, const struct vn_access *access, char *text, size_t size)
{
    text[0] = 0;
    if (access && (!strcmp(access->space, "global")))
        vc_describe(w->launch->launch->map, access->address, text, size);
    else if (access && !strcmp(access->space, "shared"))
        snprintf(text, size, "the block has %u bytes of shared memory", w->launch->shared_size);
    else if (access && !strcmp(access->space, "local"))
        snprintf(text, size, "the thread has %u bytes of local memory", w->launch->local_size);
}

static void compose(char *out, size_t size, struct vn_warp *w, const struct vn_access *access,
                    const char *format, va_list list)
{
    size_t n = (size_t)vsnprintf(out, size, format, list);
    if (!access || n >= size)
        return;
    char near[240];
    nearest(w, access, near, sizeof near);
    snprintf(out + n, size - n, ": %s %s of %llu bytes at 0x%llx%s%s", access->space, access->kind,
             (unsigned long long)access->size, (unsigned long long)access->address,
             near[0] ? ", " : "", near);
}

void vn_fault(struct vn_warp *w, enum vn_status status, const char *check,
              const struct vn_access *access, uint32_t lanes, const char *format, ...)
{
    char text[640];
    va_list list;
    va_start(list, format);
    compose(text, sizeof text, w, access, format, list);
    va_end(list);
    send(w, check, access, lanes, NULL, text);
    int ok = VN_OK;
    atomic_compare_exchange_strong(&w->launch->status, &ok, (int)status);
    longjmp(w->worker->fail, 1);
}

void vn_find_report(struct vn_warp *w, const char *check, const struct vn_access *access,
                    uint32_t lanes, const struct vn_insn *other, const struct vn_warp *other_warp,
                    int other_lane, const char *format, ...)
{
    char text[640];
    va_list list;
    va_start(list, format);
    compose(text, sizeof text, w, access, format, list);
    va_end(list);
    struct vr_party party = {.insn = other};
    if (other_warp) {
        party.block = other_warp->block->linear;
        party.warp = other_warp->index;
        party.lane = other_lane > 0 ? (uint32_t)other_lane : 0;
    }
    send(w, check, access, lanes, other ? &party : NULL, text);
}

static void race_text(char *out, size_t size, struct vn_warp *w, const struct vn_access *access,
                      const char *format, ...)
{
    va_list list;
    va_start(list, format);
    compose(out, size, w, access, format, list);
    va_end(list);
}

void vn_find_race(struct vn_warp *w, const char *check, const struct vn_access *access,
                  const struct vr_party *other)
{
    char text[640];
    char where[160] = "";
    const struct vn_insn *insn = other->code || !other->apart ? other->insn : NULL;
    enum vn_class class = insn ? vn_ops[insn->op].cls : VN_CLASS_OTHER;
    if (other->apart)
        snprintf(where, sizeof where, " of kernel %s, device %u", other->kernel, other->device);
    race_text(text, sizeof text, w, access,
              "race with the %s at PTX line %u by thread %u of block %llu%s: nothing orders them",
              class == VN_CLASS_LOAD     ? "load"
              : class == VN_CLASS_STORE  ? "store"
              : class == VN_CLASS_ATOMIC ? "atomic"
                                         : "access",
              insn ? insn->line : 0, other->warp * 32u + other->lane,
              (unsigned long long)other->block, where);
    send(w, check, access, 1u << access->lane, other, text);
}

void vn_find_divergence(struct vn_warp *w, const char *text, uint32_t lanes)
{
    char said[160], all[240];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(said, sizeof said, text, lanes);
#pragma GCC diagnostic pop
    snprintf(all, sizeof all, "divergent barrier: %s", said);
    send(w, "barrier", NULL, lanes, NULL, all);
}
