#include "mini_tokenizer.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <moehal/error.h>

/* Written out from the definition of GPT-2's byte alphabet, not taken from the library. */
static void spell_byte(int byte, char out[3])
{
    static const int printable[][2] = {{33, 126}, {161, 172}, {174, 255}};
    int extra = 0, code = -1;
    for (int b = 0; b <= byte; b++) {
        code = -1;
        for (int r = 0; r < 3; r++)
            if (b >= printable[r][0] && b <= printable[r][1])
                code = b;
        if (code < 0)
            code = 256 + extra++;
    }
    if (code < 0x80) {
        out[0] = (char)code;
        out[1] = '\0';
    } else {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        out[2] = '\0';
    }
}

json_t *mini_tokenizer(void)
{
    static const char *const merges[][3] = {
        {"a", "b", "ab"},   {"ab", "c", "abc"}, {"Ġ", "a", "Ġa"},    {"1", "2", "12"},
        {"12", "3", "123"}, {"a", "a", "aa"},   {"aa", "aa", "aaaa"}};
    json_t *vocab = json_object(), *list = json_array();
    for (int byte = 0; byte < 256; byte++) {
        char text[3];
        spell_byte(byte, text);
        json_object_set_new(vocab, text, json_integer(byte));
    }
    for (size_t i = 0; i < sizeof(merges) / sizeof(*merges); i++) {
        json_object_set_new(vocab, merges[i][2], json_integer(256 + (json_int_t)i));
        json_array_append_new(list, json_sprintf("%s %s", merges[i][0], merges[i][1]));
    }
    json_t *root =
        json_pack("{s:s, s:[], s:n, s:{s:s, s:b, s:b}, s:{s:s}, s:{s:s, s:o, s:o}}", "version",
                  "1.0", "added_tokens", "normalizer", "pre_tokenizer", "type", "ByteLevel",
                  "add_prefix_space", 0, "use_regex", 0, "decoder", "type", "ByteLevel", "model",
                  "type", "BPE", "vocab", vocab, "merges", list);
    assert_non_null(root);
    return root;
}

void set_field(json_t *object, const char *path, json_t *value)
{
    const char *dot;
    char key[64];
    for (; (dot = strchr(path, '.')); path = dot + 1) {
        snprintf(key, sizeof(key), "%.*s", (int)(dot - path), path);
        object = json_object_get(object, key);
    }
    assert_non_null(value);
    assert_int_equal(json_object_set_new(object, path, value), 0);
}

void add_token(json_t *tokenizer, int id, const char *text, int special)
{
    json_array_append_new(
        json_object_get(tokenizer, "added_tokens"),
        json_pack("{s:i, s:s, s:b}", "id", id, "content", text, "special", special));
}

char *make_dir(void)
{
    const char *tmp = getenv("TMPDIR");
    char *dir = NULL;
    assert_true(asprintf(&dir, "%s/moehal-test-XXXXXX", tmp ? tmp : "/tmp") > 0);
    assert_non_null(mkdtemp(dir));
    return dir;
}

void remove_dir(char *dir)
{
    DIR *entries = opendir(dir);
    assert_non_null(entries);
    for (struct dirent *entry; (entry = readdir(entries));)
        if (entry->d_name[0] != '.')
            unlinkat(dirfd(entries), entry->d_name, 0);
    closedir(entries);
    rmdir(dir);
    free(dir);
}

void write_file(const char *dir, const char *name, const char *text, size_t bytes)
{
    char *path = NULL;
    assert_true(asprintf(&path, "%s/%s", dir, name) > 0);
    unlink(path); /* ext4 waits for the disk when a file is cut and written again */
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
    free(path);
}

void write_json(const char *dir, const char *name, const json_t *json)
{
    char *text = json_dumps(json, 0);
    assert_non_null(text);
    write_file(dir, name, text, strlen(text));
    free(text);
}

mh_tokenizer *load_mini(const json_t *tokenizer, const json_t *config)
{
    mh_tokenizer *loaded = NULL;
    char *dir = make_dir();
    write_json(dir, "tokenizer.json", tokenizer);
    if (config)
        write_json(dir, "tokenizer_config.json", config);
    mh_status status = mh_tokenizer_load(dir, &loaded);
    remove_dir(dir);
    if (status != MH_OK)
        fail_msg("%s", mh_last_message());
    return loaded;
}

char *data_path(const char *root, const char *name)
{
    char *path = NULL;
    const char *base = getenv(root);
    if (!base)
        fail_msg("the environment variable %s is not set; run through meson test", root);
    assert_true(asprintf(&path, "%s/%s", base, name) > 0);
    return path;
}

json_t *read_json_file(const char *path)
{
    json_error_t error;
    json_t *json = json_load_file(path, JSON_ALLOW_NUL, &error);
    if (!json)
        fail_msg("%s: %s", path, error.text);
    return json;
}
