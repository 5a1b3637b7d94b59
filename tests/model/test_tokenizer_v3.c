/* The extra suite: DeepSeek-V3's own tokenizer, on strings and on a corpus of a whole book shelf.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <sha256.h>

#include <moehal-model/chat.h>
#include <moehal/error.h>

#include "mini_tokenizer.h"
#include "tokenizer_golden.h"

static mh_tokenizer *v3;

static int load(void **state)
{
    (void)state;
    char *dir = data_path("MOEHAL_TEST_EXTRA", "tokenizers/deepseek-v3");
    mh_status status = mh_tokenizer_load(dir, &v3);
    free(dir);
    if (status != MH_OK)
        print_error("%s\n", mh_last_message());
    return status != MH_OK;
}

static int unload(void **state)
{
    (void)state;
    mh_tokenizer_release(v3);
    return 0;
}

static void properties(void **state)
{
    (void)state;
    assert_int_equal(mh_tokenizer_vocab_size(v3), 128815);
    assert_int_equal(mh_tokenizer_bos(v3), 0);
    assert_int_equal(mh_tokenizer_eos(v3), 1);
    assert_int_equal(mh_tokenizer_adds_bos(v3), 1);
    assert_int_equal(mh_tokenizer_find(v3, "<|EOT|>"), 128805);
}

static void matches_golden_strings(void **state)
{
    (void)state;
    char *path = data_path("MOEHAL_TEST_DATA", "golden/tokenizer-v3.jsonl");
    assert_int_equal(expect_golden_file(v3, path), 495);
    free(path);
}

static void its_own_chat_template_is_recognised(void **state)
{
    (void)state;
    mh_chat_template *chat = NULL;
    const mh_chat_message message = {.role = MH_CHAT_USER, .text = "Hi<｜User｜>", .bytes = 14};
    int32_t *ids;
    uint64_t count;
    assert_int_equal(mh_chat_template_open(v3, NULL, &chat), MH_OK);
    assert_string_equal(mh_chat_template_name(chat), "v3");
    assert_int_equal(mh_chat_encode(chat, &message, 1, MH_CHAT_GENERATION, &ids, &count), MH_OK);
    assert_true(count > 5);
    assert_int_equal(ids[0], 0);
    assert_int_equal(ids[1], 128803);
    assert_int_equal(ids[2], 23166); /* "Hi" */
    for (uint64_t i = 3; i + 1 < count; i++)
        assert_true(ids[i] < 128000);
    assert_int_equal(ids[count - 1], 128804);
    mh_model_free(ids);
    mh_chat_template_release(chat);
}

/* Two other implementations, one of them in JavaScript, agree on these. */
static void matches_two_other_implementations(void **state)
{
    (void)state;
    static const struct {
        const char *text, *ids;
    } table[] = {
        {"Hello, world!", "[19923,14,2058,3]"},
        {"Hello world", "[19923,2058]"},
        {"  leading", "[223,6646]"},
        {"The price is 12345.678 USD", "[671,5220,344,223,6895,1883,16,27183,22191]"},
        {"你好，世界", "[30594,303,3427]"},
        {"日本語テキストとカタカナ", "[88768,17383,20367,24552,2495,15961,11767,15961,27071]"},
        {"don't won't I'll", "[20385,1664,5646,1664,342,5922]"},
        {"a\n\n\nb\r\nc", "[67,6328,68,204,201,69]"},
        {"tab\there  two   three ", "[14278,200,1036,223,1234,262,2038,223]"},
        {"x=1;y=2;//comment", "[90,31,19,29,91,31,20,45676,30575]"},
        {"naïve café Ünïcödé", "[2720,91223,57664,25132,80,16709,69,54879,619]"},
        {"🙂🚀", "[80300,227,74287,225]"},
        {"<｜User｜>Hi<｜Assistant｜>", "[128803,23166,128804]"},
        {"<think>\nok</think>", "[30,37947,1018,633,1718,37947,32]"},
        {"line \n next", "[1836,539,2894]"},
        {"١٢٣٤", "[63468,76647,127056,152,100]"},
        {"_foo.bar(baz)", "[65,40897,6229,287,7011,1521,11]"},
        {"e\u0301x", "[71,17793,90]"},
        {"    return x;\n}\n", "[361,1354,1527,510,1778]"},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
        json_t *ids = json_loads(table[i].ids, 0, NULL), *text = json_string(table[i].text);
        assert_non_null(ids);
        expect_ids(v3, "the table", table[i].text, strlen(table[i].text), ids);
        expect_text(v3, "the table", ids, 0, text);
        json_decref(ids);
        json_decref(text);
    }
}

