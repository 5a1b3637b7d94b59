/* cmd_check.c: conformance of one device (conformance/), as a matrix, JSON and JUnit. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conformance.h"
#include "tool.h"

#define MOST_COLUMNS 16

/* What became of the cases of an op in one format. */
struct cell {
    uint64_t outcomes[CONF_OUTCOMES], expanded;
    char reason[600]; /* of the first that did not run there */
};

struct checking {
    const char *uri, *filter;
    uint64_t seed;
    bool quick, json, is_virtual, all_faults, fast;
    int64_t threads;
    struct progress progress;
    char columns[MOST_COLUMNS][16];
    uint32_t column_count;
    struct cell cells[64][MOST_COLUMNS]; /* by op id */
    json_t *failures;
    FILE *junit;
    const char *junit_path;
    uint64_t failures_shown;
    char no_fast[600]; /* why the first fast case did not run */
};

/* ---- what repeats a case ---- */

static void repeat_command(const struct checking *c, const char *name, char *text, size_t size)
{
    snprintf(text, size, "moehal check --device %s --filter '%s' --seed %llu%s%s%s", c->uri, name,
             (unsigned long long)c->seed, c->quick ? " --quick" : "",
             c->all_faults ? " --all-faults" : "", c->fast ? " --profile fast" : "");
}

/* ---- JUnit ---- */

static void put_escaped(FILE *file, const char *text)
{
    for (; *text; text++) {
        unsigned char byte = (unsigned char)*text;
        if (*text == '<' || *text == '>' || *text == '&' || *text == '"')
            fprintf(file, "&#%u;", byte);
        else
            fputc(byte < 0x20 ? '?' : byte, file);
    }
}

static void junit_case(const struct checking *c, const struct conf_result *r)
{
    static const char *const why[CONF_OUTCOMES] = {NULL, NULL, "fallback", "missing", "excluded"};
    fprintf(c->junit, "  <testcase classname=\"%s.%s\" name=\"", c->uri,
            r->op ? mh_op_name(r->op) : "core");
    put_escaped(c->junit, r->name);
    fprintf(c->junit, "\" time=\"%.6f\"", r->seconds);
    if (r->outcome == CONF_PASSED) {
        fprintf(c->junit, "/>\n");
        return;
    }
    bool failed = r->outcome == CONF_FAILED;
    fprintf(c->junit, "><%s message=\"", failed ? "failure" : "skipped");
    if (!failed)
        fprintf(c->junit, "%s: ", why[r->outcome]);
    put_escaped(c->junit, r->message);
    fprintf(c->junit, "\"/></testcase>\n");
}

/* ---- as it goes ---- */

static struct cell *cell_of(struct checking *c, const struct conf_result *r)
{
    uint32_t column = 0;
    while (column < c->column_count && strcmp(c->columns[column], r->format))
        column++;
    if (column == MOST_COLUMNS || r->op >= 64)
        return NULL;
    if (column == c->column_count)
        snprintf(c->columns[c->column_count++], sizeof(c->columns[0]), "%s", r->format);
    return &c->cells[r->op][column];
}

static void show_failure(struct checking *c, const struct conf_result *r)
{
    char command[256];
    repeat_command(c, r->name, command, sizeof(command));
    end_progress(&c->progress);
    fprintf(c->json ? stderr : stdout, "FAIL %s: %s\n     %s\n", r->name, r->message, command);
    fflush(stdout);
    if (c->failures)
        json_array_append_new(c->failures, json_pack("{s:s, s:s, s:s}", "case", r->name, "message",
                                                     r->message, "repeat", command));
}

static int on_case(void *user, const struct conf_result *r, uint64_t done, uint64_t total)
{
    struct checking *c = user;
    struct cell *cell = r->op ? cell_of(c, r) : NULL;
    if (cell) {
        cell->outcomes[r->outcome]++;
        cell->expanded += r->expanded;
        if (r->outcome != CONF_PASSED && !cell->reason[0])
            snprintf(cell->reason, sizeof(cell->reason), "%s", r->message);
    }
    if (c->fast && r->outcome == CONF_FALLBACK && !c->no_fast[0])
        snprintf(c->no_fast, sizeof(c->no_fast), "%s", r->message);
    if (r->outcome == CONF_FAILED)
        show_failure(c, r);
    if (c->junit)
        junit_case(c, r);
    return show_progress(&c->progress, done, total);
}

/* ---- the matrix ---- */

static const char *cell_text(const struct cell *cell, char text[64])
{
    const uint64_t *n = cell->outcomes;
    uint64_t all = 0, passed = n[CONF_PASSED];
    for (int i = 0; i < CONF_OUTCOMES; i++)
        all += n[i];
    const char *rest = n[CONF_FAILED]     ? "FAILED"
                       : n[CONF_MISSING]  ? "missing"
                       : n[CONF_FALLBACK] ? "fallback"
                       : n[CONF_EXCLUDED] ? "excluded"
                                          : "exact";
    if (!all)
        return "-";
    if (passed && passed < all)
        snprintf(text, 64, "%s %llu/%llu", rest, (unsigned long long)(all - passed),
                 (unsigned long long)all);
    else
        snprintf(text, 64, "%s%s", rest, passed && cell->expanded == passed ? "*" : "");
    return text;
}

