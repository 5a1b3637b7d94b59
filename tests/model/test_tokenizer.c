/* The tokenizer on the bundled model and on small ones: what the `tokenizers` library gives, and
 * that broken or foreign files are refused in words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include <moehal-model/tokenizer.h>
#include <moehal/error.h>

#include "mini_tokenizer.h"
#include "tokenizer_golden.h"

static mh_tokenizer *load_fairy(void)
{
    mh_tokenizer *tokenizer = NULL;
    char *dir = data_path("MOEHAL_TEST_MODELS", "fairy");
    if (mh_tokenizer_load(dir, &tokenizer) != MH_OK)
        fail_msg("%s", mh_last_message());
    free(dir);
    return tokenizer;
}

static void fairy_matches_golden(void **state)
{
    (void)state;
    mh_tokenizer *tokenizer = load_fairy();
    char *path = data_path("MOEHAL_TEST_DATA", "golden/fairy/tokenizer.jsonl");
    assert_int_equal(expect_golden_file(tokenizer, path), 97);
    free(path);
    mh_tokenizer_release(tokenizer);
}

static void fairy_properties(void **state)
{
    (void)state;
    mh_tokenizer *t = load_fairy();
    assert_int_equal(mh_tokenizer_vocab_size(t), 4096);
    assert_int_equal(mh_tokenizer_bos(t), 0);
    assert_int_equal(mh_tokenizer_eos(t), 1);
    assert_int_equal(mh_tokenizer_adds_bos(t), 1);
    assert_int_equal(mh_tokenizer_find(t, "<｜Assistant｜>"), 4095);
    assert_int_equal(mh_tokenizer_find(t, "<｜Assistant"), -1);
    assert_int_equal(mh_tokenizer_find(t, ""), -1);
    assert_string_equal(mh_tokenizer_token(t, 4094), "<｜User｜>");
    assert_null(mh_tokenizer_token(t, 4096));
    assert_null(mh_tokenizer_token(t, -1));
    assert_non_null(strstr(mh_tokenizer_chat_template(t), "add_generation_prompt"));
    mh_tokenizer_release(mh_tokenizer_retain(t));
    assert_int_equal(mh_tokenizer_eos(t), 1); /* the retained reference is still ours */
    mh_tokenizer_release(t);
    mh_tokenizer_release(NULL);
}

static void flags_of_encode(void **state)
{
    (void)state;
    static const char text[] = "<｜User｜>Hi";
    mh_tokenizer *t = load_fairy();
    int32_t *ids;
    uint64_t count, bytes;
    char *back;
    assert_int_equal(mh_tokenizer_encode(t, text, sizeof(text) - 1, MH_ENCODE_BOS, &ids, &count),
                     MH_OK);
    assert_int_equal(count, 4); /* <User>Hi is 4094 42 75 in the golden file */
    assert_int_equal(ids[0], 0);
    assert_int_equal(ids[1], 4094);
    mh_model_free(ids);
    assert_int_equal(mh_tokenizer_encode(t, text, sizeof(text) - 1, MH_ENCODE_PLAIN, &ids, &count),
                     MH_OK);
    for (uint64_t i = 0; i < count; i++)
        assert_int_not_equal(ids[i], 4094);
    assert_int_equal(mh_tokenizer_decode(t, ids, count, 0, &back, &bytes), MH_OK);
    assert_string_equal(back, text);
    mh_model_free(back);
    mh_model_free(ids);
    assert_int_equal(mh_tokenizer_encode(t, NULL, 0, 0, &ids, &count), MH_OK);
    assert_int_equal(count, 0);
    assert_non_null(ids);
    mh_model_free(ids);
    assert_int_equal(mh_tokenizer_encode(t, "a", 1, 4, &ids, &count), MH_INVALID_ARGUMENT);
    mh_tokenizer_release(t);
}

