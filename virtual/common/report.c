#include "report.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct kept {
    uint64_t key, times;
    char *check, *json, *text;
};

struct vc_reports {
    pthread_mutex_t lock;
    const char *vendor;
    FILE *out; /* NULL: standard error */
    bool json, quiet;
    FILE *log; /* NULL: no log */
    struct kept *kept;
    size_t count, room;
};

enum { MOST_KEPT = 10000 };

static bool ends_in(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

struct vc_reports *vc_reports_create(const char *vendor)
{
    struct vc_reports *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    pthread_mutex_init(&r->lock, NULL);
    r->vendor = vendor;
    const char *file = getenv("MOEHAL_VIRTUAL_REPORT"), *log = getenv("MOEHAL_VIRTUAL_LOG");
    if (file && !strcmp(file, "off")) {
        r->quiet = true;
    } else if (file && *file) {
        r->out = fopen(file, "a");
        if (!r->out)
            fprintf(stderr, "%s: MOEHAL_VIRTUAL_REPORT: cannot write %s\n", vendor, file);
        r->json = ends_in(file, ".json") || ends_in(file, ".jsonl");
    }
    if (log && strchr(log, '/'))
        r->log = fopen(log, "a");
    else if (log && *log && strcmp(log, "0"))
        r->log = stderr;
    return r;
}

static void forget(struct vc_reports *r)
{
    for (size_t i = 0; i < r->count; i++) {
        free(r->kept[i].check);
        free(r->kept[i].json);
        free(r->kept[i].text);
    }
    r->count = 0;
}

void vc_reports_destroy(struct vc_reports *r)
{
    if (!r)
        return;
    forget(r);
    free(r->kept);
    if (r->out)
        fclose(r->out);
    if (r->log && r->log != stderr)
        fclose(r->log);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static void write_string(FILE *f, const char *name, const char *value)
{
    if (!value)
        return;
    fprintf(f, ", \"%s\": \"", name);
    for (const unsigned char *c = (const unsigned char *)value; *c; c++) {
        if (*c == '"' || *c == '\\')
            fprintf(f, "\\%c", *c);
        else if (*c < 0x20)
            fprintf(f, "\\u%04x", *c);
        else
            fputc(*c, f);
    }
    fputc('"', f);
}

static void write_triple(FILE *f, const char *name, const uint32_t at[3])
{
    fprintf(f, ", \"%s\": [%u, %u, %u]", name, at[0], at[1], at[2]);
}

static char *to_json(const struct vc_finding *x)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (!f)
        return NULL;
    fprintf(f, "{\"check\": \"%s\", \"device\": %u", x->check, x->device);
    write_string(f, "kernel", x->kernel);
    write_string(f, "file", x->file);
    if (x->line)
        fprintf(f, ", \"line\": %u", x->line);
    if (x->code_line)
        fprintf(f, ", \"code_line\": %u", x->code_line);
    if (x->kernel) {
        write_triple(f, "block", x->block);
        write_triple(f, "thread", x->thread);
    }
    if (x->lanes)
        fprintf(f, ", \"lanes\": \"0x%08x\"", x->lanes);
    if (x->address)
        fprintf(f, ", \"address\": \"0x%" PRIx64 "\", \"bytes\": %" PRIu64, x->address, x->bytes);
    if (x->other_line || x->other_code_line) {
        write_string(f, "other_file", x->other_file);
        fprintf(f, ", \"other_line\": %u, \"other_code_line\": %u", x->other_line,
                x->other_code_line);
        write_triple(f, "other_block", x->other_block);
        write_triple(f, "other_thread", x->other_thread);
        if (x->other_kernel) {
            write_string(f, "other_kernel", x->other_kernel);
            fprintf(f, ", \"other_device\": %u", x->other_device);
        }
    }
    write_string(f, "text", x->text);
    fputc('}', f);
    fclose(f);
    return text;
}

static char *to_text(const struct vc_finding *x)
{
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (!f)
        return NULL;
    fprintf(f, "%s: %s", x->check, x->text ? x->text : "");
    if (x->kernel)
        fprintf(f, " [kernel %s, block (%u,%u,%u), thread (%u,%u,%u)", x->kernel, x->block[0],
                x->block[1], x->block[2], x->thread[0], x->thread[1], x->thread[2]);
    if (x->file && x->line)
        fprintf(f, ", %s:%u", x->file, x->line);
    if (x->code_line && !x->silent_code)
        fprintf(f, ", PTX line %u", x->code_line);
    if (x->kernel)
        fputc(']', f);
    if (x->other_code_line)
        fprintf(f, " [other: block (%u,%u,%u), thread (%u,%u,%u), %s%s%u, PTX line %u]",
                x->other_block[0], x->other_block[1], x->other_block[2], x->other_thread[0],
                x->other_thread[1], x->other_thread[2], x->other_file ? x->other_file : "",
                x->other_file ? ":" : "line ", x->other_line, x->other_code_line);
    fclose(f);
    return text;
}

static uint64_t hash_string(uint64_t h, const char *text)
{
    for (; text && *text; text++)
        h = (h ^ (unsigned char)*text) * 0x100000001b3u;
    return h;
}

/* What makes two findings the same one. Without a line only the whole text tells. */
static uint64_t key_of(const struct vc_finding *x)
{
    uint64_t h = hash_string(hash_string(0xcbf29ce484222325u, x->check), x->kernel);
    if (x->code_line)
        h = (h ^ x->code_line) * 0x100000001b3u ^ x->other_code_line;
    else
        h = hash_string(h, x->text);
    return h;
}

static void keep(struct vc_reports *r, const struct vc_finding *x, uint64_t key)
{
    if (r->count == r->room) {
        size_t room = r->room ? 2 * r->room : 32;
        struct kept *grown = realloc(r->kept, room * sizeof *grown);
        if (!grown)
            return;
        r->kept = grown;
        r->room = room;
    }
    struct kept *k = &r->kept[r->count];
    *k = (struct kept){key, 1, strdup(x->check), to_json(x), to_text(x)};
    if (!k->check || !k->json || !k->text) {
        free(k->check);
        free(k->json);
        free(k->text);
        return;
    }
    r->count++;
    if (!r->quiet && r->out)
        fprintf(r->out, "%s\n", r->json ? k->json : k->text), fflush(r->out);
    else if (!r->quiet)
        fprintf(stderr, "%s: %s\n", r->vendor, k->text);
}

void vc_report(struct vc_reports *r, const struct vc_finding *finding)
{
    if (!r)
        return;
    uint64_t key = key_of(finding);
    pthread_mutex_lock(&r->lock);
    size_t i = 0;
    while (i < r->count && r->kept[i].key != key)
        i++;
    if (i < r->count)
        r->kept[i].times++;
    else if (r->count < MOST_KEPT)
        keep(r, finding, key);
    pthread_mutex_unlock(&r->lock);
}

uint64_t vc_reports_count(struct vc_reports *r)
{
    pthread_mutex_lock(&r->lock);
    uint64_t count = r->count;
    pthread_mutex_unlock(&r->lock);
    return count;
}

bool vc_reports_at(struct vc_reports *r, uint64_t index, const char **check, const char **json,
                   const char **text, uint64_t *times)
{
    pthread_mutex_lock(&r->lock);
    bool ok = index < r->count;
    if (ok) {
        const struct kept *k = &r->kept[index];
        *check = k->check;
        *json = k->json;
        *text = k->text;
        *times = k->times;
    }
    pthread_mutex_unlock(&r->lock);
    return ok;
}

void vc_reports_clear(struct vc_reports *r)
{
    pthread_mutex_lock(&r->lock);
    forget(r);
    pthread_mutex_unlock(&r->lock);
}

void vc_reports_quiet(struct vc_reports *r, bool quiet)
{
    pthread_mutex_lock(&r->lock);
    r->quiet = quiet;
    pthread_mutex_unlock(&r->lock);
}

void vc_log(struct vc_reports *r, const char *format, ...)
{
    if (!r || !r->log)
        return;
    char line[600];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    pthread_mutex_lock(&r->lock);
    fprintf(r->log, "%s: %s\n", r->vendor, line);
    fflush(r->log);
    pthread_mutex_unlock(&r->lock);
}