static void print_matrix(const struct checking *c)
{
    char text[64];
    bool expanded = false;
    if (!c->column_count)
        return;
    printf("\n%-22s", "");
    for (uint32_t k = 0; k < c->column_count; k++)
        printf(" %-9s", c->columns[k]);
    putchar('\n');
    for (mh_op_id op = 0; op < 64; op++) {
        bool any = false;
        for (uint32_t k = 0; k < c->column_count; k++)
            any |= strcmp(cell_text(&c->cells[op][k], text), "-") != 0;
        if (!any)
            continue;
        printf("%-22s", mh_op_name(op));
        for (uint32_t k = 0; k < c->column_count; k++) {
            const char *cell = cell_text(&c->cells[op][k], text);
            expanded |= strchr(cell, '*') != NULL;
            printf(" %-9s", cell);
        }
        putchar('\n');
    }
    if (expanded)
        printf("* as its primitives\n");
}

/* Each reason once, with the first op that has it. */
static void print_reasons(const struct checking *c)
{
    const char *seen[64];
    uint32_t count = 0;
    for (mh_op_id op = 0; op < 64; op++)
        for (uint32_t k = 0; k < c->column_count; k++) {
            const struct cell *cell = &c->cells[op][k];
            bool known = !cell->reason[0] || cell->outcomes[CONF_FAILED] || count == 64;
            for (uint32_t i = 0; i < count && !known; i++)
                known = !strcmp(seen[i], cell->reason);
            if (known)
                continue;
            seen[count++] = cell->reason;
            printf("%s/%s: %s\n", mh_op_name(op), c->columns[k], cell->reason);
        }
}

static json_t *matrix_json(const struct checking *c)
{
    json_t *matrix = json_object();
    for (mh_op_id op = 0; op < 64; op++)
        for (uint32_t k = 0; k < c->column_count; k++) {
            static const char *const names[CONF_OUTCOMES] = {"exact", "failed", "fallback",
                                                             "missing", "excluded"};
            const struct cell *cell = &c->cells[op][k];
            char text[64];
            if (!strcmp(cell_text(cell, text), "-"))
                continue;
            json_t *row = json_object_get(matrix, mh_op_name(op));
            if (!row) {
                row = json_object();
                json_object_set_new(matrix, mh_op_name(op), row);
            }
            json_t *entry = json_object();
            for (int i = 0; i < CONF_OUTCOMES; i++)
                json_object_set_new(entry, names[i], json_integer((json_int_t)cell->outcomes[i]));
            json_object_set_new(entry, "expanded", json_integer((json_int_t)cell->expanded));
            json_object_set_new(entry, "reason", json_string(cell->reason));
            json_object_set_new(row, c->columns[k], entry);
        }
    return matrix;
}

/* ---- the end ---- */

static int conclude(struct checking *c, const struct conf_summary *s)
{
    const uint64_t *n = s->outcomes;
    if (c->json) {
        json_t *report = json_pack(
            "{s:s, s:b, s:s, s:I, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:o, s:O}",
            "device", c->uri, "virtual", c->is_virtual, "profile", c->fast ? "fast" : "exact",
            "seed", (json_int_t)c->seed, "quick", c->quick, "cases", (json_int_t)s->cases,
            "op_cases", (json_int_t)s->op_cases, "native", (json_int_t)s->native, "passed",
            (json_int_t)n[CONF_PASSED], "failed", (json_int_t)n[CONF_FAILED], "fallback",
            (json_int_t)n[CONF_FALLBACK], "missing", (json_int_t)n[CONF_MISSING], "excluded",
            (json_int_t)n[CONF_EXCLUDED], "seconds", s->seconds, "matrix", matrix_json(c),
            "failures", c->failures);
        if (report && !json_dumpf(report, stdout, JSON_INDENT(1)))
            putchar('\n');
        json_decref(report);
    } else {
        print_matrix(c);
        print_reasons(c);
        printf("%s%s, %s: %llu cases, %llu passed, %llu failed, %llu fallback, %llu missing, "
               "%llu excluded, %.1f s\n",
               c->uri, c->is_virtual ? " (virtual)" : "", c->fast ? "fast" : "exact",
               (unsigned long long)s->cases, (unsigned long long)n[CONF_PASSED],
               (unsigned long long)n[CONF_FAILED], (unsigned long long)n[CONF_FALLBACK],
               (unsigned long long)n[CONF_MISSING], (unsigned long long)n[CONF_EXCLUDED],
               s->seconds);
    }
    fflush(stdout); /* before what goes to stderr */
    if (s->cancelled) {
        fprintf(stderr, "moehal: interrupted\n");
        return EXIT_FAILED;
    }
    if (s->op_cases && !s->native) {
        fprintf(stderr, "moehal: check: no op ran natively on %s%s%s\n", c->uri,
                c->no_fast[0] ? ": " : "", c->no_fast);
        return EXIT_FAILED;
    }
    return n[CONF_FAILED] ? EXIT_FAILED : EXIT_DONE;
}