static void unknown_ids_decode_to_nothing(void **state)
{
    (void)state;
    mh_tokenizer *t = load_fairy();
    const int32_t ids[] = {42, -1, 4096, INT32_MAX, INT32_MIN, 75, 1};
    char *text;
    assert_int_equal(mh_tokenizer_decode(t, ids, 7, MH_DECODE_SKIP_SPECIAL, &text, NULL), MH_OK);
    assert_string_equal(text, "Hi");
    mh_model_free(text);
    mh_tokenizer_release(t);
}

static void refuses_text_that_is_not_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *offset;
    } cases[] = {
        {"abc\x80", "0x80 at offset 3"},          {"abcdefghijklm\xff", "0xff at offset 13"},
        {"\xc0\x80", "0xc0 at offset 0"},         {"x\xed\xa0\x80", "0xed at offset 1"},
        {"\xf4\x90\x80\x80", "0xf4 at offset 0"}, {"\xf5\x80\x80\x80", "0xf5 at offset 0"},
        {"\xe0\x9f\xbf", "0xe0 at offset 0"},     {"\xc3\xa9\xf0\x9f\x99", "0xf0 at offset 2"}};
    mh_tokenizer *t = load_fairy();
    int32_t *ids;
    uint64_t count;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        assert_int_equal(
            mh_tokenizer_encode(t, cases[i].text, strlen(cases[i].text), 0, &ids, &count),
            MH_INVALID_ARGUMENT);
        if (!strstr(mh_last_message(), cases[i].offset))
            fail_msg("case %zu: \"%s\" does not say \"%s\"", i, mh_last_message(), cases[i].offset);
    }
    mh_tokenizer_release(t);
}

/* behaviours.json: what the `tokenizers` library itself gave (see make_behaviours.py beside it). */
static void behaves_as_the_library(void **state)
{
    (void)state;
    char *path = data_path("MOEHAL_TEST_DATA", "tokenizer/behaviours.json");
    json_t *rows = read_json_file(path), *row, *value;
    size_t index;
    const char *field;
    assert_true(json_array_size(rows) > 600);
    json_array_foreach(rows, index, row)
    {
        char name[96];
        json_t *description = mini_tokenizer();
        const json_t *text = json_object_get(row, "text"), *ids = json_object_get(row, "ids");
        snprintf(name, sizeof(name), "row %zu (%s)", index,
                 json_string_value(json_object_get(row, "name")));
        json_object_foreach(json_object_get(row, "change"), field, value)
            set_field(description, field, json_incref(value));
        mh_tokenizer *tokenizer = load_mini(description, NULL);
        if (text)
            expect_ids(tokenizer, name, json_string_value(text), json_string_length(text), ids);
        expect_text(tokenizer, name, ids, 0, json_object_get(row, "decoded"));
        expect_text(tokenizer, name, ids, MH_DECODE_SKIP_SPECIAL,
                    json_object_get(row, "decoded_without_special"));
        mh_tokenizer_release(tokenizer);
        json_decref(description);
    }
    json_decref(rows);
    free(path);
}

/* A piece of n bytes takes n log n steps. With anything quadratic a million bytes take minutes. */
static void long_pieces_are_not_quadratic(void **state)
{
    (void)state;
    json_t *description = mini_tokenizer();
    mh_tokenizer *t = load_mini(description, NULL);
    const size_t bytes = 1000000;
    char *text = malloc(bytes);
    int32_t *ids;
    uint64_t count;
    assert_non_null(text);
    memset(text, 'a', bytes);
    clock_t begin = clock();
    assert_int_equal(mh_tokenizer_encode(t, text, bytes, 0, &ids, &count), MH_OK);
    assert_true((double)(clock() - begin) / CLOCKS_PER_SEC < 20);
    assert_int_equal(count, bytes / 4); /* "aaaa" */
    for (uint64_t i = 0; i < count; i++)
        assert_int_equal(ids[i], 262);
    mh_model_free(ids);
    free(text);
    mh_tokenizer_release(t);
    json_decref(description);
}

