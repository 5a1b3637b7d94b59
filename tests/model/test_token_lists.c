/* The two long lists of tokenizer.json have a reader of their own: it takes what jansson takes, and
 * what it reads is the same however it is spelt. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <moehal-model/tokenizer.h>
#include <moehal/error.h>

#include "mini_tokenizer.h"

/* ---- spellings ---- */

static void expect_the_mini_tokenizer(const char *text)
{
    static const char input[] = "aaaab \xc3\xa9 abc123 a";
    json_t *plain = mini_tokenizer();
    mh_tokenizer *wanted = load_mini(plain, NULL), *got = NULL;
    char *dir = make_dir();
    int32_t *ids[2];
    uint64_t count[2];
    write_file(dir, "tokenizer.json", text, strlen(text));
    if (mh_tokenizer_load(dir, &got))
        fail_msg("%s\n%s", mh_last_message(), text);
    remove_dir(dir);
    assert_int_equal(mh_tokenizer_vocab_size(got), mh_tokenizer_vocab_size(wanted));
    for (int32_t id = 0; id < (int32_t)mh_tokenizer_vocab_size(got); id++)
        assert_string_equal(mh_tokenizer_token(got, id), mh_tokenizer_token(wanted, id));
    assert_int_equal(mh_tokenizer_encode(wanted, input, sizeof(input) - 1, 0, &ids[0], &count[0]),
                     MH_OK);
    assert_int_equal(mh_tokenizer_encode(got, input, sizeof(input) - 1, 0, &ids[1], &count[1]),
                     MH_OK);
    assert_int_equal(count[0], count[1]);
    assert_memory_equal(ids[0], ids[1], count[0] * sizeof(**ids));
    mh_model_free(ids[0]);
    mh_model_free(ids[1]);
    mh_tokenizer_release(got);
    mh_tokenizer_release(wanted);
    json_decref(plain);
}

static void any_spelling_is_the_same(void **state)
{
    (void)state;
    static const size_t flags[] = {JSON_INDENT(4), JSON_ENSURE_ASCII,
                                   JSON_COMPACT | JSON_ESCAPE_SLASH,
                                   JSON_SORT_KEYS | JSON_INDENT(1) | JSON_ENSURE_ASCII};
    json_t *description = mini_tokenizer(), *model = json_object_get(description, "model");
    for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
        char *text = json_dumps(description, flags[i]);
        expect_the_mini_tokenizer(text);
        free(text);
    }
    /* Pairs; sorted keys put the merges before the vocabulary. */
    json_t *merges = json_object_get(model, "merges");
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const char *merge = json_string_value(json_array_get(merges, i));
        const char *space = strchr(merge, ' ');
        json_array_set_new(merges, i,
                           json_pack("[s%, s]", merge, (size_t)(space - merge), space + 1));
    }
    char *text = json_dumps(description, JSON_SORT_KEYS), *spelt = NULL;
    char *key = strstr(text, "\"vocab\"");
    expect_the_mini_tokenizer(text);
    assert_true(asprintf(&spelt, "%.*s\"voca\\u0062\"%s", (int)(key - text), text,
                         key + strlen("\"vocab\"")) > 0);
    expect_the_mini_tokenizer(spelt);
    free(spelt);
    free(text);
    json_decref(description);
}

static void characters_beyond_16_bits_come_in_pairs(void **state)
{
    (void)state;
    static const char text[] =
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"\\ud83d\\ude00\":0,\"\\u4f60/\\/\\\"\\\\\":1},"
        "\"merges\":[]},\"decoder\":{\"type\":\"ByteLevel\"},\"pre_tokenizer\":{\"type\":"
        "\"ByteLevel\",\"add_prefix_space\":false}}";
    char *dir = make_dir();
    mh_tokenizer *t = NULL;
    write_file(dir, "tokenizer.json", text, sizeof(text) - 1);
    if (mh_tokenizer_load(dir, &t))
        fail_msg("%s", mh_last_message());
    assert_string_equal(mh_tokenizer_token(t, 0), "\xf0\x9f\x98\x80");
    assert_string_equal(mh_tokenizer_token(t, 1), "\xe4\xbd\xa0//\"\\");
    mh_tokenizer_release(t);
    remove_dir(dir);
}

