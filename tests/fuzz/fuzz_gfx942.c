/*
 * fuzz_gfx942.c: instruction words of gfx942, decoded, printed, and run for a moment. The first
 * byte says which checks and how many waves; the rest is the text of a kernel, whose s[0:1] point
 * to its arguments: the addresses of two buffers.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "../../virtual/amd/machine.h"

enum { MOST_WORDS = 4096, BUFFER = 4096 };

static struct vc_map *map;
static uint64_t text_at, args_at;

static void must(int is_so)
{
    if (!is_so)
        abort();
}

static uint64_t memory(uint64_t bytes, enum vc_kind kind)
{
    struct vc_alloc_info info = {.bytes = bytes, .align = 256, .kind = kind, .access = 1};
    uint64_t at = vc_alloc(map, &info);
    must(at != 0);
    return at;
}

static void set_up(void)
{
    char why[200];
    map = vc_map_create(why);
    must(map != NULL);
    text_at = memory(MOST_WORDS * 4, VC_MODULE);
    args_at = memory(256, VC_MODULE);
    uint64_t buffers[2] = {memory(BUFFER, VC_GLOBAL), memory(BUFFER, VC_GLOBAL)};
    memcpy((void *)(uintptr_t)args_at, buffers, sizeof buffers);
    vc_mark(map, buffers[0], BUFFER);
}

static void print(const uint32_t *words, size_t count)
{
    for (size_t k = 0; k < count; k++) {
        char text[400] = "";
        unsigned length = va_disassemble(words + k, count - k, text, sizeof text);
        must(length <= 3 && length <= count - k);
        must(text[0] && strlen(text) < sizeof text);
    }
}

static void execute(uint8_t choice, size_t count)
{
    struct va_code *code = va_code_create(text_at, count * 4);
    must(code != NULL);
    struct va_kernel kernel = {.name = "fuzz",
                               .entry = text_at,
                               .rsrc1 = 15 | 0xf0 << 12 | (uint32_t)(choice & 3) << 12 | 1 << 21,
                               .rsrc2 = 2 << 1 | 7 << 7,
                               .rsrc3 = 15, /* 64 VGPRs and 64 AGPRs */
                               .properties = 1 << 3,
                               .lds_bytes = 1024,
                               .scratch_bytes = 64};
    struct va_launch l = {.code = code,
                          .kernel = &kernel,
                          .grid = {1, 1, 1},
                          .workgroup = {choice & 4 ? 128 : 64, 1, 1},
                          .kernarg = args_at,
                          .map = map,
                          .checks = choice & 8 ? VA_CHECK_DEFAULT : VA_CHECK_BOUNDS,
                          .count = true,
                          .count_pcs = choice & 16,
                          .time_limit_ms = 2};
    struct va_counters counters;
    struct va_fault fault;
    enum va_status status = va_execute(&l, &counters, &fault);
    must(status == VA_OK || fault.text[0]); /* ended with a reason */
    va_counters_free(&counters);
    va_code_release(code);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint32_t words[MOST_WORDS];
    if (!map)
        set_up();
    if (size < 5)
        return 0;
    size_t count = (size - 1) / 4 < MOST_WORDS ? (size - 1) / 4 : MOST_WORDS;
    memcpy(words, data + 1, count * 4);
    print(words, count);
    memcpy((void *)(uintptr_t)text_at, words, count * 4);
    execute(data[0], count);
    return 0;
}
