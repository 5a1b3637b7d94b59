#include "tokenizer_impl.h"

#include <stdio.h>
#include <string.h>

#include <jansson.h>

#define STAGE_LIMIT 64
#define WHERE_SIZE 512

/* What a ByteLevel with use_regex cuts by: GPT-2's own pattern, which such a file does not repeat.
 */
static const char gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

typedef struct {
    mh_tokenizer *tokenizer;
    bool byte_level; /* the last step has been seen */
} reader;

static mh_status add_stage(reader *r, const char *where, mh_stage stage)
{
    mh_tokenizer *t = r->tokenizer;
    if (t->stage_count == STAGE_LIMIT)
        return mh_fail(MH_UNSUPPORTED, "%s: more than %d steps", where, STAGE_LIMIT);
    mh_status status =
        mh_grow(&t->stages, &t->stage_capacity, t->stage_count + 1, sizeof(mh_stage));
    if (status == MH_OK)
        t->stages[t->stage_count++] = stage;
    return status;
}

static mh_status add_pattern(reader *r, const char *where, const char *pattern, bool literal,
                             mh_split_behavior behavior, bool invert)
{
    mh_stage stage = {.kind = MH_STAGE_SPLIT, .behavior = behavior, .invert = invert};
    mh_status status = literal ? mh_literal_compile(where, pattern, &stage.pattern)
                               : mh_pattern_compile(where, pattern, &stage.pattern);
    if (status == MH_OK) {
        status = add_stage(r, where, stage);
        if (status != MH_OK)
            mh_pattern_free(stage.pattern);
    }
    return status;
}

static mh_status flag(const char *where, const json_t *step, const char *name, bool otherwise,
                      bool *out)
{
    const json_t *value = json_object_get(step, name);
    if (value && !json_is_boolean(value))
        return mh_fail(MH_BAD_DATA, "%s.%s: not true or false", where, name);
    *out = value ? json_is_true(value) : otherwise;
    return MH_OK;
}

static mh_status read_behavior(const char *where, const json_t *step, mh_split_behavior *out)
{
    static const char *const names[] = {
        [MH_SPLIT_ISOLATED] = "Isolated",
        [MH_SPLIT_REMOVED] = "Removed",
        [MH_SPLIT_CONTIGUOUS] = "Contiguous",
        [MH_SPLIT_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
        [MH_SPLIT_MERGED_WITH_NEXT] = "MergedWithNext",
    };
    const char *name = json_string_value(json_object_get(step, "behavior"));
    if (!name)
        return mh_fail(MH_BAD_DATA, "%s.behavior: missing, or not a string", where);
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (!strcmp(name, names[i])) {
            *out = (mh_split_behavior)i;
            return MH_OK;
        }
    return mh_fail(MH_UNSUPPORTED, "%s.behavior: \"%s\" is not supported", where, name);
}

static mh_status read_split(reader *r, const char *where, const json_t *step)
{
    const json_t *pattern = json_object_get(step, "pattern");
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    const char *literal = json_string_value(json_object_get(pattern, "String"));
    mh_split_behavior behavior = MH_SPLIT_ISOLATED;
    bool invert = false;
    char field[WHERE_SIZE];
    if (!regex && !literal)
        return mh_fail(MH_BAD_DATA, "%s.pattern: no string Regex or String", where);
    mh_status status = read_behavior(where, step, &behavior);
    if (status == MH_OK)
        status = flag(where, step, "invert", false, &invert);
    if (status != MH_OK)
        return status;
    snprintf(field, sizeof(field), "%s.pattern.%s", where, regex ? "Regex" : "String");
    return add_pattern(r, field, regex ? regex : literal, !regex, behavior, invert);
}

static mh_status read_digits(reader *r, const char *where, const json_t *step)
{
    bool individual = false;
    mh_status status = flag(where, step, "individual_digits", false, &individual);
    return status != MH_OK
               ? status
               : add_pattern(r, where, "\\p{N}", false,
                             individual ? MH_SPLIT_ISOLATED : MH_SPLIT_CONTIGUOUS, false);
}

static mh_status read_byte_level(reader *r, const char *where, const json_t *step)
{
    bool prefix = false, regex = false;
    mh_status status = flag(where, step, "add_prefix_space", true, &prefix);
    if (status == MH_OK)
        status = flag(where, step, "use_regex", true, &regex);
    if (status == MH_OK && prefix)
        status = add_stage(r, where, (mh_stage){.kind = MH_STAGE_PREFIX_SPACE});
    if (status == MH_OK && regex)
        status = add_pattern(r, where, gpt2_pattern, false, MH_SPLIT_ISOLATED, false);
    r->byte_level = true;
    return status;
}

static mh_status read_step(reader *r, const char *where, const json_t *step);

static mh_status read_sequence(reader *r, const char *where, const json_t *step)
{
    const json_t *list = json_object_get(step, "pretokenizers"), *item;
    size_t index;
    char field[WHERE_SIZE];
    if (!json_is_array(list))
        return mh_fail(MH_BAD_DATA, "%s.pretokenizers: missing, or not a list", where);
    json_array_foreach(list, index, item)
    {
        snprintf(field, sizeof(field), "%s.pretokenizers[%zu]", where, index);
        mh_status status = read_step(r, field, item);
        if (status != MH_OK)
            return status;
    }
    return MH_OK;
}

static mh_status read_step(reader *r, const char *where, const json_t *step)
{
    const char *type = json_string_value(json_object_get(step, "type"));
    if (!type)
        return mh_fail(MH_BAD_DATA, "%s.type: missing, or not a string", where);
    if (!strcmp(type, "Sequence"))
        return read_sequence(r, where, step);
    if (r->byte_level) /* it replaces bytes by characters, which patterns behind it would see */
        return mh_fail(MH_UNSUPPORTED, "%s: %s after ByteLevel is not supported", where, type);
    if (!strcmp(type, "Split"))
        return read_split(r, where, step);
    if (!strcmp(type, "Digits"))
        return read_digits(r, where, step);
    if (!strcmp(type, "ByteLevel"))
        return read_byte_level(r, where, step);
    return mh_fail(MH_UNSUPPORTED, "%s.type: \"%s\" is not supported", where, type);
}

mh_status mh_pretokenizer_load(mh_tokenizer *tokenizer, const char *file, const json_t *description)
{
    reader r = {.tokenizer = tokenizer};
    char where[WHERE_SIZE];
    snprintf(where, sizeof(where), "%s: pre_tokenizer", file);
    mh_status status = read_step(&r, where, description);
    if (status == MH_OK && !r.byte_level)
        return mh_fail(MH_UNSUPPORTED, "%s: no ByteLevel step; only byte-level BPE is supported",
                       where);
    return status;
}
