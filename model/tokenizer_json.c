/* What tokenizer.json holds but the pre-tokenizer: tokens, merges, and refusals by name. */
#include "tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "utf8.h"

typedef struct {
    mh_tokenizer *tokenizer;
    const char *file;  /* begins every message */
    uint8_t *text_end; /* where the next token's text goes */
    const mh_token_lists *lists;
} loader;

/* ---- what the file must not ask for ---- */

static mh_status refuse_type(const loader *l, const char *field, const json_t *value)
{
    const char *type = json_string_value(json_object_get(value, "type"));
    if (!type)
        return mh_fail(MH_BAD_DATA, "%s: %s.type: missing, or not a string", l->file, field);
    return mh_fail(MH_UNSUPPORTED, "%s: %s.type: \"%s\" is not supported", l->file, field, type);
}

static bool is_type(const json_t *value, const char *name)
{
    const char *type = json_string_value(json_object_get(value, "type"));
    return type && !strcmp(type, name);
}

/* Runs down Sequences: every leaf must be of a type in `known` (ended by NULL). */
static mh_status check_leaves(const loader *l, const char *field, const json_t *value,
                              const char *list, const char *const *known)
{
    const json_t *items, *item;
    size_t index;
    if (is_type(value, "Sequence")) {
        items = json_object_get(value, list);
        if (!json_is_array(items))
            return mh_fail(MH_BAD_DATA, "%s: %s.%s: missing, or not a list", l->file, field, list);
        json_array_foreach(items, index, item)
        {
            mh_status status = check_leaves(l, field, item, list, known);
            if (status != MH_OK)
                return status;
        }
        return MH_OK;
    }
    for (; *known; known++)
        if (is_type(value, *known))
            return MH_OK;
    return refuse_type(l, field, value);
}

static mh_status check_surroundings(const loader *l, const json_t *root)
{
    static const char *const none[] = {NULL};
    static const char *const processors[] = {"ByteLevel", "TemplateProcessing", NULL};
    static const char *const decoders[] = {"ByteLevel", NULL};
    const json_t *normalizer = json_object_get(root, "normalizer");
    const json_t *processor = json_object_get(root, "post_processor");
    const json_t *decoder = json_object_get(root, "decoder");
    mh_status status = MH_OK;
    if (normalizer && !json_is_null(normalizer))
        status = check_leaves(l, "normalizer", normalizer, "normalizers", none);
    if (status == MH_OK && processor && !json_is_null(processor))
        status = check_leaves(l, "post_processor", processor, "processors", processors);
    if (status == MH_OK)
        status = check_leaves(l, "decoder", decoder, "decoders", decoders);
    return status;
}

