/* A model directory: which files there are, and what stands beside tokenizer.json. */
#include "tokenizer_impl.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "json.h"

#define JSON_LIMIT (1 << 30)     /* bytes of tokenizer.json; the largest have some 35 million */
#define TEMPLATE_LIMIT (1 << 20) /* bytes of chat_template.jinja; real ones have some 10,000 */

static char *join(const char *dir, const char *name)
{
    size_t size = strlen(dir) + strlen(name) + 2;
    char *path = malloc(size);
    if (path)
        snprintf(path, size, "%s/%s", dir, name);
    else
        mh_fail(MH_OUT_OF_MEMORY, "no memory for a path");
    return path;
}

/* MH_NOT_FOUND where the file does not exist. */
static mh_status read_json(const char *path, json_t **out)
{
    json_error_t error;
    FILE *file = fopen(path, "rb");
    if (!file)
        return mh_fail(errno == ENOENT ? MH_NOT_FOUND : MH_IO_ERROR, "%s: %s", path,
                       strerror(errno));
    *out = json_loadf(file, JSON_REJECT_DUPLICATES, &error);
    bool unreadable = ferror(file);
    fclose(file);
    if (*out && json_is_object(*out))
        return MH_OK;
    if (*out) {
        json_decref(*out);
        *out = NULL;
        return mh_fail(MH_BAD_DATA, "%s: not a JSON object", path);
    }
    if (unreadable)
        return mh_fail(MH_IO_ERROR, "%s: cannot be read", path);
    /* Short of memory, the parser often fails without a place or a word. */
    if (json_error_code(&error) == json_error_out_of_memory || error.line < 0)
        return mh_fail(MH_OUT_OF_MEMORY, "%s: no memory to read it", path);
    return mh_fail(MH_BAD_DATA, "%s: line %d, column %d: %s", path, error.line, error.column,
                   error.text);
}

/* ---- tokenizer_config.json, chat_template.jinja ---- */

/* "bos_token": a string, an object with `content`, or null. */
static mh_status config_token(const mh_tokenizer *t, const char *path, const json_t *root,
                              const char *name, int32_t *out)
{
    const json_t *value = json_object_get(root, name);
    *out = -1;
    if (!value || json_is_null(value))
        return MH_OK;
    const char *text =
        json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
    if (!text)
        return mh_fail(MH_BAD_DATA, "%s: %s: not a string, nor an object with the string content",
                       path, name);
    *out = mh_tokenizer_find(t, text);
    if (*out < 0)
        return mh_fail(MH_BAD_DATA, "%s: %s: \"%s\" is no token of tokenizer.json", path, name,
                       text);
    return MH_OK;
}

/* "chat_template": a string, or a list of {name, template}, of which `default` is the one to use.
 */
static mh_status config_template(mh_tokenizer *t, const char *path, const json_t *root)
{
    const json_t *value = json_object_get(root, "chat_template"), *item;
    size_t index;
    if (!value || json_is_null(value))
        return MH_OK;
    if (json_is_array(value)) {
        const json_t *list = value;
        value = NULL;
        json_array_foreach(list, index, item)
        {
            const char *name = json_string_value(json_object_get(item, "name"));
            if (name && !strcmp(name, "default"))
                value = json_object_get(item, "template");
        }
    }
    if (!json_is_string(value))
        return mh_fail(MH_BAD_DATA, "%s: chat_template: not a string, nor a list with a default",
                       path);
    t->chat_template = strdup(json_string_value(value));
    return t->chat_template ? MH_OK
                            : mh_fail(MH_OUT_OF_MEMORY, "%s: no memory for chat_template", path);
}

static mh_status load_config(mh_tokenizer *t, const char *path, const json_t *root)
{
    const json_t *add_bos = json_object_get(root, "add_bos_token");
    mh_status status = config_token(t, path, root, "bos_token", &t->bos);
    if (status == MH_OK)
        status = config_token(t, path, root, "eos_token", &t->eos);
    if (status == MH_OK)
        status = config_template(t, path, root);
    if (status != MH_OK)
        return status;
    if (add_bos && !json_is_null(add_bos) && !json_is_boolean(add_bos))
        return mh_fail(MH_BAD_DATA, "%s: add_bos_token: not true or false", path);
    t->add_bos = json_is_true(add_bos);
    if (t->add_bos && t->bos < 0)
        return mh_fail(MH_BAD_DATA, "%s: add_bos_token is true but there is no bos_token", path);
    return MH_OK;
}

