/* moehal-vgpu-nvidia: runs one kernel of a PTX file on the virtual device.
 *
 *   moehal-vgpu-nvidia run FILE.ptx KERNEL --grid 4 --block 128 --arg buffer:4096:iota --arg
 * u32:1024
 *
 * Prints what the kernel printed, what the checks found, the buffers asked for, and the counters.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../common/memmap.h"
#include "../common/pool.h"
#include "../common/report.h"
#include "machine.h"

enum { MAX_ARGS = 64 };

struct argument {
    uint8_t bytes[8];
    unsigned size;
    uint64_t buffer, buffer_size;
};

struct options {
    const char *file, *kernel;
    uint32_t grid[3], block[3], shared, threads;
    struct argument args[MAX_ARGS];
    unsigned arg_count;
    struct {
        unsigned index, count;
        char type[8];
    } dumps[MAX_ARGS];
    unsigned dump_count;
    unsigned checks;
    bool counters, lines, json, fuse, cooperative;
    enum vn_schedule schedule;
    uint64_t seed, time_limit_ms;
};

struct session {
    struct options o;
    struct vc_map *map;
    struct vg_pool *pool;
    unsigned findings;
};

static void usage(FILE *out)
{
    fputs(
        "usage: moehal-vgpu-nvidia run FILE.ptx KERNEL [options]\n"
        "       moehal-vgpu-nvidia list FILE.ptx\n"
        "\n"
        "  --grid X[,Y[,Z]]      blocks (1)\n"
        "  --block X[,Y[,Z]]     threads a block (32)\n"
        "  --shared BYTES        dynamic shared memory (0)\n"
        "  --cooperative         all blocks are resident at once\n"
        "  --arg TYPE:VALUE      an argument; TYPE: i32 u32 i64 u64 f32 f64\n"
        "  --arg buffer:BYTES[:FILL]  a pointer to device memory; FILL: zero (default), none, "
        "iota,\n"
        "                        iota-f32, random, random-f32, @FILE\n"
        "  --dump N:TYPE:COUNT   print the first COUNT elements of argument N (from 0) afterwards\n"
        "  --checks LIST         "
        "bounds,uninitialised,shared-races,global-races,async-copy,barriers,local,cas-loads;\n"
        "                        default, all or none (default)\n"
        "  --schedule NAME       round-robin, random or adversarial\n"
        "  --seed N              of the schedule and of random buffers (1)\n"
        "  --time-limit MS       end the kernel after that long\n"
        "  --threads N           worker threads of the host (one a CPU)\n"
        "  --fuse                bare mul and add pairs become fma\n"
        "  --counters            print the launch's counters\n"
        "  --lines               and those of each line of PTX\n"
        "  --json                counters and findings as JSON lines\n",
        out);
}

static bool bad(const char *what, const char *value)
{
    fprintf(stderr, "moehal-vgpu-nvidia: %s: '%s'\n", what, value);
    return false;
}

static bool number(const char *text, uint64_t limit, uint64_t *out)
{
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 0);
    return *text && *text != '-' && !*end && !errno && *out <= limit;
}

static bool dims(const char *text, const uint32_t most[3], uint32_t out[3])
{
    out[0] = out[1] = out[2] = 1;
    for (int i = 0; i < 3; i++) {
        char *end;
        unsigned long v = strtoul(text, &end, 10);
        if (end == text || v == 0 || v > most[i])
            return false;
        out[i] = (uint32_t)v;
        if (!*end)
            return true;
        if (*end != ',')
            return false;
        text = end + 1;
    }
    return false;
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

static bool fill_file(uint8_t *to, uint64_t size, const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return bad("cannot read", path);
    size_t n = fread(to, 1, size, f);
    fclose(f);
    return n == size ? true : bad("shorter than the buffer", path);
}

static bool fill(struct session *s, uint64_t at, uint64_t size, const char *how)
{
    uint8_t *to = (uint8_t *)(uintptr_t)at;
    uint64_t state = s->o.seed * 0x9e3779b97f4a7c15u + 1;
    if (!strcmp(how, "none"))
        return true;
    memset(to, 0, size);
    vc_mark(s->map, at, size);
    for (uint64_t i = 0; i + 4 <= size; i += 4) {
        uint32_t u = (uint32_t)(i / 4);
        float f = (float)u;
        if (!strcmp(how, "iota-f32"))
            memcpy(&u, &f, 4);
        else if (!strcmp(how, "random"))
            u = (uint32_t)(next_random(&state) >> 16);
        else if (!strcmp(how, "random-f32")) {
            f = (float)(int32_t)(next_random(&state) >> 32) * 0x1p-31f;
            memcpy(&u, &f, 4);
        } else if (strcmp(how, "iota"))
            break;
        memcpy(to + i, &u, 4);
    }
    if (how[0] == '@')
        return fill_file(to, size, how + 1);
    if (strcmp(how, "zero") && strncmp(how, "iota", 4) && strncmp(how, "random", 6))
        return bad("unknown fill", how);
    return true;
}

static bool add_buffer(struct session *s, struct argument *a, const char *text)
{
    char copy[64];
    const char *colon = strchr(text, ':');
    snprintf(copy, sizeof copy, "%.*s", (int)(colon ? colon - text : (long)strlen(text)), text);
    if (!number(copy, (uint64_t)1 << 36, &a->buffer_size) || !a->buffer_size)
        return bad("--arg buffer: a size in bytes is expected", text);
    struct vc_alloc_info info = {
        .bytes = a->buffer_size, .align = 256, .kind = VC_GLOBAL, .access = 1};
    a->buffer = vc_alloc(s->map, &info);
    if (!a->buffer)
        return bad("no room for a buffer of bytes", copy);
    memcpy(a->bytes, &a->buffer, 8);
    a->size = 8;
    return fill(s, a->buffer, a->buffer_size, colon ? colon + 1 : "zero");
}

static bool add_argument(struct session *s, const char *text)
{
    if (s->o.arg_count == MAX_ARGS)
        return bad("more arguments than 64", text);
    struct argument *a = &s->o.args[s->o.arg_count++];
    if (!strncmp(text, "buffer:", 7))
        return add_buffer(s, a, text + 7);
    if (strlen(text) < 5 || text[3] != ':')
        return bad("--arg: TYPE:VALUE is expected", text);
    const char *value = text + 4;
    char *end = NULL;
    bool wide = text[1] == '6';
    errno = 0;
    a->size = wide ? 8 : 4;
    if (text[0] == 'f') {
        double d = strtod(value, &end);
        float f = (float)d;
        memcpy(a->bytes, wide ? (void *)&d : (void *)&f, a->size);
    } else if (text[0] == 'i') {
        long long v = strtoll(value, &end, 0);
        memcpy(a->bytes, &v, a->size);
    } else if (text[0] == 'u') {
        unsigned long long v = strtoull(value, &end, 0);
        memcpy(a->bytes, &v, a->size);
    }
    if (!end || end == value || *end || errno ||
        (strncmp(text + 1, "32", 2) && strncmp(text + 1, "64", 2)))
        return bad("--arg: TYPE:VALUE is expected", text);
    return true;
}

static bool add_dump(struct options *o, const char *text)
{
    unsigned index, count;
    char type[8];
    if (o->dump_count == MAX_ARGS || sscanf(text, "%u:%7[a-z0-9]:%u", &index, type, &count) != 3)
        return bad("--dump: N:TYPE:COUNT is expected", text);
    o->dumps[o->dump_count].index = index;
    o->dumps[o->dump_count].count = count;
    memcpy(o->dumps[o->dump_count++].type, type, sizeof type);
    return true;
}

static bool parse_options(struct session *s, int argc, char **argv)
{
    struct options *o = &s->o;
    uint64_t v;
    for (int i = 0; i < argc; i++) {
        const char *a = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        bool flag = !strcmp(a, "--counters") || !strcmp(a, "--lines") || !strcmp(a, "--json") ||
                    !strcmp(a, "--fuse") || !strcmp(a, "--cooperative");
        o->counters |= !strcmp(a, "--counters") || !strcmp(a, "--lines");
        o->lines |= !strcmp(a, "--lines");
        o->json |= !strcmp(a, "--json");
        o->fuse |= !strcmp(a, "--fuse");
        o->cooperative |= !strcmp(a, "--cooperative");
        if (flag)
            continue;
        if (a[0] != '-') {
            if (!o->file)
                o->file = a;
            else if (!o->kernel)
                o->kernel = a;
            else
                return bad("unexpected argument", a);
            continue;
        }
        if (!value)
            return bad("unknown option, or its value is missing", a);
        i++;
        bool good = true;
        if (!strcmp(a, "--grid"))
            good = dims(value, (const uint32_t[]){INT32_MAX, 65535, 65535}, o->grid);
        else if (!strcmp(a, "--block"))
            good = dims(value, (const uint32_t[]){1024, 1024, 64}, o->block);
        else if (!strcmp(a, "--shared"))
            good = number(value, 232448, &v), o->shared = (uint32_t)v;
        else if (!strcmp(a, "--seed"))
            good = number(value, UINT64_MAX, &o->seed);
        else if (!strcmp(a, "--time-limit"))
            good = number(value, UINT32_MAX, &o->time_limit_ms);
        else if (!strcmp(a, "--threads"))
            good = number(value, 1024, &v), o->threads = (uint32_t)v;
        else if (!strcmp(a, "--schedule"))
            o->schedule = !strcmp(value, "random")        ? VN_RANDOM
                          : !strcmp(value, "adversarial") ? VN_ADVERSARIAL
                                                          : VN_ROUND_ROBIN,
            good = o->schedule || !strcmp(value, "round-robin");
        else if (!strcmp(a, "--arg"))
            good = add_argument(s, value);
        else if (!strcmp(a, "--dump"))
            good = add_dump(o, value);
        else if (!strcmp(a, "--checks"))
            good = vn_checks_parse(value, &o->checks) || bad("--checks: unknown check in", value);
        else
            return bad("unknown option", a);
        if (!good)
            return bad(a, value);
    }
    return o->file ? true : bad("a PTX file is needed", "");
}

static void on_report(void *context, const struct vc_finding *f)
{
    struct session *s = context;
    s->findings++;
    if (s->o.json) {
        printf("{\"check\":\"%s\",\"kernel\":\"%s\",\"line\":%u,\"block\":[%u,%u,%u],"
               "\"thread\":[%u,%u,%u],\"address\":%" PRIu64 ",\"bytes\":%" PRIu64 "}\n",
               f->check, f->kernel ? f->kernel : "", f->code_line, f->block[0], f->block[1],
               f->block[2], f->thread[0], f->thread[1], f->thread[2], f->address, f->bytes);
        return;
    }
    printf("%s: %s, PTX line %u", f->check, f->kernel ? f->kernel : "?", f->code_line);
    if (f->file)
        printf(" (%s:%u)", f->file, f->line);
    printf(", block (%u,%u,%u), thread (%u,%u,%u): %s", f->block[0], f->block[1], f->block[2],
           f->thread[0], f->thread[1], f->thread[2], f->text);
    if (f->other_code_line)
        printf("; the other: PTX line %u, block (%u,%u,%u), thread (%u,%u,%u)", f->other_code_line,
               f->other_block[0], f->other_block[1], f->other_block[2], f->other_thread[0],
               f->other_thread[1], f->other_thread[2]);
    putchar('\n');
}

static void on_print(void *context, const char *text, size_t size)
{
    (void)context;
    fwrite(text, 1, size, stdout);
}

static char *read_file(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    size_t used = 0, room = 1 << 16;
    char *text = malloc(room);
    while (text) {
        used += fread(text + used, 1, room - used, f);
        if (used < room)
            break;
        char *more = realloc(text, room *= 2);
        if (!more) {
            free(text);
            text = NULL;
        } else {
            text = more;
        }
    }
    fclose(f);
    *size = used;
    return text;
}

static struct vn_module *load(const char *path)
{
    size_t size;
    char *text = read_file(path, &size);
    if (!text) {
        bad("cannot read", path);
        return NULL;
    }
    struct vn_diagnostic d = {0};
    struct vn_module *m = vn_module_parse(text, size, &d);
    if (!m)
        fprintf(stderr, "%s:%u:%u: error: %s\n", path, d.line, d.column, d.text);
    free(text);
    return m;
}

static int list(const char *path)
{
    struct vn_module *m = load(path);
    if (!m)
        return 2;
    for (size_t i = 0; i < vn_module_functions(m); i++) {
        const struct vn_function *f = vn_module_function(m, i);
        printf("%s %s: %u parameters in %u bytes, %u registers, %u shared, %u local\n",
               f->entry ? "entry" : "func", f->name, f->param_count, f->param_bytes, f->registers,
               f->shared_bytes, f->local_bytes);
    }
    vn_module_release(m);
    return 0;
}

static void print_counters(const struct options *o, const struct vn_counters *c)
{
    const char *head = o->json ? "\"%s\":%" PRIu64 "," : "%-24s %" PRIu64 "\n";
    if (o->json)
        putchar('{');
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#define SHOW(name) printf(head, #name, c->name);
    SHOW(warp_instructions)
    SHOW(lane_instructions)
    for (int i = 0; i < VN_CLASS_COUNT; i++)
        printf(head, vn_class_name((enum vn_class)i), c->by_class[i]);
    SHOW(load_bytes)
    SHOW(store_bytes)
    SHOW(load_sectors)
    SHOW(store_sectors)
    SHOW(ideal_load_sectors)
    SHOW(ideal_store_sectors)
    SHOW(unique_load_sectors)
    SHOW(unique_store_sectors)
    SHOW(unique_sectors)
    SHOW(shared_accesses)
    SHOW(shared_passes)
    SHOW(matrix_operations)
    SHOW(matrix_flops)
    SHOW(float_operations)
    SHOW(atomics)
    SHOW(divergences)
#pragma GCC diagnostic pop
    if (o->json)
        printf("\"barriers\":%" PRIu64 "}\n", c->barriers);
    else
        printf("%-24s %" PRIu64 "\n", "barriers", c->barriers);
    for (uint64_t i = 0; o->lines && i < c->line_count; i++) {
        const struct vn_line_counters *l = &c->lines[i];
        printf("line %5u %-20s warps %" PRIu64 " lanes %" PRIu64 " bytes %" PRIu64
               " sectors %" PRIu64 " (ideal %" PRIu64 ") passes %" PRIu64 " divergences %" PRIu64
               "\n",
               l->line, l->function, l->warp_instructions, l->lane_instructions, l->global_bytes,
               l->global_sectors, l->ideal_sectors, l->bank_passes, l->divergences);
    }
}

static void dump(const struct options *o)
{
    for (unsigned i = 0; i < o->dump_count; i++) {
        unsigned n = o->dumps[i].index;
        const char *type = o->dumps[i].type;
        if (n >= o->arg_count || !o->args[n].buffer) {
            bad("--dump: no such buffer", type);
            continue;
        }
        unsigned size = strstr(type, "64") ? 8 : strstr(type, "16") ? 2 : type[1] == '8' ? 1 : 4;
        const uint8_t *p = (const uint8_t *)(uintptr_t)o->args[n].buffer;
        for (unsigned k = 0;
             k < o->dumps[i].count && (k + 1) * (uint64_t)size <= o->args[n].buffer_size; k++) {
            uint64_t u = 0;
            memcpy(&u, p + (size_t)k * size, size);
            float f;
            double d;
            memcpy(&f, &u, 4);
            memcpy(&d, &u, 8);
            if (type[0] == 'f')
                printf("%.9g%c", size == 8 ? d : (double)f, ' ');
            else if (type[0] == 'i')
                printf("%" PRId64 " ", (int64_t)(u << (64 - 8 * size)) >> (64 - 8 * size));
            else
                printf("%" PRIu64 " ", u);
        }
        putchar('\n');
    }
}

/* Fills in the map's own pages once. */
static bool place_variables(struct session *s, struct vn_module *m, uint64_t *addresses)
{
    for (size_t i = 0; i < vn_module_variables(m); i++) {
        const struct vn_variable *v = vn_module_variable(m, i);
        struct vc_alloc_info info = {.bytes = v->size ? v->size : 1,
                                     .align = v->align,
                                     .kind = VC_MODULE,
                                     .access = 1,
                                     .name = v->name};
        addresses[i] = vc_alloc(s->map, &info);
        if (!addresses[i])
            return bad("no room for variable", v->name);
    }
    return true;
}

