/* Kernels with one bug each (kernels/bugs.hip): the check that must find it, at an instruction of
 * the line that the source marks. bugs.txt, made with the code object, says which these are.
 *
 *   test_bugs DIR [KERNEL] */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <moehal_virtual.h>

#include "hip_calls.h"

enum { N = 256, MAX_PLACES = 64 };

struct bug {
    char kernel[64], check[32];
    unsigned blocks, threads, lds;
    unsigned place[MAX_PLACES], places;
};

static bool read_bug(FILE *f, struct bug *bug)
{
    char line[1000];
    int n = 0, used;
    if (!fgets(line, sizeof line, f))
        return false;
    if (sscanf(line, "%63s %31s %u %u %u%n", bug->kernel, bug->check, &bug->blocks, &bug->threads,
               &bug->lds, &n) != 5)
        exit(2);
    bug->places = 0;
    while (bug->places < MAX_PLACES &&
           sscanf(line + n, "%x%n", &bug->place[bug->places], &used) == 1) {
        bug->places++;
        n += used;
    }
    return true;
}

static void run(const char *path, const struct bug *bug)
{
    hipModule_t module;
    void *data, *raw, *gone;
    int values[N], zero = 0;
    for (int i = 0; i < N; i++)
        values[i] = i;
    need(hipModuleLoad(&module, path), path);
    data = on_device(values, sizeof values);
    need(hipMalloc(&raw, sizeof values), "hipMalloc");
    gone = on_device(values, sizeof values);
    need(hipFree(gone), "hipFree");
    void *params[] = {&data, &raw, &gone, &zero};
    need(start(module, bug->kernel, D1(bug->blocks), D1(bug->threads), bug->lds, params),
         bug->kernel);
    hipDeviceSynchronize(); /* some of them fail, with errors that stick */
    need(hipDeviceReset(), "hipDeviceReset");
}

static bool marked(const struct bug *bug, unsigned place)
{
    for (unsigned i = 0; i < bug->places; i++)
        if (bug->place[i] == place)
            return true;
    return false;
}

/* Where a report says it happened: the offset in the text. */
static unsigned place_of(const char *json)
{
    const char *at = strstr(json, "\"code_line\": ");
    return at ? (unsigned)strtoul(at + strlen("\"code_line\": "), NULL, 10) : ~0u;
}

/* Whether the bug was found where it is, with its source, and nothing else was. */
static bool found(const struct bug *bug)
{
    const char *check, *json, *text;
    bool right = false, wrong = false;
    for (uint64_t i = 0; i < moehal_virtual_report_count(); i++) {
        moehal_virtual_report_at(i, &check, &json, &text, NULL);
        bool source =
            strstr(json, "\"file\": \"bugs.hip\"") || strstr(json, "\"file\": \"device.h\"");
        if (!strcmp(check, bug->check) && marked(bug, place_of(json)) && source) {
            right = true;
        } else {
            printf("  %s: not that: %s: %s\n", bug->kernel, check, text);
            wrong = true;
        }
    }
    return right && !wrong;
}

/* The line that the last report names. */
static unsigned source_line(void)
{
    const char *json = "", *at;
    moehal_virtual_report_at(moehal_virtual_report_count() - 1, NULL, &json, NULL, NULL);
    at = strstr(json, "\"line\": ");
    return at ? (unsigned)strtoul(at + strlen("\"line\": "), NULL, 10) : 0;
}

/* Counts by instruction have its source: of the instruction that was reported, the same line. */
static bool counted(const char *path)
{
    const struct bug bug = {.kernel = "race_write", .blocks = 3, .threads = 128};
    const char *json = "";
    moehal_virtual_set("count", "lines");
    moehal_virtual_counters_reset(0);
    moehal_virtual_reports_clear();
    run(path, &bug);
    moehal_virtual_report_at(0, NULL, &json, NULL, NULL);
    unsigned place = place_of(json), line = source_line(), at, named;
    char *table = moehal_virtual_kernel_lines(0, bug.kernel), file[64];
    unsigned long long waves, lanes;
    bool right = false;
    for (char *row = table; row; row = strchr(row + 1, '\n'))
        if (sscanf(row, "%x %llu %llu %*u %*u %*u %*u %*u %63[^:]:%u", &at, &waves, &lanes, file,
                   &named) == 5 &&
            at == place)
            right =
                waves == 6 && lanes == 6 * 64 && line && named == line && !strcmp(file, "bugs.hip");
    if (!right)
        printf("  counts of %s, instruction 0x%x, line %u:\n%s", bug.kernel, place, line,
               table ? table : "none\n");
    free(table);
    return right;
}

int main(int argc, char **argv)
{
    char path[4096];
    struct bug bug;
    unsigned bugs = 0, missed = 0;
    if (argc < 2)
        return 2;
    snprintf(path, sizeof path, "%s/bugs.txt", argv[1]);
    FILE *f = fopen(path, "r");
    if (!f) {
        fprintf(stderr, "%s: cannot be read\n", path);
        return 2;
    }
    snprintf(path, sizeof path, "%s/bugs.co", argv[1]);
    moehal_virtual_reports_quiet(1);
    moehal_virtual_set("time_limit_ms", "300");
    while (read_bug(f, &bug)) {
        if (argc > 2 && strcmp(bug.kernel, argv[2]))
            continue;
        moehal_virtual_reports_clear();
        run(path, &bug);
        bool ok = found(&bug);
        printf("%s %s: %s\n", ok ? "ok" : "MISSED", bug.kernel, bug.check);
        fflush(stdout);
        bugs++;
        missed += !ok;
    }
    fclose(f);
    bool lines = counted(path);
    printf("%u bugs, %u missed; lines in counts: %s\n", bugs, missed, lines ? "right" : "WRONG");
    return missed || !lines || bugs < (argc > 2 ? 1u : 40u);
}
