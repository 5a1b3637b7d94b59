#include "tokenizer_golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <moehal/error.h>

void expect_ids(const mh_tokenizer *tokenizer, const char *name, const char *text, size_t bytes,
                const json_t *ids)
{
    int32_t *got = NULL;
    uint64_t count = 0;
    if (mh_tokenizer_encode(tokenizer, text, bytes, 0, &got, &count) != MH_OK)
        fail_msg("%s, \"%s\": %s", name, text, mh_last_message());
    for (uint64_t i = 0; i < count && i < json_array_size(ids); i++)
        if (got[i] != json_integer_value(json_array_get(ids, i)))
            fail_msg("%s, \"%s\": id %d is %d, not %d", name, text, (int)i, got[i],
                     (int)json_integer_value(json_array_get(ids, i)));
    if (count != json_array_size(ids))
        fail_msg("%s, \"%s\": %d ids, not %d", name, text, (int)count, (int)json_array_size(ids));
    mh_model_free(got);
}

static int32_t *ids_of(const json_t *ids)
{
    int32_t *out = malloc((json_array_size(ids) + 1) * sizeof(*out));
    assert_non_null(out);
    for (size_t i = 0; i < json_array_size(ids); i++)
        out[i] = (int32_t)json_integer_value(json_array_get(ids, i));
    return out;
}

static void expect_streamed(mh_tokenizer *tokenizer, const char *name, const int32_t *ids,
                            size_t count, uint32_t flags, const json_t *text)
{
    mh_detokenizer *d = NULL;
    const char *part;
    uint64_t bytes;
    const size_t size = json_string_length(text);
    size_t at = 0;
    assert_int_equal(mh_detokenizer_create(tokenizer, flags, &d), MH_OK);
    for (size_t i = 0; i <= count; i++) {
        mh_status status = i < count ? mh_detokenizer_push(d, ids[i], &part, &bytes)
                                     : mh_detokenizer_finish(d, &part, &bytes);
        assert_int_equal(status, MH_OK);
        assert_int_equal(part[bytes], 0);
        if (bytes > size - at || memcmp(json_string_value(text) + at, part, bytes))
            fail_msg("%s: token %d streams \"%s\", expected to continue \"%s\"", name, (int)i, part,
                     json_string_value(text) + at);
        at += bytes;
        if (at < size) /* nothing handed out ends inside a character */
            assert_true((json_string_value(text)[at] & 0xc0) != 0x80);
    }
    assert_int_equal(at, size);
    mh_detokenizer_release(d);
}

void expect_text(mh_tokenizer *tokenizer, const char *name, const json_t *ids, uint32_t flags,
                 const json_t *text)
{
    char *got = NULL;
    uint64_t bytes = 0;
    int32_t *list = ids_of(ids);
    assert_true(json_is_string(text));
    if (mh_tokenizer_decode(tokenizer, list, json_array_size(ids), flags, &got, &bytes) != MH_OK)
        fail_msg("%s: %s", name, mh_last_message());
    if (bytes != json_string_length(text) || memcmp(got, json_string_value(text), bytes))
        fail_msg("%s: decodes to \"%s\", not \"%s\"", name, got, json_string_value(text));
    assert_int_equal(got[bytes], 0);
    expect_streamed(tokenizer, name, list, json_array_size(ids), flags, text);
    mh_model_free(got);
    free(list);
}

size_t expect_golden_file(mh_tokenizer *tokenizer, const char *path)
{
    FILE *file = fopen(path, "rb");
    char *line = NULL;
    size_t capacity = 0, lines = 0;
    if (!file)
        fail_msg("%s: cannot be opened", path);
    while (getline(&line, &capacity, file) > 0) {
        char name[32];
        json_t *row = json_loads(line, JSON_ALLOW_NUL, NULL);
        assert_non_null(row);
        const json_t *text = json_object_get(row, "text"), *ids = json_object_get(row, "ids");
        snprintf(name, sizeof(name), "line %zu", ++lines);
        expect_ids(tokenizer, name, json_string_value(text), json_string_length(text), ids);
        expect_text(tokenizer, name, ids, 0, json_object_get(row, "decoded"));
        json_decref(row);
    }
    free(line);
    fclose(file);
    return lines;
}
