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
    printf("%u bugs, %u missed\n", bugs, missed);
    return missed || bugs < (argc > 2 ? 1u : 40u);
}
