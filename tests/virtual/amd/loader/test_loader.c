/* The loader on what clang makes (tests/fuzz/seeds/code_object; objects.hip beside this file is
 * their source), and on the same with something broken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../../../virtual/amd/loader/code_object.h"

static const char *folder;
static char why[VL_WHY];
static bool wrong_target;

struct file {
    uint8_t *bytes;
    size_t size;
};

static struct file read_file(const char *name)
{
    char path[4096];
    struct file file = {.bytes = malloc(1 << 16)};
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_non_null(file.bytes);
    file.size = fread(file.bytes, 1, 1 << 16, f);
    fclose(f);
    return file;
}

static struct vl_code *load(const void *bytes, size_t size)
{
    size_t picked;
    why[0] = 0;
    const void *elf = vl_image_pick(bytes, size, "gfx942", &picked, &wrong_target, why);
    return elf ? vl_code_parse(elf, picked, "gfx942", &wrong_target, why) : NULL;
}

/* Everything that objects.hip says, found again. */
static void check_object(const char *name, uint32_t version, uint32_t preload)
{
    struct file file = read_file(name);
    assert_int_equal(vl_image_size(file.bytes, why), file.size);
    struct vl_code *code = load(file.bytes, file.size);
    if (!code)
        fail_msg("%s: %s", name, why);
    memset(file.bytes, 0xff, file.size); /* what was parsed is copied */
    free(file.bytes);
    assert_int_equal(code->version, version);
    assert_int_equal(code->kernel_count, 1);
    const struct vl_kernel *k = vl_code_kernel(code, "add");
    assert_non_null(k);
    assert_null(vl_code_kernel(code, "add.kd"));
    assert_int_equal(k->descriptor.group_segment, 256);
    assert_int_equal(k->descriptor.preload_length, preload);
    assert_int_equal(k->explicit_args, 3);
    assert_int_equal(k->explicit_bytes, 20);
    assert_int_equal(k->args[0].kind, VL_ARG_POINTER);
    assert_int_equal(k->args[1].offset, 8);
    assert_int_equal(k->args[2].kind, VL_ARG_BY_VALUE);
    assert_int_equal(k->args[2].size, 4);
    assert_int_equal(k->max_threads, 1024);
    assert_true(k->kernarg_size >= 20 + 8);

    const struct vl_variable *counter = vl_code_variable(code, "counter");
    const struct vl_variable *table = vl_code_variable(code, "table");
    const struct vl_variable *pointer = vl_code_variable(code, "pointer");
    assert_true(counter && table && pointer);
    assert_int_equal(table->size, 16);
    uint8_t *image = calloc(1, code->span);
    const uint64_t address = 0x712345678000;
    uint64_t target;
    assert_non_null(image);
    vl_code_place(code, image, address);
    assert_int_equal(image[counter->at], 5);
    assert_memory_equal(image + table->at, ((float[]){1, 2, 3, 4}), 16);
    memcpy(&target, image + pointer->at, 8);
    assert_int_equal(target, address + counter->at); /* relocated */
    free(image);
    vl_code_free(code);
}

static void versions(void **state)
{
    (void)state;
    check_object("v4-O0.co", 4, 0);
    check_object("v5-O3.co", 5, 0);
    check_object("v6-preload.co", 6, 5); /* dwords: two pointers and an int */
    check_object("two.hipfb", 5, 0);
}

static void hidden_arguments(void **state)
{
    (void)state;
    struct file file = read_file("v5-O3.co");
    struct vl_code *code = load(file.bytes, file.size);
    assert_non_null(code);
    const struct vl_kernel *k = vl_code_kernel(code, "add");
    unsigned counts = 0, sizes = 0;
    for (uint32_t i = k->explicit_args; i < k->arg_count; i++) {
        assert_true(k->args[i].kind >= VL_ARG_FIRST_HIDDEN);
        counts += k->args[i].kind == VL_ARG_BLOCK_COUNT_X && k->args[i].offset == 24;
        sizes += k->args[i].kind == VL_ARG_GROUP_SIZE_X && k->args[i].offset == 36;
    }
    assert_int_equal(counts, 1);
    assert_int_equal(sizes, 1);
    vl_code_free(code);
    free(file.bytes);
}

/* Source lines, of a kernel's first instruction: objects without DWARF know none. */
static void lines(void **state)
{
    const char *name;
    uint32_t line;
    (void)state;
    struct file file = read_file("v5-O3.co");
    struct vl_code *code = load(file.bytes, file.size);
    assert_non_null(code);
    assert_false(vl_code_line(code, code->kernels[0].entry, &name, &line));
    vl_code_free(code);
    free(file.bytes);
    file = read_file("lines.co");
    code = load(file.bytes, file.size);
    assert_non_null(code);
    assert_true(vl_code_line(code, code->kernels[0].entry, &name, &line));
    assert_string_equal(name, "objects.hip");
    assert_in_range(line, 11, 19); /* the kernel's lines there */
    assert_false(vl_code_line(code, code->text_at - 4, &name, &line));
    vl_code_free(code);
    free(file.bytes);
}

static void refused(const char *name, bool target, const char *reason)
{
    struct file file = read_file(name);
    assert_null(load(file.bytes, file.size));
    if (!strstr(why, reason))
        fail_msg("%s: \"%s\" does not say \"%s\"", name, why, reason);
    assert_int_equal(wrong_target, target);
    free(file.bytes);
}