static void a_byte_without_a_token_is_an_error(void **state)
{
    (void)state;
    json_t *description = mini_tokenizer();
    int32_t *ids;
    uint64_t count;
    json_object_del(json_object_get(json_object_get(description, "model"), "vocab"), "z");
    mh_tokenizer *t = load_mini(description, NULL);
    assert_int_equal(mh_tokenizer_encode(t, "xyz", 3, 0, &ids, &count), MH_UNSUPPORTED);
    assert_non_null(strstr(mh_last_message(), "0x7a"));
    mh_tokenizer_release(t);
    json_decref(description);
}

/* ---- files that are refused ---- */

static void expect_refusal(const char *dir, mh_status status, const char *words)
{
    mh_tokenizer *t = NULL;
    mh_status got = mh_tokenizer_load(dir, &t);
    if (got != status || t)
        fail_msg("expected %s (\"%s\"), got %s: %s", mh_status_text(status), words,
                 mh_status_text(got), mh_last_message());
    if (!strstr(mh_last_message(), words))
        fail_msg("\"%s\" does not say \"%s\"", mh_last_message(), words);
}

typedef struct {
    const char *field, *json; /* the field's new value; NULL: the field is deleted */
    mh_status status;
    const char *words;
} mutation;

#define STEP(inside)                                                                               \
    "{\"type\":\"Sequence\",\"pretokenizers\":[" inside ",{\"type\":\"ByteLevel\"}]}"
#define REGEX(regex)                                                                               \
    STEP("{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"" regex "\"}}")
#define ADDED(inside) "[{\"id\":300,\"content\":\"<x>\"}," inside "]"

