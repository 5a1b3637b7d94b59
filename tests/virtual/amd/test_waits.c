/* Loads arrive as late as s_waitcnt allows: a kernel with one wait less must be
 * noticed. Of each kernel below every s_waitcnt becomes s_nop in turn, in the
 * code object as clang compiled it; then the result is wrong or something is
 * reported. What may be missing unnoticed is counted by kernel: waits that
 * other waits cover, before a barrier or the end, where nothing is read any
 * more.
 *
 *   test_waits DIR */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <moehal_virtual.h>

#include "hip_calls.h"

enum { N = 256, MAX_IMAGE = 1 << 18 };
static const uint32_t s_nop = 0xbf800000;

static uint8_t image[MAX_IMAGE];
static size_t image_size;
static uint64_t text_file, text_at, text_bytes; /* the executable segment */

static void find_text(void)
{
    uint64_t programs;
    uint16_t count;
    memcpy(&programs, image + 32, 8);
    memcpy(&count, image + 56, 2);
    for (uint16_t i = 0; i < count; i++) {
        const uint8_t *p = image + programs + 56u * i;
        uint32_t type, flags;
        memcpy(&type, p, 4);
        memcpy(&flags, p + 4, 4);
        if (type == 1 && flags & 1) {
            memcpy(&text_file, p + 8, 8);
            memcpy(&text_at, p + 16, 8);
            memcpy(&text_bytes, p + 32, 8);
        }
    }
}

/* ---- each kernel on fixed inputs: 256 ints or floats in, 256 out ---- */

struct test {
    const char *kernel;
    unsigned blocks, threads, unnoticed; /* waits that may go */
};

static const struct test tests[] = {
    {"reduce_lds", 4, 256, 9},  {"reduce_shuffle", 1, 256, 0}, {"reduce_dpp", 1, 256, 0},
    {"scan_block", 1, 256, 9},  {"swizzle", 4, 64, 0},         {"reverse_dynamic", 1, 256, 1},
    {"stage_direct", 4, 64, 0},
};

/* The output of the kernel in `code`, and how many reports there were. false:
 * the launch failed. */
static bool run(const void *code, const struct test *t, int out[N], uint64_t *reports)
{
    hipModule_t module;
    int in[N], n = N;
    for (int i = 0; i < N; i++)
        in[i] = 1000 + i * 7;
    bool in_place = !strcmp(t->kernel, "reverse_dynamic");
    void *din = on_device(in, sizeof in), *dout = in_place ? din : on_device(NULL, sizeof in);
    uint64_t before = moehal_virtual_report_count();
    need(hipModuleLoadData(&module, code), "hipModuleLoadData");
    void *params[] = {&dout, &din, &n};
    need(start(module, t->kernel, D1(t->blocks), D1(t->threads), 4 * N, params), t->kernel);
    bool fine = hipDeviceSynchronize() == hipSuccess;
    if (fine)
        fine = hipMemcpy(out, dout, sizeof in, hipMemcpyDeviceToHost) == hipSuccess;
    *reports = moehal_virtual_report_count() - before;
    need(hipDeviceReset(), "hipDeviceReset");
    return fine;
}

/* Where the kernel's code lies in the file: the symbol tables say. */
static void code_of(const char *kernel, uint64_t *begin, uint64_t *end)
{
    uint64_t sections;
    uint16_t count;
    memcpy(&sections, image + 40, 8);
    memcpy(&count, image + 60, 2);
    *begin = *end = 0;
    for (uint16_t i = 0; i < count; i++) {
        const uint8_t *s = image + sections + 64u * i, *strings;
        uint32_t type, link;
        uint64_t at, bytes, strings_at;
        memcpy(&type, s + 4, 4);
        memcpy(&link, s + 40, 4);
        if (type != 11) /* SHT_DYNSYM */
            continue;
        memcpy(&at, s + 24, 8);
        memcpy(&bytes, s + 32, 8);
        memcpy(&strings_at, image + sections + 64u * link + 24, 8);
        strings = image + strings_at;
        for (uint64_t k = 0; k + 24 <= bytes; k += 24) {
            uint32_t name;
            uint64_t value, size;
            memcpy(&name, image + at + k, 4);
            memcpy(&value, image + at + k + 8, 8);
            memcpy(&size, image + at + k + 16, 8);
            if (!strcmp((const char *)strings + name, kernel)) {
                *begin = text_file + (value - text_at);
                *end = *begin + size;
            }
        }
    }
}

static unsigned test_kernel(const struct test *t)
{
    uint64_t begin, end, reports;
    int right[N], out[N];
    unsigned waits = 0, noticed = 0;
    static uint8_t patched[MAX_IMAGE];
    if (!run(image, t, right, &reports) || reports) {
        printf("%s: not right to begin with\n", t->kernel);
        return 1;
    }
    code_of(t->kernel, &begin, &end);
    for (uint64_t at = begin; at + 4 <= end; at += 4) {
        uint32_t word;
        memcpy(&word, image + at, 4);
        if (word >> 16 != 0xbf8c) /* s_waitcnt; no other instruction's second word
                                     looks so here */
            continue;
        memcpy(patched, image, image_size);
        memcpy(patched + at, &s_nop, 4);
        waits++;
        bool fine = run(patched, t, out, &reports);
        noticed += !fine || reports || memcmp(out, right, sizeof out);
    }
    bool ok = waits && noticed + t->unnoticed >= waits;
    printf("%s %s: %u waits, without one of them: noticed %u times\n", ok ? "ok" : "FAILED",
           t->kernel, waits, noticed);
    return !ok;
}

int main(int argc, char **argv)
{
    char path[4096];
    unsigned failures = 0;
    if (argc < 2)
        return 2;
    snprintf(path, sizeof path, "%s/basic-O3.co", argv[1]);
    FILE *f = fopen(path, "rb");
    if (f) {
        image_size = fread(image, 1, sizeof image, f);
        fclose(f);
    }
    if (!image_size) {
        fprintf(stderr, "%s: cannot be read\n", path);
        return 2;
    }
    find_text();
    moehal_virtual_reports_quiet(1);
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
        failures += test_kernel(&tests[i]);
    return failures != 0;
}