/* `xz -dc path` as a stream; *child is to be waited for. */
static FILE *decompress(const char *path, pid_t *child)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    *child = fork();
    assert_true(*child >= 0);
    if (!*child) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execlp("xz", "xz", "-dc", path, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    FILE *stream = fdopen(ends[0], "rb");
    assert_non_null(stream);
    return stream;
}

static void hash_ids(SHA2_CTX *hash, const int32_t *ids, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        const uint32_t id = (uint32_t)ids[i];
        const uint8_t bytes[4] = {(uint8_t)id, (uint8_t)(id >> 8), (uint8_t)(id >> 16),
                                  (uint8_t)(id >> 24)};
        SHA256Update(hash, bytes, sizeof(bytes));
    }
}

static size_t drop_above_ascii(char *line, size_t size)
{
    size_t kept = 0;
    for (size_t i = 0; i < size; i++)
        if (!((unsigned char)line[i] & 0x80))
            line[kept++] = line[i];
    return kept;
}

/* The rule is in tokenizer-v3-corpus.json; the `tokenizers` library made the hash. */
static void matches_the_corpus(void **state)
{
    (void)state;
    char *path = data_path("MOEHAL_TEST_EXTRA", "golden/tokenizer-v3-corpus.json");
    json_t *golden = read_json_file(path);
    free(path);
    path = data_path("MOEHAL_TEST_EXTRA", "corpus/fairy-tales.txt.xz");
    pid_t child;
    FILE *corpus = decompress(path, &child);
    char *line = NULL, hex[SHA256_DIGEST_STRING_LENGTH];
    size_t capacity = 0;
    ssize_t size;
    uint64_t total = 0;
    int result;
    SHA2_CTX hash;
    SHA256Init(&hash);
    while ((size = getline(&line, &capacity, corpus)) > 0) {
        int32_t *ids;
        uint64_t count;
        size_t bytes = drop_above_ascii(line, (size_t)size);
        bytes -= bytes && line[bytes - 1] == '\n';
        if (!bytes)
            continue;
        line[bytes++] = '\n'; /* getline keeps room for the NUL, which stood here or further on */
        assert_int_equal(mh_tokenizer_encode(v3, line, bytes, 0, &ids, &count), MH_OK);
        hash_ids(&hash, ids, count);
        total += count;
        mh_model_free(ids);
    }
    free(line);
    fclose(corpus);
    assert_int_equal(waitpid(child, &result, 0), child);
    if (result)
        fail_msg("xz -dc %s failed", path);
    free(path);
    SHA256End(&hash, hex);
    assert_int_equal(total, json_integer_value(json_object_get(golden, "tokens")));
    assert_string_equal(hex, json_string_value(json_object_get(golden, "sha256")));
    json_decref(golden);
}

/* Ids cut anywhere, inside emoji too, stream to the same text as they decode to at once. */
static void any_cut_streams_as_it_decodes(void **state)
{
    (void)state;
    static const char text[] =
        "🙂🚀 naïve e\u0301 日本語\n<｜User｜>👨‍👩‍👧‍👦 ١٢٣ "
        "\xef\xbf\xbd end";
    int32_t *ids;
    uint64_t count;
    assert_int_equal(mh_tokenizer_encode(v3, text, sizeof(text) - 1, 0, &ids, &count), MH_OK);
    assert_true(count > 20);
    for (uint64_t from = 0; from < count; from++)
        for (uint64_t to = from; to <= count; to++) {
            char *whole;
            json_t *part = json_array(), *decoded;
            for (uint64_t i = from; i < to; i++)
                json_array_append_new(part, json_integer(ids[i]));
            assert_int_equal(mh_tokenizer_decode(v3, ids + from, to - from, 0, &whole, NULL),
                             MH_OK);
            decoded = json_string(whole); /* refuses what is not UTF-8 */
            assert_non_null(decoded);
            expect_text(v3, "a cut", part, 0, decoded);
            json_decref(decoded);
            json_decref(part);
            mh_model_free(whole);
        }
    mh_model_free(ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(properties),
        cmocka_unit_test(matches_golden_strings),
        cmocka_unit_test(its_own_chat_template_is_recognised),
        cmocka_unit_test(matches_two_other_implementations),
        cmocka_unit_test(matches_the_corpus),
        cmocka_unit_test(any_cut_streams_as_it_decodes),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