static const mutation mutations[] = {
    {"model", NULL, MH_BAD_DATA, "model: missing"},
    {"model", "[]", MH_BAD_DATA, "model: missing, or not an object"},
    {"model.type", NULL, MH_BAD_DATA, "model.type"},
    {"model.type", "\"Unigram\"", MH_UNSUPPORTED, "\"Unigram\""},
    {"model.type", "\"WordPiece\"", MH_UNSUPPORTED, "\"WordPiece\""},
    {"model.byte_fallback", "true", MH_UNSUPPORTED, "byte_fallback"},
    {"model.dropout", "0.5", MH_UNSUPPORTED, "dropout"},
    {"model.continuing_subword_prefix", "\"##\"", MH_UNSUPPORTED, "continuing_subword_prefix"},
    {"model.end_of_word_suffix", "\"</w>\"", MH_UNSUPPORTED, "end_of_word_suffix"},
    {"model.ignore_merges", "1", MH_BAD_DATA, "ignore_merges"},
    {"model.vocab", NULL, MH_BAD_DATA, "model.vocab"},
    {"model.vocab", "[\"a\"]", MH_BAD_DATA, "model.vocab"},
    {"model.vocab", "{}", MH_BAD_DATA, "model.vocab: empty"},
    {"model.vocab.a", "\"7\"", MH_BAD_DATA, "the id of \"a\" is missing, or not an integer"},
    {"model.vocab.a", "1.5", MH_BAD_DATA, "not an integer"},
    {"model.vocab.a", "-1", MH_BAD_DATA, "is -1 (limit"},
    {"model.vocab.a", "2147483648", MH_BAD_DATA, "is 2147483648 (limit"},
    {"model.vocab.a", "4294967297", MH_BAD_DATA, "is 4294967297 (limit"},
    {"model.vocab.a", "16777216", MH_BAD_DATA, "limit 0 to 16777215"},
    {"model.vocab.a", "98", MH_BAD_DATA, "same id 98"},
    {"model.merges", NULL, MH_BAD_DATA, "model.merges"},
    {"model.merges", "{}", MH_BAD_DATA, "model.merges: missing, or not a list"},
    {"model.merges", "[\"ab\"]", MH_BAD_DATA, "model.merges[0]"},
    {"model.merges", "[\"a b\", 3]", MH_BAD_DATA, "model.merges[1]"},
    {"model.merges", "[[\"a\"]]", MH_BAD_DATA, "model.merges[0]"},
    {"model.merges", "[[\"a\", 1]]", MH_BAD_DATA, "model.merges[0]"},
    {"model.merges", "[\"a b\", \"a unknown\"]", MH_BAD_DATA, "merges[1]: \"unknown\" is not in"},
    {"model.merges", "[\"b b\"]", MH_BAD_DATA, "merges[0]: \"bb\" is not in"},
    {"added_tokens", "{}", MH_BAD_DATA, "added_tokens: not a list"},
    {"added_tokens", "[7]", MH_BAD_DATA, "added_tokens[0].content"},
    {"added_tokens", "[{\"id\":300,\"content\":\"\"}]", MH_BAD_DATA, "added_tokens[0].content"},
    {"added_tokens", "[{\"content\":\"<x>\"}]", MH_BAD_DATA, "the id of \"<x>\" is missing"},
    {"added_tokens", ADDED("{\"id\":300,\"content\":\"<y>\"}"), MH_BAD_DATA, "300"},
    {"added_tokens", ADDED("{\"id\":300,\"content\":\"<x>\"}"), MH_BAD_DATA, "300 is there twice"},
    {"added_tokens", ADDED("{\"id\":301,\"content\":\"<x>\"}"), MH_BAD_DATA,
     "two ids, 300 and 301"},
    {"added_tokens", ADDED("{\"id\":97,\"content\":\"<y>\"}"), MH_BAD_DATA, "same id 97"},
    {"added_tokens", ADDED("{\"id\":301,\"content\":\"<y>\",\"lstrip\":0}"), MH_BAD_DATA, "lstrip"},
    {"added_tokens", ADDED("{\"id\":301,\"content\":\"<y>\",\"single_word\":true}"), MH_UNSUPPORTED,
     "added_tokens[1].single_word"},
    {"normalizer", "{\"type\":\"NFC\"}", MH_UNSUPPORTED, "\"NFC\""},
    {"normalizer", "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Lowercase\"}]}",
     MH_UNSUPPORTED, "\"Lowercase\""},
    {"normalizer", "{\"type\":\"Sequence\"}", MH_BAD_DATA, "normalizers"},
    {"normalizer", "3", MH_BAD_DATA, "normalizer.type"},
    {"decoder", NULL, MH_BAD_DATA, "decoder.type"},
    {"decoder", "{\"type\":\"Metaspace\"}", MH_UNSUPPORTED, "\"Metaspace\""},
    {"post_processor", "{\"type\":\"BertProcessing\"}", MH_UNSUPPORTED, "\"BertProcessing\""},
    {"pre_tokenizer", NULL, MH_BAD_DATA, "pre_tokenizer.type"},
    {"pre_tokenizer", "{\"type\":\"Whitespace\"}", MH_UNSUPPORTED, "\"Whitespace\""},
    {"pre_tokenizer", "{\"type\":\"Sequence\",\"pretokenizers\":[]}", MH_UNSUPPORTED, "ByteLevel"},
    {"pre_tokenizer", "{\"type\":\"Sequence\"}", MH_BAD_DATA, "pretokenizers"},
    {"pre_tokenizer", STEP("{\"type\":\"ByteLevel\"}"), MH_UNSUPPORTED, "after ByteLevel"},
    {"pre_tokenizer", STEP("{\"type\":\"Split\"}"), MH_BAD_DATA, "pretokenizers[0].pattern"},
    {"pre_tokenizer", STEP("{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"}}"), MH_BAD_DATA,
     "pretokenizers[0].behavior"},
    {"pre_tokenizer",
     STEP("{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Sideways\"}"),
     MH_UNSUPPORTED, "\"Sideways\""},
    {"pre_tokenizer.use_regex", "\"yes\"", MH_BAD_DATA, "use_regex"},
    {"pre_tokenizer", REGEX("ab(c"), MH_BAD_DATA, "at offset 4 of \"ab(c\""},
    {"pre_tokenizer", REGEX("\\\\sa(b"), MH_BAD_DATA, "at offset 5 of"}, /* \s is rewritten */
    {"pre_tokenizer", REGEX("a{2,1}"), MH_BAD_DATA, "pretokenizers[0].pattern.Regex: "},
    {"pre_tokenizer", REGEX("[a-"), MH_BAD_DATA, "[a-"},
    {"pre_tokenizer", REGEX("a\\\\w"), MH_UNSUPPORTED, "\"\\w\" at offset 1"},
    {"pre_tokenizer", REGEX("\\\\bx"), MH_UNSUPPORTED, "\"\\b\" at offset 0"},
    {"pre_tokenizer", REGEX("(a)\\\\1"), MH_UNSUPPORTED, "\"\\1\" at offset 3"},
    {"pre_tokenizer", REGEX("x\\\\K"), MH_UNSUPPORTED, "\"\\K\""},
    {"pre_tokenizer", REGEX("a\\\\"), MH_UNSUPPORTED, "at offset 1"},
    {"pre_tokenizer", REGEX("[a[:alpha:]]"), MH_UNSUPPORTED, "\"[\" at offset 2"},
    {"pre_tokenizer", REGEX("[a&&b]"), MH_UNSUPPORTED, "\"&&\" at offset 2"},
    {"pre_tokenizer", REGEX("(?m:.)"), MH_UNSUPPORTED, "\"(?m\" at offset 0"},
    {"pre_tokenizer", REGEX("(*ACCEPT)"), MH_UNSUPPORTED, "\"(*A\""},
    {"pre_tokenizer", REGEX("a{,3}"), MH_UNSUPPORTED, "\"{,\""},
    {"pre_tokenizer", REGEX("a{3}+"), MH_UNSUPPORTED, "\"}+\""},
    {"pre_tokenizer", REGEX("\\\\p{Nonsense}"), MH_BAD_DATA, "Nonsense"},
    {"pre_tokenizer", REGEX("\\\\p{L"), MH_UNSUPPORTED, "\"\\p{\""},
};

