/*
 * The ABI, pinned: sizes and offsets of every struct (abi.def, checked by the compiler), the
 * numbers that are permanent, and that no public struct is missing from the list.
 *
 * argv: abi.def, then the folders of public headers
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moehal-model/chat.h>
#include <moehal-model/plan.h>
#include <moehal-model/session.h>
#include <moehal-model/synth.h>
#include <moehal/backend.h>
#include <moehal/moehal.h>

#define ABI_STRUCT(type, bytes) _Static_assert(sizeof(type) == (bytes), #type);
#define ABI_FIELD(type, field, offset, bytes)                                                      \
    _Static_assert(offsetof(type, field) == (offset) && sizeof(((type *)0)->field) == (bytes),     \
                   #type "." #field);
#include "abi.def"

_Static_assert(MH_ABI == 1, "a new MH_ABI wants a new abi.def and frozen headers");
_Static_assert(MH_OP_EMBED == 1 && MH_OP_LINEAR == 3 && MH_OP_ATTENTION == 6 && MH_OP_ROUTER == 8 &&
                   MH_OP_SAMPLE == 15 && MH_OP_FILL == 18 && MH_OP_EXPERTS_DOWN_COMBINE == 24 &&
                   MH_OP_NORM_LINEAR == 25 && MH_OP_MOE_DOWN_COMBINE == 29 &&
                   MH_OP_ATTENTION_PART == 30 && MH_OP_ATTENTION_MERGE == 31,
               "op ids are permanent");
_Static_assert(MH_F32 == 1 && MH_F16 == 2 && MH_BF16 == 3 && MH_I32 == 4 && MH_U32 == 5, "dtypes");
_Static_assert(MH_FORMAT_F32 == 1 && MH_FORMAT_F16 == 2 && MH_FORMAT_BF16 == 3 &&
                   MH_FORMAT_FP8 == 4,
               "formats");
_Static_assert(MH_OK == 0 && MH_BAD_INDEX == 5 && MH_DEVICE_LOST == 9 && MH_INTERNAL == 15,
               "status");

static int argument_count;
static char **arguments;

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    char *text = calloc(1, 1 << 20);
    assert_non_null(file);
    assert_true(fread(text, 1, (1 << 20) - 1, file) > 0);
    fclose(file);
    return text;
}

/* Each "typedef struct X {" of a header is in the list. */
static int check_header(const char *path, const char *list)
{
    char *text = read_file(path);
    int found = 0;
    for (char *at = text; (at = strstr(at, "typedef struct mh_")); at++) {
        char name[96], wanted[128];
        int used = 0;
        if (sscanf(at, "typedef struct %90[a-z_0-9] {%n", name, &used) != 1 || !used)
            continue;
        snprintf(wanted, sizeof(wanted), "ABI_STRUCT(%s,", name);
        if (!strstr(list, wanted))
            fail_msg("%s: struct %s is not pinned in abi.def", path, name);
        found++;
    }
    free(text);
    return found;
}

static void every_struct_is_pinned(void **state)
{
    (void)state;
    char *list = read_file(arguments[1]);
    int found = 0;
    for (int i = 2; i < argument_count; i++) {
        DIR *folder = opendir(arguments[i]);
        assert_non_null(folder);
        for (struct dirent *entry; (entry = readdir(folder));) {
            char path[4096];
            size_t length = strlen(entry->d_name);
            snprintf(path, sizeof(path), "%s/%s", arguments[i], entry->d_name);
            if (length > 2 && !strcmp(entry->d_name + length - 2, ".h"))
                found += check_header(path, list);
        }
        closedir(folder);
    }
    assert_true(found > 50);
    free(list);
}

static void names_and_sizes_follow_the_tables(void **state)
{
    (void)state;
    assert_string_equal(mh_op_name(MH_OP_MLA_KV), "mla_kv");
    assert_string_equal(mh_op_name(12345), "?");
    assert_int_equal(mh_op_size(MH_OP_LINEAR), sizeof(mh_op_linear));
    assert_int_equal(mh_op_size(0), 0);
    assert_string_equal(mh_dtype_name(MH_BF16), "bf16");
    assert_int_equal(mh_dtype_size(MH_BF16), 2);
    assert_string_equal(mh_format_name(MH_FORMAT_FP8), "fp8");
    assert_int_equal(mh_format_bytes(MH_FORMAT_FP8, 300, 200), 300 * 200 + 3 * 2 * 4);
    assert_int_equal(mh_format_bytes(MH_FORMAT_F32, INT64_MAX, INT64_MAX), 0);
    assert_int_equal(mh_format_bytes(MH_FORMAT_F32, -1, 4), 0);
    assert_int_equal(mh_format_bytes(MH_FORMAT_F32, 4, -1), 0);
    assert_string_equal(mh_status_text(MH_DEVICE_LOST), "device lost");
    assert_int_equal(mh_abi(), MH_ABI);
}

int main(int argc, char **argv)
{
    argument_count = argc;
    arguments = argv;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_struct_is_pinned),
        cmocka_unit_test(names_and_sizes_follow_the_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