static mh_status load_template(mh_tokenizer *t, const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return errno == ENOENT ? MH_OK : mh_fail(MH_IO_ERROR, "%s: %s", path, strerror(errno));
    mh_status status = MH_OK;
    char *text = malloc(TEMPLATE_LIMIT + 1);
    size_t bytes = text ? fread(text, 1, TEMPLATE_LIMIT + 1, file) : 0;
    if (!text)
        status = mh_fail(MH_OUT_OF_MEMORY, "%s: no memory to read it", path);
    else if (ferror(file))
        status = mh_fail(MH_IO_ERROR, "%s: cannot be read", path);
    else if (bytes > TEMPLATE_LIMIT)
        status = mh_fail(MH_BAD_DATA, "%s: longer than %d bytes", path, TEMPLATE_LIMIT);
    fclose(file);
    if (status == MH_OK) {
        text[bytes] = '\0';
        free(t->chat_template);
        t->chat_template = text;
        return MH_OK;
    }
    free(text);
    return status;
}

/* ---- the directory ---- */

/* No tokenizer.json: say what there is instead. */
static mh_status explain_absence(const char *dir)
{
    char found[128] = "";
    bool tiktoken = false;
    DIR *entries = opendir(dir);
    if (!entries)
        return mh_fail(errno == ENOENT ? MH_NOT_FOUND : MH_IO_ERROR, "%s: %s", dir,
                       strerror(errno));
    for (struct dirent *entry; !tiktoken && (entry = readdir(entries));) {
        const char *dot = strrchr(entry->d_name, '.');
        tiktoken = !strcmp(entry->d_name, "tiktoken.model") || (dot && !strcmp(dot, ".tiktoken"));
        if (tiktoken || !strcmp(entry->d_name, "tokenizer.model"))
            snprintf(found, sizeof(found), "%.120s", entry->d_name);
    }
    closedir(entries);
    if (tiktoken)
        return mh_fail(MH_NOT_FOUND,
                       "%s: no tokenizer.json; %s is a tiktoken tokenizer, which is not supported "
                       "(token ids work: --ids)",
                       dir, found);
    if (*found)
        return mh_fail(MH_NOT_FOUND,
                       "%s: no tokenizer.json; %s (SentencePiece or tiktoken) is not supported "
                       "(token ids work: --ids)",
                       dir, found);
    return mh_fail(MH_NOT_FOUND, "%s: no tokenizer.json (token ids work: --ids)", dir);
}

static mh_status load_main(mh_tokenizer *t, const char *dir)
{
    json_t *rest = NULL;
    char *path = join(dir, "tokenizer.json"), *text = NULL;
    uint64_t bytes = 0;
    mh_token_lists lists = {0};
    mh_status status = path ? model_read_file(path, JSON_LIMIT, &text, &bytes) : MH_OUT_OF_MEMORY;
    if (status == MH_NOT_FOUND)
        status = explain_absence(dir);
    else if (status == MH_OK)
        status = mh_token_lists_read(path, text, bytes, &lists, &rest);
    if (status == MH_OK)
        status = mh_tokenizer_json_load(t, path, &lists, rest);
    json_decref(rest);
    mh_token_lists_free(&lists);
    free(text);
    free(path);
    return status;
}

static mh_status load_companions(mh_tokenizer *t, const char *dir)
{
    json_t *root = NULL;
    char *config = join(dir, "tokenizer_config.json"), *jinja = join(dir, "chat_template.jinja");
    mh_status status = config && jinja ? read_json(config, &root) : MH_OUT_OF_MEMORY;
    if (status == MH_OK)
        status = load_config(t, config, root);
    else if (status == MH_NOT_FOUND)
        status = MH_OK;
    if (status == MH_OK)
        status = load_template(t, jinja);
    json_decref(root);
    free(config);
    free(jinja);
    return status;
}

mh_status mh_tokenizer_load(const char *dir, mh_tokenizer **out)
{
    if (!dir || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_tokenizer_load: a NULL argument");
    mh_tokenizer *t = calloc(1, sizeof(*t));
    if (!t)
        return mh_fail(MH_OUT_OF_MEMORY, "no memory for a tokenizer");
    atomic_init(&t->references, 1);
    t->bos = t->eos = -1;
    mh_status status = load_main(t, dir);
    if (status == MH_OK)
        status = load_companions(t, dir);
    if (status != MH_OK) {
        mh_tokenizer_release(t);
        return status;
    }
    *out = t;
    return MH_OK;
}