static mh_status check_model(const loader *l, const json_t *model)
{
    static const char *const must_be_empty[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    if (!json_is_object(model))
        return mh_fail(MH_BAD_DATA, "%s: model: missing, or not an object", l->file);
    if (!is_type(model, "BPE"))
        return refuse_type(l, "model", model);
    const json_t *dropout = json_object_get(model, "dropout");
    if (dropout && !json_is_null(dropout) && json_number_value(dropout) != 0)
        return mh_fail(MH_UNSUPPORTED, "%s: model.dropout: not null", l->file);
    for (int i = 0; i < 2; i++) {
        const json_t *affix = json_object_get(model, must_be_empty[i]);
        if (affix && !json_is_null(affix) && (!json_is_string(affix) || json_string_length(affix)))
            return mh_fail(MH_UNSUPPORTED, "%s: model.%s: not supported unless empty", l->file,
                           must_be_empty[i]);
    }
    if (json_is_true(json_object_get(model, "byte_fallback")))
        return mh_fail(MH_UNSUPPORTED, "%s: model.byte_fallback: not supported", l->file);
    const json_t *ignore = json_object_get(model, "ignore_merges");
    if (ignore && !json_is_boolean(ignore))
        return mh_fail(MH_BAD_DATA, "%s: model.ignore_merges: not true or false", l->file);
    l->tokenizer->ignore_merges = json_is_true(ignore);
    return MH_OK;
}

/* ---- tokens ---- */

/* Checks an id, and counts the room that the token's texts take. */
static mh_status measure_token(const loader *l, const char *field, const char *text, uint64_t size,
                               int64_t id, uint64_t *texts)
{
    if (id < 0 || id >= MH_TOKEN_ID_LIMIT)
        return mh_fail(MH_BAD_DATA, "%s: %s: the id of \"%s\" is %lld (limit 0 to %d)", l->file,
                       field, text, (long long)id, MH_TOKEN_ID_LIMIT - 1);
    if ((uint64_t)id >= l->tokenizer->token_count)
        l->tokenizer->token_count = (uint64_t)id + 1;
    *texts += 2 * size + 1; /* spelling, NUL, decoded */
    return MH_OK;
}

static mh_status added_text(const loader *l, size_t index, const json_t *item, const char **out)
{
    *out = json_string_value(json_object_get(item, "content"));
    if (!*out || !**out)
        return mh_fail(MH_BAD_DATA,
                       "%s: added_tokens[%zu].content: missing, empty, or not a string", l->file,
                       index);
    return MH_OK;
}

/* First pass: checks every id and counts what has to be allocated. */
static mh_status measure(const loader *l, json_t *added, uint64_t *texts)
{
    const char *text;
    json_t *value;
    size_t index;
    mh_status status = MH_OK;
    for (uint64_t i = 0; i < l->lists->vocab_count; i++) {
        const mh_vocab_entry *entry = &l->lists->vocab[i];
        status = measure_token(l, "model.vocab", entry->text, entry->size, entry->id, texts);
        if (status != MH_OK)
            return status;
    }
    json_array_foreach(added, index, value)
    {
        const json_t *id = json_object_get(value, "id");
        status = added_text(l, index, value, &text);
        if (status == MH_OK && !json_is_integer(id))
            status = mh_fail(MH_BAD_DATA,
                             "%s: added_tokens: the id of \"%s\" is missing, or not an integer",
                             l->file, text);
        if (status == MH_OK)
            status =
                measure_token(l, "added_tokens", text, strlen(text), json_integer_value(id), texts);
        if (status != MH_OK)
            return status;
    }
    if (!l->tokenizer->token_count)
        return mh_fail(MH_BAD_DATA, "%s: model.vocab: empty", l->file);
    if (*texts > UINT32_MAX)
        return mh_fail(MH_BAD_DATA, "%s: the tokens have %llu bytes (limit %u)", l->file,
                       (unsigned long long)*texts, UINT32_MAX);
    return MH_OK;
}

/* What the token decodes to: its characters' bytes, or, if one of them stands for no byte (as in
 * most added tokens), its text. */
static void set_bytes(loader *l, mh_token *token)
{
    uint32_t size = 0;
    for (uint32_t i = 0; i < token->text_size;) {
        uint32_t length;
        mh_utf8_next(token->text + i, token->text_size - i, &length);
        int byte = mh_character_byte(mh_utf8_code(token->text + i));
        if (byte < 0) {
            token->bytes = token->text;
            token->byte_size = token->text_size;
            return;
        }
        l->text_end[size++] = (uint8_t)byte;
        i += length;
    }
    token->bytes = l->text_end;
    token->byte_size = size;
    l->text_end += size;
}

static mh_status set_token(loader *l, const char *field, const char *text, uint32_t size,
                           int32_t id)
{
    mh_tokenizer *t = l->tokenizer;
    mh_token *token = &t->tokens[id];
    if (token->text)
        return mh_fail(MH_BAD_DATA, "%s: %s: \"%s\" and \"%s\" have the same id %d", l->file, field,
                       (const char *)token->text, text, id);
    token->text_size = size;
    token->text = l->text_end;
    memcpy(l->text_end, text, size + 1);
    l->text_end += size + 1;
    set_bytes(l, token);
    int32_t same = mh_text_table_add(&t->by_text, t->tokens, id);
    if (same >= 0)
        return mh_fail(MH_BAD_DATA, "%s: %s: \"%s\" has two ids, %d and %d", l->file, field, text,
                       same, id);
    return MH_OK;
}

static mh_status added_flag(const loader *l, size_t index, const json_t *item, const char *name,
                            uint32_t flag, uint32_t *flags)
{
    const json_t *value = json_object_get(item, name);
    if (value && !json_is_boolean(value))
        return mh_fail(MH_BAD_DATA, "%s: added_tokens[%zu].%s: not true or false", l->file, index,
                       name);
    *flags |= json_is_true(value) ? flag : 0;
    return MH_OK;
}

static mh_status add_added(loader *l, size_t index, const json_t *item)
{
    static const struct {
        const char *name;
        uint32_t flag;
    } flags[] = {{"special", MH_TOKEN_SPECIAL},
                 {"normalized", MH_TOKEN_NORMALIZED},
                 {"lstrip", MH_TOKEN_LSTRIP},
                 {"rstrip", MH_TOKEN_RSTRIP}};
    mh_token *tokens = l->tokenizer->tokens;
    uint32_t set = MH_TOKEN_ADDED;
    const char *text = json_string_value(json_object_get(item, "content"));
    int32_t id = (int32_t)json_integer_value(json_object_get(item, "id")); /* measured above */
    mh_status status = MH_OK;
    if (json_is_true(json_object_get(item, "single_word")))
        return mh_fail(MH_UNSUPPORTED, "%s: added_tokens[%zu].single_word (\"%s\"): not supported",
                       l->file, index, text);
    for (size_t i = 0; status == MH_OK && i < sizeof(flags) / sizeof(*flags); i++)
        status = added_flag(l, index, item, flags[i].name, flags[i].flag, &set);
    if (status != MH_OK)
        return status;
    if (tokens[id].flags & MH_TOKEN_ADDED)
        return mh_fail(MH_BAD_DATA, "%s: added_tokens[%zu]: the id %d is there twice", l->file,
                       index, id);
    /* Specials are often in the vocabulary as well, under the same id. */
    if (!tokens[id].text || strcmp((const char *)tokens[id].text, text))
        status = set_token(l, "added_tokens", text, (uint32_t)strlen(text), id);
    tokens[id].flags |= set;
    return status;
}

static mh_status load_tokens(loader *l, json_t *added)
{
    mh_tokenizer *t = l->tokenizer;
    json_t *value;
    size_t index;
    uint64_t texts = 0;
    mh_status status = measure(l, added, &texts);
    if (status != MH_OK)
        return status;
    t->tokens = calloc(t->token_count, sizeof(mh_token));
    t->texts = l->text_end = malloc(texts);
    if (!t->tokens || !t->texts)
        return mh_fail(MH_OUT_OF_MEMORY, "%s: no memory for %llu tokens", l->file,
                       (unsigned long long)t->token_count);
    status = mh_text_table_init(&t->by_text, l->lists->vocab_count + json_array_size(added));
    if (status != MH_OK)
        return status;
    for (uint64_t i = 0; i < l->lists->vocab_count; i++) {
        const mh_vocab_entry *entry = &l->lists->vocab[i];
        status = set_token(l, "model.vocab", entry->text, entry->size, (int32_t)entry->id);
        if (status != MH_OK)
            return status;
    }
    for (int byte = 0; byte < 256; byte++) {
        uint8_t character[4];
        uint32_t size = mh_utf8_put(mh_byte_character((uint8_t)byte), character);
        t->byte_ids[byte] = mh_text_table_find(&t->by_text, t->tokens, character, size);
    }
    json_array_foreach(added, index, value)
    {
        status = add_added(l, index, value);
        if (status != MH_OK)
            return status;
    }
    return mh_added_index(t);
}

/* ---- merges ---- */

static mh_status find_token(const loader *l, uint64_t rank, const char *text, uint32_t size,
                            int32_t *out)
{
    const mh_tokenizer *t = l->tokenizer;
    *out = mh_text_table_find(&t->by_text, t->tokens, text, size);
    if (*out >= 0)
        return MH_OK;
    return mh_fail(MH_BAD_DATA, "%s: model.merges[%llu]: \"%.*s\" is not in model.vocab", l->file,
                   (unsigned long long)rank, (int)size, text);
}

static mh_status load_merges(loader *l)
{
    mh_merge_table *table = &l->tokenizer->merges;
    mh_status status = mh_merge_table_init(table, l->lists->merge_count);
    for (uint64_t rank = 0; status == MH_OK && rank < l->lists->merge_count; rank++) {
        const mh_merge_entry *merge = &l->lists->merges[rank];
        uint32_t left_size = merge->size[0], right_size = merge->size[1];
        int32_t left, right, whole;
        status = find_token(l, rank, merge->text, left_size, &left);
        if (status == MH_OK)
            status = find_token(l, rank, merge->text + left_size, right_size, &right);
        if (status == MH_OK)
            status = find_token(l, rank, merge->text, left_size + right_size, &whole);
        if (status == MH_OK)
            mh_merge_table_add(table, left, right, (uint32_t)rank, whole);
    }
    return status;
}

mh_status mh_tokenizer_json_load(mh_tokenizer *tokenizer, const char *path,
                                 const mh_token_lists *lists, json_t *root)
{
    loader l = {.tokenizer = tokenizer, .file = path, .lists = lists};
    json_t *model = json_object_get(root, "model"), *added = json_object_get(root, "added_tokens");
    mh_status status = check_model(&l, model);
    if (status == MH_OK)
        status = check_surroundings(&l, root);
    if (status == MH_OK && !json_is_object(json_object_get(model, "vocab")))
        status = mh_fail(MH_BAD_DATA, "%s: model.vocab: missing, or not an object", path);
    if (status == MH_OK && !json_is_array(json_object_get(model, "merges")))
        status = mh_fail(MH_BAD_DATA, "%s: model.merges: missing, or not a list", path);
    if (status == MH_OK && added && !json_is_array(added))
        status = mh_fail(MH_BAD_DATA, "%s: added_tokens: not a list", path);
    if (status == MH_OK)
        status = load_tokens(&l, added);
    if (status == MH_OK)
        status = load_merges(&l);
    if (status == MH_OK)
        status = mh_pretokenizer_load(tokenizer, path, json_object_get(root, "pre_tokenizer"));
    return status;
}