static void broken_files_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(mutations) / sizeof(*mutations); i++) {
        const mutation *m = &mutations[i];
        json_t *description = mini_tokenizer(), *parent = description;
        const char *key = m->field, *dot;
        for (; (dot = strchr(key, '.')); key = dot + 1) {
            char name[32];
            snprintf(name, sizeof(name), "%.*s", (int)(dot - key), key);
            parent = json_object_get(parent, name);
        }
        if (m->json) {
            json_t *value = json_loads(m->json, JSON_DECODE_ANY, NULL);
            if (!value)
                fail_msg("mutation %zu is not JSON: %s", i, m->json);
            json_object_set_new(parent, key, value);
        } else {
            assert_int_equal(json_object_del(parent, key), 0);
        }
        char *dir = make_dir();
        write_json(dir, "tokenizer.json", description);
        expect_refusal(dir, m->status, m->words);
        assert_non_null(strstr(mh_last_message(), "tokenizer.json: "));
        remove_dir(dir);
        json_decref(description);
    }
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    json_t *description = mini_tokenizer();
    char *text = json_dumps(description, 0), *dir = make_dir();
    for (size_t bytes = 0; bytes < strlen(text); bytes += 97) {
        write_file(dir, "tokenizer.json", text, bytes);
        expect_refusal(dir, MH_BAD_DATA, "tokenizer.json: line ");
    }
    write_file(dir, "tokenizer.json", "[]", 2);
    expect_refusal(dir, MH_BAD_DATA, "not a JSON object");
    write_file(dir, "tokenizer.json", "{\"model\":1,\"model\":2}", 21);
    expect_refusal(dir, MH_BAD_DATA, "duplicate");
    remove_dir(dir);
    free(text);
    json_decref(description);
}

static void broken_configurations_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *json, *words;
    } cases[] = {
        {"{", "tokenizer_config.json: line 1"},
        {"{\"bos_token\":3}", "bos_token: not a string"},
        {"{\"bos_token\":{\"text\":\"a\"}}", "bos_token: not a string"},
        {"{\"eos_token\":\"<nowhere>\"}", "eos_token: \"<nowhere>\" is no token"},
        {"{\"add_bos_token\":\"yes\",\"bos_token\":\"a\"}", "add_bos_token: not true or false"},
        {"{\"add_bos_token\":true}", "no bos_token"},
        {"{\"chat_template\":7}", "chat_template"},
        {"{\"chat_template\":[{\"name\":\"tools\",\"template\":\"x\"}]}", "chat_template"},
    };
    json_t *description = mini_tokenizer();
    char *dir = make_dir();
    write_json(dir, "tokenizer.json", description);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        write_file(dir, "tokenizer_config.json", cases[i].json, strlen(cases[i].json));
        expect_refusal(dir, MH_BAD_DATA, cases[i].words);
    }
    remove_dir(dir);
    json_decref(description);
}

