/*
 * fuzz_tokenizer.c: tokenizer.json, tokenizer_config.json and a text. The input holds them in this
 * order, with a NUL between two; the last two may be missing. What is loaded must be JSON to
 * jansson, encode any UTF-8 and decode what it encoded.
 */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include <moehal-model/chat.h>
#include <moehal-model/tokenizer.h>

static char dir[] = "/tmp/moehal-fuzz-XXXXXX", json_path[64], config_path[64];

static void remove_files(void)
{
    unlink(json_path);
    unlink(config_path);
    rmdir(dir);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    if (!mkdtemp(dir))
        return -1;
    snprintf(json_path, sizeof(json_path), "%s/tokenizer.json", dir);
    snprintf(config_path, sizeof(config_path), "%s/tokenizer_config.json", dir);
    return atexit(remove_files);
}

static void put(const char *path, const uint8_t *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    if (!file || (size && fwrite(data, 1, size, file) != size) || fclose(file))
        abort();
}

static void use(mh_tokenizer *tokenizer, const char *text, size_t bytes)
{
    int32_t *ids;
    uint64_t count;
    char *back;
    if (mh_tokenizer_encode(tokenizer, text, bytes, MH_ENCODE_BOS, &ids, &count))
        return;
    for (uint64_t i = 0; i < count; i++)
        if (ids[i] < 0 || (uint64_t)ids[i] >= mh_tokenizer_vocab_size(tokenizer))
            abort();
    if (!mh_tokenizer_decode(tokenizer, ids, count, 0, &back, NULL))
        mh_model_free(back);
    mh_model_free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "a\xc4\xa0 aab 123abc\n\n<s>\xe4\xbd\xa0\xe5\xa5\xbd 's";
    const uint8_t *end = data + size, *config = size ? memchr(data, 0, size) : NULL;
    const uint8_t *rest = config ? memchr(config + 1, 0, (size_t)(end - config - 1)) : NULL;
    size_t json_size = config ? (size_t)(config - data) : size;
    put(json_path, data, json_size);
    unlink(config_path);
    if (config)
        put(config_path, config + 1, (size_t)((rest ? rest : end) - config - 1));
    mh_tokenizer *tokenizer;
    if (mh_tokenizer_load(dir, &tokenizer))
        return 0;
    json_t *json = json_loadb((const char *)data, json_size, JSON_REJECT_DUPLICATES, NULL);
    if (!json)
        abort();
    json_decref(json);
    use(tokenizer, text, sizeof(text) - 1);
    if (rest)
        use(tokenizer, (const char *)rest + 1, (size_t)(end - rest - 1));
    mh_chat_template *chat;
    if (!mh_chat_template_open(tokenizer, NULL, &chat))
        mh_chat_template_release(chat);
    mh_tokenizer_release(tokenizer);
    return 0;
}
