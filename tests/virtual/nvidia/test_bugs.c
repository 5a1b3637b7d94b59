/* Kernels with one bug each (kernels/bugs.cu): the check that must find it, on the line that the
 * source marks.
 *
 *   test_bugs bugs.cu PTX [PTX]
 *
 * Compiled for debugging, and optimised where the first does not name the line: in the former
 * atomicAdd and its like are calls, whose lines are a header's. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_calls.h"
#include "moehal_virtual.h"

enum { N = 256, MAX_LINES = 4 };

struct bug {
    char kernel[64], check[32];
    unsigned blocks, x, y, shared;
    int line[MAX_LINES], lines;
};

static void need(CUresult result, const char *what)
{
    if (result != CUDA_SUCCESS) {
        printf("Bail out! %s: error %d\n", what, (int)result);
        exit(1);
    }
}

/* The next bug of the source: its kernel, and all lines that are marked until the kernel after it.
 */
static bool next_bug(FILE *f, int *line_number, struct bug *bug)
{
    char line[400];
    bool found = false;
    long begin = ftell(f);
    int begin_number = *line_number;
    while (fgets(line, sizeof line, f)) {
        char *mark = strstr(line, "// BUG "), *name = strstr(line, "GLOBAL ");
        if (name == line && strchr(line, '(')) {
            if (found) { /* the next one's */
                fseek(f, begin, SEEK_SET);
                *line_number = begin_number;
                return true;
            }
            sscanf(line, "GLOBAL %63[a-z_0-9]", bug->kernel);
            bug->lines = 0;
            bug->y = 1;
        }
        ++*line_number;
        begin = ftell(f);
        begin_number = *line_number;
        if (mark && bug->lines < MAX_LINES) {
            char threads[20];
            if (sscanf(mark, "// BUG %31s %u %19s %u", bug->check, &bug->blocks, threads,
                       &bug->shared) != 4 ||
                sscanf(threads, "%ux%u", &bug->x, &bug->y) < 1)
                exit(2);
            bug->line[bug->lines++] = *line_number;
            found = true;
        }
    }
    return found;
}

static int json_line(const char *json)
{
    const char *at = strstr(json, "\"line\": ");
    return at ? atoi(at + 8) : 0;
}

/* Whether one of the reports is the one that is wanted; `best` says what there was. */
static bool reported(const struct bug *bug, char *best, size_t size)
{
    const char *check, *json, *text;
    snprintf(best, size, "no report");
    for (uint64_t i = 0; !moehal_virtual_report_at(i, &check, &json, &text, NULL); i++) {
        int line = json_line(json);
        bool here = false;
        for (int j = 0; j < bug->lines; j++)
            here |= bug->line[j] == line;
        if (!i || !strcmp(check, bug->check))
            snprintf(best, size, "line %d: %s", line, text);
        if (here && !strcmp(check, bug->check) && strstr(json, "bugs.cu") &&
            strstr(json, bug->kernel))
            return true;
    }
    return false;
}

static bool run(const struct bug *bug, const char *ptx, bool quiet)
{
    CUcontext context;
    CUmodule module;
    CUfunction f;
    CUdeviceptr a, b, c;
    float values[N];
    int n = N;
    char best[400];
    moehal_virtual_reports_clear();
    need(cuCtxCreate_v2(&context, 0, 0), "cuCtxCreate");
    need(cuModuleLoadData(&module, ptx), "cuModuleLoadData");
    need(cuModuleGetFunction(&f, module, bug->kernel), bug->kernel);
    for (int i = 0; i < N; i++)
        values[i] = (float)i;
    need(cuMemAlloc_v2(&a, sizeof values), "cuMemAlloc");
    need(cuMemAlloc_v2(&b, sizeof values), "cuMemAlloc");
    need(cuMemAlloc_v2(&c, N * 4), "cuMemAlloc");
    need(cuMemcpyHtoD_v2(a, values, sizeof values), "cuMemcpyHtoD");
    need(cuMemsetD8_v2(c, 0, N * 4), "cuMemset");
    void *params[] = {&a, &b, &c, &n};
    need(cuLaunchKernel(f, bug->blocks, 1, 1, bug->x, bug->y, 1, bug->shared, NULL, params, NULL),
         bug->kernel);
    CUresult result = cuCtxSynchronize();
    bool ok = reported(bug, best, sizeof best);
    if (!ok && quiet) {
        need(cuCtxDestroy_v2(context), "cuCtxDestroy");
        return false;
    }
    printf("%s: %s: %s\n", ok ? "ok" : "not ok", bug->kernel, ok ? bug->check : best);
    if (!ok)
        printf("  wanted %s on line %d; the launch ended with %d\n", bug->check, bug->line[0],
               (int)result);
    /* The context is usable no more after a fault, and a new one is. */
    if (result != CUDA_SUCCESS && cuMemAlloc_v2(&a, 4) != result) {
        printf("not ok: %s: the error does not stick\n", bug->kernel);
        ok = false;
    }
    need(cuCtxDestroy_v2(context), "cuCtxDestroy");
    return ok;
}

static char *read_text(const char *path)
{
    FILE *f = fopen(path, "r");
    char *text = calloc(1, 4 << 20);
    if (!f || !text || !fread(text, 1, (4 << 20) - 1, f)) {
        printf("Bail out! %s cannot be read\n", path);
        exit(1);
    }
    fclose(f);
    return text;
}

int main(int argc, char **argv)
{
    struct bug bug = {.y = 1};
    int line = 0, found = 0, count = 0;
    if (argc < 3)
        return 2;
    FILE *source = fopen(argv[1], "r");
    if (!source)
        return 2;
    char *ptx = read_text(argv[2]), *second = argc > 3 ? read_text(argv[3]) : NULL;
    setenv("MOEHAL_VIRTUAL_CHECKS", "all", 1);
    setenv("MOEHAL_VIRTUAL_TIME_LIMIT_MS", "500", 1);
    need(cuInit(0), "cuInit");
    moehal_virtual_reports_quiet(1);
    while (next_bug(source, &line, &bug)) {
        count++;
        found += run(&bug, ptx, second != NULL) || (second && run(&bug, second, false));
    }
    printf("%d of %d bugs are reported for what they are, on their line\n", found, count);
    free(ptx);
    free(second);
    fclose(source);
    return found != count || count < 40;
}