static void configuration_is_read(void **state)
{
    (void)state;
    json_t *description = mini_tokenizer();
    json_t *config = json_loads("{\"bos_token\":{\"content\":\"<s>\"},\"eos_token\":null,"
                                "\"add_bos_token\":false,\"chat_template\":[{\"name\":\"default\","
                                "\"template\":\"hello\"},{\"name\":\"x\",\"template\":\"no\"}]}",
                                0, NULL);
    int32_t *ids;
    uint64_t count;
    add_token(description, 300, "<s>", 1);
    mh_tokenizer *t = load_mini(description, config);
    assert_int_equal(mh_tokenizer_bos(t), 300);
    assert_int_equal(mh_tokenizer_eos(t), -1);
    assert_int_equal(mh_tokenizer_adds_bos(t), 0);
    assert_int_equal(mh_tokenizer_vocab_size(t), 301);
    assert_null(mh_tokenizer_token(t, 299)); /* a hole in the ids */
    assert_string_equal(mh_tokenizer_chat_template(t), "hello");
    assert_int_equal(mh_tokenizer_encode(t, "x", 1, MH_ENCODE_BOS, &ids, &count), MH_OK);
    assert_int_equal(count, 1);
    mh_model_free(ids);
    mh_tokenizer_release(t);

    t = load_mini(description, NULL); /* no configuration at all */
    assert_int_equal(mh_tokenizer_bos(t), -1);
    assert_null(mh_tokenizer_chat_template(t));
    mh_tokenizer_release(t);

    char *dir = make_dir(); /* a template file of its own wins */
    write_json(dir, "tokenizer.json", description);
    write_json(dir, "tokenizer_config.json", config);
    write_file(dir, "chat_template.jinja", "from the file", 13);
    assert_int_equal(mh_tokenizer_load(dir, &t), MH_OK);
    assert_string_equal(mh_tokenizer_chat_template(t), "from the file");
    mh_tokenizer_release(t);
    remove_dir(dir);
    json_decref(config);
    json_decref(description);
}

static void foreign_tokenizers_are_refused_by_name(void **state)
{
    (void)state;
    char *dir = make_dir();
    expect_refusal(dir, MH_NOT_FOUND, "no tokenizer.json");
    write_file(dir, "tokenizer.model", "x", 1);
    expect_refusal(dir, MH_NOT_FOUND, "tokenizer.model");
    write_file(dir, "tiktoken.model", "x", 1);
    expect_refusal(dir, MH_NOT_FOUND, "tiktoken.model is a tiktoken tokenizer");
    assert_non_null(strstr(mh_last_message(), "--ids"));
    remove_dir(dir);
    dir = make_dir();
    write_file(dir, "qwen.tiktoken", "x", 1);
    expect_refusal(dir, MH_NOT_FOUND, "qwen.tiktoken is a tiktoken tokenizer");
    remove_dir(dir);
    expect_refusal("/nonexistent/model", MH_NOT_FOUND, "/nonexistent/model: ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fairy_matches_golden),
        cmocka_unit_test(fairy_properties),
        cmocka_unit_test(flags_of_encode),
        cmocka_unit_test(unknown_ids_decode_to_nothing),
        cmocka_unit_test(refuses_text_that_is_not_utf8),
        cmocka_unit_test(behaves_as_the_library),
        cmocka_unit_test(long_pieces_are_not_quadratic),
        cmocka_unit_test(a_byte_without_a_token_is_an_error),
        cmocka_unit_test(broken_files_are_refused),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(broken_configurations_are_refused),
        cmocka_unit_test(configuration_is_read),
        cmocka_unit_test(foreign_tokenizers_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