static void refusals(void **state)
{
    (void)state;
    refused("gfx90a.co", true, "built for gfx90a (machine 0x3f), device is gfx942");
    refused("other.hipfb", true, "built for gfx1100, gfx90a, device is gfx942");
    refused("compressed.hipfb", false, "compressed bundle (CCOB)");
    assert_null(load("PTX?", 4));
    assert_non_null(strstr(why, "neither an ELF code object nor a bundle"));
    assert_int_equal(vl_image_size("PTX?", why), 0);
}

/* A field of a good file, overwritten: its reason. */
static void broken_fields(void **state)
{
    static const struct {
        size_t at;
        uint8_t bytes[8];
        size_t count;
        const char *reason;
    } cases[] = {
        {4, {1}, 1, "no 64-bit little-endian"},
        {7, {0}, 1, "OS ABI is 0"},
        {8, {1}, 1, "code object version 3: 4 to 6"},
        {8, {5}, 1, "code object version 7: 4 to 6"},
        {16, {1, 0}, 2, "type 1: not linked"},
        {18, {62, 0}, 2, "machine 62"},
        {32, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 8, "beyond the file's end"},
        {48, {0x4c, 0x03}, 2, "gfx942:xnack+"},
        {48, {0x4c, 0x08}, 2, "gfx942:sramecc-"},
        {48, {0x7e}, 1, "machine 0x7e"},
        {54, {57, 0}, 2, "program headers of 57 bytes"},
        {56, {0, 0}, 2, "no executable segment"},
        /* the second program header is the first segment: offset, address, bytes */
        {64 + 56 + 8, {0, 0, 0, 0xff, 0xff}, 5, "beyond the file's end"},
        {64 + 56 + 16, {0, 0, 0, 0, 0xff}, 5, "more than an image may have"},
        {64 + 56 + 40, {1, 0, 0, 0, 0}, 5, "more than an image may have"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct file file = read_file("v5-O3.co");
        memcpy(file.bytes + cases[i].at, cases[i].bytes, cases[i].count);
        assert_null(load(file.bytes, file.size));
        if (!strstr(why, cases[i].reason))
            fail_msg("case %zu: \"%s\" does not say \"%s\"", i, why, cases[i].reason);
        free(file.bytes);
    }
}

/* The first place of a text in the file. */
static uint8_t *find(const struct file *file, const char *text)
{
    uint8_t *at = memmem(file->bytes, file->size, text, strlen(text));
    assert_non_null(at);
    return at;
}

static void broken_metadata(void **state)
{
    static const struct {
        const char *text; /* overwritten with `with` at `skip` bytes from it */
        size_t skip;
        const char *with;
        const char *reason;
    } cases[] = {
        {".value_kind", 0, ".value_kine", "has no .value_kind"},
        {"global_buffer", 0, "global_buffet", "global_buffet is unknown"},
        {"add.kd", 0, "odd.kd", "there is no symbol odd.kd"},
        {"AMDGPU", 0, "AMDGPV", "no metadata note"},
        {".wavefront_size", 15, "\x20", "waves of 32"},
        {"amdhsa.kernels", 14, "\xdd\xff\xff\xff\xff", "more elements than"},
        {"amdhsa.kernels", 14, "\xc1", "a type that metadata does not use"},
        {".kernarg_segment_size", 21, "\xcd\x00\x10", "ends at byte"},
        {".name", 5, "\xd9\xff", "is longer than the metadata"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct file file = read_file("v5-O3.co");
        size_t n = strlen(cases[i].with);
        n = n ? n : 1;
        if (cases[i].with[0] == '\xcd')
            n = 3;
        memcpy(find(&file, cases[i].text) + cases[i].skip, cases[i].with, n);
        assert_null(load(file.bytes, file.size));
        if (!strstr(why, cases[i].reason))
            fail_msg("case %zu: \"%s\" does not say \"%s\"", i, why, cases[i].reason);
        free(file.bytes);
    }
}

/* Every length that is too short, and random damage: a reason, or an object that keeps its word. */
static void damage(void **state)
{
    static const char *const names[] = {"v4-O0.co", "v5-O3.co", "v6-preload.co", "two.hipfb",
                                        "lines.co"};
    uint64_t seed = 88172645463325252u;
    unsigned refused_count = 0;
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct file file = read_file(names[i]);
        for (size_t n = 0; n < file.size; n += 37) {
            uint8_t *exact = malloc(n ? n : 1); /* so that a sanitizer sees the end */
            assert_non_null(exact);
            memcpy(exact, file.bytes, n);
            vl_code_free(load(exact, n));
            free(exact);
        }
        for (int round = 0; round < 2000; round++) {
            uint8_t *copy = malloc(file.size);
            assert_non_null(copy);
            memcpy(copy, file.bytes, file.size);
            for (int k = 0; k < 1 + round % 4; k++) {
                seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
                copy[(seed >> 8) % file.size] = (uint8_t)seed;
            }
            struct vl_code *code = load(copy, file.size);
            assert_true(code || why[0]);
            refused_count += !code;
            vl_code_free(code);
            free(copy);
        }
        free(file.bytes);
    }
    assert_true(refused_count > 100);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(versions),      cmocka_unit_test(hidden_arguments),
        cmocka_unit_test(lines),         cmocka_unit_test(refusals),
        cmocka_unit_test(broken_fields), cmocka_unit_test(broken_metadata),
        cmocka_unit_test(damage),
    };
    folder = argc > 1 ? argv[1] : ".";
    return cmocka_run_group_tests(tests, NULL, NULL);
}