/* ---- what is no JSON ---- */

static const char small[] =
    "{\"added_tokens\":[],\"model\":{\"type\":\"BPE\", \"vocab\":{\"a\":0,\"b\" : "
    "1,\"\\u00e9\\n\":2,"
    "\"ab\":3}\n,\"merges\":[\"a b\", [\"a\", \"b\"] ]},\"decoder\":{\"type\":\"ByteLevel\"},"
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}}";

/* Each snippet in each byte's place and before it, in the model: jansson says whether that is JSON.
 */
static void jansson_and_the_reader_agree(void **state)
{
    (void)state;
    static const char *const snippets[] = {
        "",
        "\"",
        "\\",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "0",
        "-",
        "1.5",
        "e",
        " ",
        "\n",
        "\t",
        "\x01",
        "x",
        "\\u0000",
        "\\ud800",
        "\\udc00",
        "\\ud83d\\ude00",
        "\\u12g4",
        "\\x",
        "\\/",
        "\xc3\xa9",
        "\xc0\x80",
        "\xed\xa0\x80",
        "\xf5",
        "null",
        "\"a\":0,",
        "[[",
        "{\"vocab\":{}}",
    };
    char *dir = make_dir(), text[sizeof(small) + 32];
    size_t accepted = 0, refused = 0, size = sizeof(small) - 1;
    size_t begin = (size_t)(strstr(small, "\"model") - small);
    size_t end = (size_t)(strstr(small, ",\"decoder") - small);
    for (size_t i = 0; i < sizeof(snippets) / sizeof(*snippets); i++)
        for (size_t at = 2 * begin; at < 2 * end; at++) {
            size_t place = at / 2, length = strlen(snippets[i]), skip = at % 2;
            memcpy(text, small, place);
            memcpy(text + place, snippets[i], length);
            memcpy(text + place + length, small + place + skip, size - place - skip);
            length += size - skip;
            write_file(dir, "tokenizer.json", text, length);
            json_t *json = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
            mh_tokenizer *t = NULL;
            mh_status status = mh_tokenizer_load(dir, &t);
            if (!json && !status)
                fail_msg("accepted: %.*s", (int)length, text);
            if (json && strstr(mh_last_message(), ": line ") && status)
                fail_msg("%s: %.*s", mh_last_message(), (int)length, text);
            *(json ? &accepted : &refused) += 1;
            mh_tokenizer_release(t);
            json_decref(json);
        }
    assert_true(accepted > 1000 && refused > 4000);
    remove_dir(dir);
}

static void errors_say_where(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"{\"model\":{\n \"vocab\":{\"a\":0,\n  \"b\" 1}}}", "line 3, column 7: ':' is expected"},
        {"{\"model\":{\"vocab\":{\"a\xff\":0}}}", "line 1, column 22: not UTF-8"},
        {"{\"model\":{\"vocab\":{\"a\\q\":0}}}", "line 1, column 22: a wrong escape"},
        {"{\"model\":{\"vocab\":{\"a\n\":0}}}", "line 1, column 22: a control character"},
        {"{\"model\":{\"vocab\":{\"a\":0 \"b\":1}}}", "line 1, column 26: ',' or '}' is expected"},
        {"{\"model\":{\"merges\":[\"a b\" \"c d\"]}}", "',' or ']' is expected"},
        {"{\"model\":{\"vocab\":{\"a\":0}", "the file ends early"},
        /* Behind a list that was read: the place is the file's. */
        {"{\"model\":{\"vocab\":{\"a\":0,\n\"b\":1}, \"merges\":nul}}", "line 2, column "},
    };
    char *dir = make_dir();
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        mh_tokenizer *t = NULL;
        write_file(dir, "tokenizer.json", cases[i].text, strlen(cases[i].text));
        assert_int_equal(mh_tokenizer_load(dir, &t), MH_BAD_DATA);
        if (!strstr(mh_last_message(), cases[i].words))
            fail_msg("\"%s\" does not say \"%s\"", mh_last_message(), cases[i].words);
    }
    remove_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_spelling_is_the_same),
        cmocka_unit_test(characters_beyond_16_bits_come_in_pairs),
        cmocka_unit_test(jansson_and_the_reader_agree),
        cmocka_unit_test(errors_say_where),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