static int launch(struct session *s, struct vn_module *m)
{
    struct options *o = &s->o;
    const struct vn_function *f = NULL;
    size_t index = 0;
    for (size_t i = 0; i < vn_module_functions(m); i++) {
        const struct vn_function *g = vn_module_function(m, i);
        if (g->entry && g->defined && (!o->kernel || !strcmp(g->name, o->kernel))) {
            f = g;
            index = i;
            break;
        }
    }
    if (!f)
        return bad("no such kernel", o->kernel ? o->kernel : "(any)"), 2;
    if (o->arg_count != f->param_count) {
        fprintf(stderr, "moehal-vgpu-nvidia: %s takes %u arguments, not %u\n", f->name,
                f->param_count, o->arg_count);
        return 2;
    }
    uint8_t params[32768] = {0};
    for (uint32_t i = 0; i < f->param_count; i++) {
        if (f->params[i].size != o->args[i].size) {
            fprintf(stderr, "moehal-vgpu-nvidia: argument %u of %s has %u bytes, not %u\n", i,
                    f->name, f->params[i].size, o->args[i].size);
            return 2;
        }
        memcpy(params + f->params[i].offset, o->args[i].bytes, o->args[i].size);
    }
    if ((uint64_t)o->block[0] * o->block[1] * o->block[2] > 1024)
        return bad("--block: more than 1024 threads", ""), 2;
    uint64_t *addresses = calloc(vn_module_variables(m) + 1, sizeof *addresses);
    struct vn_diagnostic d = {0};
    if (!addresses || !place_variables(s, m, addresses)) {
        free(addresses);
        return 2;
    }
    struct vn_image *image = vn_image_create(m, s->map, addresses, &d);
    free(addresses);
    if (!image) {
        fprintf(stderr, "%s:%u: error: %s\n", o->file, d.line, d.text);
        return 2;
    }
    struct vn_heap heap = {.limit = 8 << 20};
    struct vn_launch l = {.image = image,
                          .function = index,
                          .dynamic_shared = o->shared,
                          .params = params,
                          .cooperative = o->cooperative,
                          .map = s->map,
                          .pool = s->pool,
                          .sm_count = 132,
                          .compute_capability = 90,
                          .max_shared = 232448,
                          .heap = &heap,
                          .checks = o->checks,
                          .count = o->counters,
                          .count_lines = o->lines,
                          .fuse = o->fuse,
                          .schedule = o->schedule,
                          .seed = o->seed,
                          .time_limit_ms = o->time_limit_ms,
                          .sinks = {.context = s, .report = on_report, .print = on_print}};
    memcpy(l.grid, o->grid, sizeof l.grid);
    memcpy(l.block, o->block, sizeof l.block);
    struct vn_counters c;
    enum vn_status status = vn_execute(&l, &c);
    static const char *const names[] = {"ok",
                                        "illegal address",
                                        "misaligned address",
                                        "invalid address space",
                                        "invalid pc",
                                        "illegal instruction",
                                        "stack overflow",
                                        "trap",
                                        "assertion failed",
                                        "deadlock",
                                        "time limit",
                                        "stopped",
                                        "out of host memory"};
    dump(o);
    if (o->counters)
        print_counters(o, &c);
    if (status != VN_OK)
        fprintf(stderr, "moehal-vgpu-nvidia: %s: %s\n", f->name, names[status]);
    vn_counters_free(&c);
    vn_image_destroy(image);
    return status != VN_OK || s->findings;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "list"))
        return list(argv[2]);
    if (argc == 2 && !strcmp(argv[1], "--help"))
        return usage(stdout), 0;
    if (argc < 3 || strcmp(argv[1], "run"))
        return usage(stderr), 2;
    struct session s = {
        .o = {.grid = {1, 1, 1}, .block = {32, 1, 1}, .seed = 1, .checks = VN_CHECK_DEFAULT}};
    char why[200];
    s.map = vc_map_create(why);
    if (!s.map)
        return bad("virtual memory", why), 2;
    int rc = 2;
    if (parse_options(&s, argc - 2, argv + 2)) {
        s.pool = vg_pool_create((int)s.o.threads);
        struct vn_module *m = s.pool ? load(s.o.file) : NULL;
        if (m)
            rc = launch(&s, m);
        vn_module_release(m);
        vg_pool_destroy(s.pool);
    }
    vc_map_destroy(s.map);
    return rc;
}