static int open_junit(struct checking *c)
{
    if (!c->junit_path)
        return -1;
    c->junit = fopen(c->junit_path, "w");
    if (!c->junit) {
        fprintf(stderr, "moehal: --junit: %s: cannot be written\n", c->junit_path);
        return EXIT_USAGE;
    }
    fprintf(c->junit, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"moehal\">\n");
    return -1;
}

static bool close_junit(struct checking *c)
{
    if (!c->junit)
        return true;
    fprintf(c->junit, "</testsuite>\n");
    bool bad = ferror(c->junit);
    bad |= fclose(c->junit) != 0;
    if (bad)
        fprintf(stderr, "moehal: --junit: %s: could not be written\n", c->junit_path);
    return !bad;
}

/* The URI as the runtime spells it, and whether the device is virtual. */
static mh_status name_device(mh_runtime *runtime, struct checking *c, char uri[64])
{
    mh_device *device;
    mh_device_info info = MH_INIT(mh_device_info);
    mh_status status = mh_device_open(runtime, c->uri, NULL, &device);
    if (status)
        return status;
    status = mh_device_get_info(device, &info);
    snprintf(uri, 64, "%s", mh_device_uri(device));
    c->uri = uri;
    c->is_virtual = info.flags & MH_DEVICE_IS_VIRTUAL;
    mh_device_release(device);
    return status;
}

static int check(struct checking *c)
{
    mh_runtime *runtime;
    char uri[64];
    struct conf_summary summary;
    mh_status status = mh_runtime_create(NULL, &runtime);
    if (status)
        return report_failure(status);
    status = name_device(runtime, c, uri);
    int code = status ? report_failure(status) : open_junit(c);
    if (code < 0) {
        struct conf_options options = {.uri = c->uri,
                                       .filter = c->filter,
                                       .seed = c->seed,
                                       .quick = c->quick,
                                       .fast = c->fast,
                                       .all_faults = c->all_faults,
                                       .threads = (uint32_t)c->threads,
                                       .progress = on_case,
                                       .user = c};
        catch_interrupt();
        status = conf_run(runtime, &options, &summary);
        end_progress(&c->progress);
        code = status ? report_failure(status) : conclude(c, &summary);
        if (!close_junit(c) && code == EXIT_DONE)
            code = EXIT_FAILED;
    }
    mh_runtime_release(runtime);
    return code;
}

static int run(int argc, char **argv)
{
    const char *profile = NULL;
    int64_t seed = 1;
    struct checking *c = calloc(1, sizeof(*c));
    if (!c)
        return usage_error(&command_check, "no memory");
    c->progress.what = "checking";
    const struct option options[] = {
        {"device", OPTION_TEXT, &c->uri, "URI",
         "host, nvidia:0, ...; default: MOEHAL_DEVICE, else auto"},
        {"virtual", OPTION_FLAG, &c->is_virtual, NULL, "use the project's virtual GPUs"},
        {"filter", OPTION_TEXT, &c->filter, "GLOB",
         "only cases whose name matches, 'linear/*' say; or the name of one case of any size"},
        {"quick", OPTION_FLAG, &c->quick, NULL, "a seeded part of the suite"},
        {"all-faults", OPTION_FLAG, &c->all_faults, NULL,
         "inject a fault at every call, not at a seeded sample"},
        {"seed", OPTION_INTEGER, &seed, "S", "of sizes and values; default 1", 0, 9e15},
        {"profile", OPTION_TEXT, &profile, "exact|fast",
         "exact: bit for bit; fast: inside its bounds; default exact"},
        {"threads", OPTION_INTEGER, &c->threads, "N", "host threads; default one a core", 0, 4096},
        {"junit", OPTION_TEXT, &c->junit_path, "FILE", "also write the results as JUnit XML"},
        {"json", OPTION_FLAG, &c->json, NULL, "one JSON object on stdout instead of text"},
        {0},
    };
    int code = parse_options(&command_check, options, argc, argv, NULL, 0);
    if (code < 0)
        code = parse_choice(&command_check, "profile", profile, "exact", "fast", &c->fast);
    c->seed = (uint64_t)seed;
    c->failures = c->json ? json_array() : NULL;
    if (code < 0)
        code = check(c);
    json_decref(c->failures);
    free(c);
    return code;
}

const struct command command_check = {
    "check",
    "[--device URI] [options]",
    "conformance of one device: every op, and the layers above, against the host's bits",
    "  moehal check --device host --quick\n"
    "  moehal check --device nvidia:0 --filter 'linear/fp8/*' --junit report.xml",
    run,
};
