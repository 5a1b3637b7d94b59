/* Speed of the machine: lane-instructions a second on one core, with checks off, on and with races;
 * one mma; loading a module. Each figure is printed with the instruction set that ran. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../../../virtual/common/memmap.h"
#include "../../../../virtual/nvidia/machine.h"

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* the launch runs on this thread */
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static char *read_file(const char *folder, const char *name, size_t *size)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "rb");
    if (!f) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(2);
    }
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    rewind(f);
    char *text = malloc((size_t)n + 1);
    *size = text ? fread(text, 1, (size_t)n, f) : 0;
    fclose(f);
    if (!text)
        exit(2);
    text[*size] = 0;
    return text;
}

static struct vc_map *map;

static uint64_t buffer(uint64_t bytes)
{
    struct vc_alloc_info info = {.bytes = bytes, .align = 256, .kind = VC_GLOBAL, .access = 1};
    uint64_t at = vc_alloc(map, &info);
    if (!at)
        exit(2);
    memset((void *)(uintptr_t)at, 0, bytes);
    vc_mark(map, at, bytes);
    return at;
}

static size_t find(const struct vn_module *m, const char *name)
{
    for (size_t i = 0; i < vn_module_functions(m); i++) {
        if (!strcmp(vn_module_function(m, i)->name, name))
            return i;
    }
    exit(2);
}

struct work { /* a kernel and how it is launched */
    const struct vn_image *image;
    const struct vn_module *module;
    const char *name;
    uint32_t grid[2], block;
    const void *params;
};

static double run(const struct work *k, unsigned checks, bool count, uint64_t *lanes)
{
    struct vn_launch l = {.image = k->image,
                          .function = find(k->module, k->name),
                          .grid = {k->grid[0], k->grid[1], 1},
                          .block = {k->block, 1, 1},
                          .params = k->params,
                          .map = map,
                          .sm_count = 132,
                          .checks = checks,
                          .count = count};
    struct vn_counters c;
    double t = now();
    if (vn_execute(&l, &c) != VN_OK)
        exit(1);
    t = now() - t;
    if (count)
        *lanes = c.lane_instructions;
    vn_counters_free(&c);
    return t;
}

/* The best of many runs, taken in turns: other work on the machine slows all kinds alike. */
static void compare(const struct work *k)
{
    enum { ROUNDS = 25, KINDS = 4 };
    static const struct {
        const char *name;
        unsigned checks;
        bool count;
    } kinds[KINDS] = {
        {"plain", 0, false},
        {"counters", 0, true},
        {"counters, bounds, unwritten", VN_CHECK_DEFAULT & ~VN_CHECK_SHARED_RACES, true},
        {"and shared races", VN_CHECK_DEFAULT, true}};
    double best[KINDS] = {1e30, 1e30, 1e30, 1e30};
    uint64_t lanes = 0;
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < KINDS; i++) {
            double t = run(k, kinds[i].checks, kinds[i].count, &lanes);
            best[i] = t < best[i] ? t : best[i];
        }
    }
    for (int i = 0; i < KINDS; i++)
        printf("%-10s %-28s %7.2f G lane-instructions/s/core\n", k->name, kinds[i].name,
               (double)lanes / best[i] * 1e-9);
    printf("%-10s %-28s %7.1f %%\n", k->name, "counting costs", (best[1] / best[0] - 1) * 100);
}

static struct vn_module *load(const char *text, size_t size)
{
    struct vn_diagnostic d;
    struct vn_module *m = vn_module_parse(text, size, &d);
    if (!m) {
        fprintf(stderr, "%u:%u: %s\n", d.line, d.column, d.text);
        exit(1);
    }
    return m;
}

int main(int argc, char **argv)
{
    const char *folder = argc > 1 ? argv[1] : ".";
    char why[200];
    map = vc_map_create(why);
    if (!map)
        return 2;
    size_t size, gemm_size;
    char *text = read_file(folder, "stream.ptx", &size),
         *gemm = read_file(folder, "gemm.ptx", &gemm_size);
    struct vn_module *m = load(text, size), *g = load(gemm, gemm_size);
    struct vn_image *image = vn_image_create(m, map, NULL, NULL);
    struct vn_image *gi = vn_image_create(g, map, NULL, NULL);
    uint32_t n = 1 << 18;
    struct {
        uint64_t x, y;
        uint32_t n;
        float a;
    } stream = {buffer(4 * n), buffer(4 * n), n, 0.5f};
    compare(&(struct work){image, m, "stream", {16, 1}, 256, &stream});
    uint32_t d = 256;
    struct {
        uint64_t a, b, c;
        uint32_t n;
    } matrices = {buffer(4 * d * d), buffer(4 * d * d), buffer(4 * d * d), d};
    compare(&(struct work){gi, g, "gemm", {d / 64, d / 64}, 256, &matrices});
    uint32_t keys = 512;
    struct {
        uint64_t q, k, v, o;
        uint32_t n;
    } att = {buffer(256 * 64), buffer(256 * keys), buffer(256 * keys), buffer(256 * 64), keys};
    compare(&(struct work){gi, g, "attention", {16, 1}, 128, &att});
    struct {
        uint64_t out;
        uint32_t n;
    } mma = {buffer(4096), 20000};
    double t, best = 1e30;
    for (int i = 0; i < 9; i++) {
        t = run(&(struct work){image, m, "mma_loop", {1, 1}, 32, &mma}, 0, false, NULL);
        best = t < best ? t : best;
    }
    printf("%-39s %7.0f ns\n", "mma.m16n8k16 bf16 and its loop", best / mma.n * 1e9);
    /* 100 KB: the gemm module's kernels again and again, under other names */
    char *big = malloc(400000);
    size_t used = 0, version = (size_t)(strstr(gemm, ".visible") - gemm);
    memcpy(big, gemm, version);
    used = version;
    for (int i = 0; used + gemm_size < 102400 + gemm_size / 2; i++) {
        for (const char *p = gemm + version; *p; p++) {
            if (!strncmp(p, ".entry ", 7)) {
                used += (size_t)sprintf(big + used, ".entry k%d_", i);
                p += 6;
            } else {
                big[used++] = *p;
            }
        }
    }
    best = 1e30;
    for (int i = 0; i < 5; i++) {
        t = now();
        struct vn_module *b = load(big, used);
        t = now() - t;
        best = t < best ? t : best;
        vn_module_release(b);
    }
    printf("%-39s %7.2f ms (%zu bytes)\n", "loading a module of 100 KB", best * 1e3, used);
    free(big);
    free(text);
    free(gemm);
    vn_image_destroy(image);
    vn_image_destroy(gi);
    vn_module_release(m);
    vn_module_release(g);
    vc_map_destroy(map);
    return 0;
}
