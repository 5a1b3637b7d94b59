#include "instruction.h"

enum { WORDS = 128, MOST_NAMES = 2048 };

static uint32_t templates[2][WORDS];
static unsigned lengths[2];
static struct vc_map *map;
static uint64_t text_at, args_at;
static struct registers registers;
static char covered[MOST_NAMES][64];
static unsigned covered_count;

void instruction_template(const char *line)
{
    const char *at = line + strlen("template ");
    int which = *at++ == 's';
    char *next;
    for (lengths[which] = 0; lengths[which] < WORDS; at = next) {
        uint32_t word = (uint32_t)strtoul(at, &next, 16);
        if (next == at)
            break;
        templates[which][lengths[which]++] = word;
    }
}

static uint64_t memory(uint64_t bytes)
{
    struct vc_alloc_info info = {.bytes = bytes, .align = 4096, .kind = VC_MODULE, .access = 1};
    uint64_t at = vc_alloc(map, &info);
    assert_true(at != 0);
    return at;
}

struct registers *instruction_registers(void)
{
    char why[200];
    if (map)
        return &registers;
    map = vc_map_create(why);
    assert_non_null(map);
    registers.in = (void *)(uintptr_t)memory(sizeof *registers.in);
    registers.out = (void *)(uintptr_t)memory(sizeof *registers.out);
    text_at = memory(sizeof templates[0]);
    args_at = memory(16);
    memcpy((void *)(uintptr_t)args_at, (void *[]){registers.in, registers.out}, 16);
    return &registers;
}

/* Where the template's long s_nops begin, whose place is the instruction's. */
static unsigned place(const struct instruction *instruction)
{
    unsigned k = 0;
    while (k < lengths[instruction->scalar] && templates[instruction->scalar][k] != 0xbf80000f)
        k++;
    assert_true(k + instruction->count < lengths[instruction->scalar]);
    return k;
}

uint64_t instruction_address(const struct instruction *instruction, unsigned k)
{
    return text_at + 4ull * (place(instruction) + k);
}

bool instruction_run(const struct instruction *instruction, struct va_fault *fault)
{
    bool scalar = instruction->scalar;
    uint32_t *text = (uint32_t *)(uintptr_t)text_at, mode = instruction->mode;
    memcpy(text, templates[scalar], sizeof templates[0]);
    memcpy(text + place(instruction), instruction->words, instruction->count * 4);
    memset(registers.out, 0, sizeof *registers.out);
    struct va_code *code = va_code_create(text_at, lengths[scalar] * 4ull);
    assert_non_null(code);
    struct va_kernel kernel = {.name = instruction->name,
                               .entry = text_at,
                               .rsrc1 = 7 | (mode & 255) << 12 | (mode >> 8 & 1) << 21 |
                                        (mode >> 9 & 1) << 23 | (mode >> 23 & 1) << 26,
                               .rsrc2 = 2 << 1 | 1 << 7,
                               .rsrc3 = 7, /* 32 VGPRs and 32 AGPRs */
                               .properties = 1 << 3,
                               .lds_bytes = 1024};
    struct va_launch l = {.code = code,
                          .kernel = &kernel,
                          .grid = {scalar ? GROUPS : 1, 1, 1},
                          .workgroup = {LANES, 1, 1},
                          .kernarg = args_at,
                          .map = map,
                          .checks = VA_CHECK_BOUNDS};
    enum va_status status = va_execute(&l, NULL, fault);
    va_code_release(code);
    return status == VA_OK;
}

void instruction_covered(const char *name)
{
    size_t n = strcspn(name, "/");
    if (instruction_is_covered(name))
        return;
    assert_true(covered_count < MOST_NAMES && n < sizeof covered[0]);
    memcpy(covered[covered_count++], name, n);
}

bool instruction_is_covered(const char *name)
{
    size_t n = strcspn(name, "/");
    for (unsigned k = 0; k < covered_count; k++)
        if (!strncmp(covered[k], name, n) && !covered[k][n])
            return true;
    return false;
}
