#include "chat_impl.h"

#include <string.h>

static const struct {
    const char *key;
    int texts;
    bool required;
} known[] = {
#define PART(identifier, key, texts, required) {key, texts, required},
    MH_CHAT_PARTS(PART)
#undef PART
};

typedef struct {
    mh_chat_template *chat;
    const char *where;
    unsigned line;
} parser;

static mh_status token_text(const parser *p, const char *name, int32_t id, mh_blob *out)
{
    const char *text = mh_tokenizer_token(p->chat->tokenizer, id);
    if (!text)
        return mh_fail(MH_UNSUPPORTED, "%s:%u: {%s}: tokenizer_config.json names no %s_token",
                       p->where, p->line, name, name);
    return mh_blob_add(out, text, strlen(text));
}

/* What stands at `at`: an escape, a brace, a placeholder or a run of ordinary characters. Moves *at
 * behind it; *out changes to `after` at {text}. */
static mh_status element(const parser *p, mh_chat_part *part, int id, const char **at,
                         const char *end, mh_blob **out)
{
    static const struct {
        const char *written, *meant; /* NULL: below */
    } words[] = {{"\\n", "\n"}, {"\\t", "\t"},    {"\\\\", "\\"},  {"{{", "{"},
                 {"}}", "}"},   {"{text}", NULL}, {"{bos}", NULL}, {"{eos}", NULL}};
    const mh_tokenizer *tokenizer = p->chat->tokenizer;
    if (!strchr("\\{}", **at)) {
        uint64_t run = strcspn(*at, "\\{}\n");
        run = run < (uint64_t)(end - *at) ? run : (uint64_t)(end - *at);
        *at += run;
        return mh_blob_add(*out, *at - run, run);
    }
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
        size_t size = strlen(words[i].written);
        if ((size_t)(end - *at) < size || strncmp(*at, words[i].written, size))
            continue;
        *at += size;
        if (words[i].meant)
            return mh_blob_add(*out, words[i].meant, 1);
        if (!strcmp(words[i].written, "{bos}"))
            return token_text(p, "bos", mh_tokenizer_bos(tokenizer), *out);
        if (!strcmp(words[i].written, "{eos}"))
            return token_text(p, "eos", mh_tokenizer_eos(tokenizer), *out);
        if (*out == &part->after || !known[id].texts)
            return mh_fail(MH_BAD_DATA, "%s:%u: {text} %s in \"%s\"", p->where, p->line,
                           known[id].texts ? "twice" : "has no meaning", known[id].key);
        *out = &part->after;
        return MH_OK;
    }
    return mh_fail(MH_BAD_DATA, "%s:%u: \"%.*s\" is no escape or placeholder", p->where, p->line,
                   end - *at < 8 ? (int)(end - *at) : 8, *at);
}

static mh_status read_value(const parser *p, int id, const char *at, const char *end)
{
    mh_chat_part *part = &p->chat->parts[id];
    mh_blob *out = &part->before;
    mh_status status = MH_OK;
    if (part->given)
        return mh_fail(MH_BAD_DATA, "%s:%u: a second \"%s\"", p->where, p->line, known[id].key);
    part->given = true;
    while (status == MH_OK && at < end)
        status = element(p, part, id, &at, end, &out);
    if (status == MH_OK && known[id].texts && out != &part->after)
        return mh_fail(MH_BAD_DATA, "%s:%u: no {text} in \"%s\"", p->where, p->line, known[id].key);
    return status;
}

static mh_status read_line(const parser *p, const char *line, const char *end)
{
    const char *colon = memchr(line, ':', (size_t)(end - line));
    if (line == end || *line == '#')
        return MH_OK;
    if (!colon)
        return mh_fail(MH_BAD_DATA, "%s:%u: not \"key: value\"", p->where, p->line);
    for (int id = 0; id < MH_CHAT_PART_COUNT; id++)
        if (strlen(known[id].key) == (size_t)(colon - line) &&
            !strncmp(known[id].key, line, (size_t)(colon - line)))
            return read_value(p, id, colon + 1 + (colon + 1 < end && colon[1] == ' '), end);
    return mh_fail(MH_BAD_DATA, "%s:%u: \"%.*s\" is no key of a template", p->where, p->line,
                   colon - line < 64 ? (int)(colon - line) : 64, line);
}

mh_status mh_chat_parse(mh_chat_template *chat, const char *where, const char *source)
{
    parser p = {.chat = chat, .where = where};
    mh_status status = MH_OK;
    while (status == MH_OK && *source) {
        uint64_t size = strcspn(source, "\n");
        const char *end = source + size;
        p.line++;
        status = read_line(&p, source, size && end[-1] == '\r' ? end - 1 : end);
        source = end + (*end == '\n');
    }
    for (int id = 0; status == MH_OK && id < MH_CHAT_PART_COUNT; id++)
        if (known[id].required && !chat->parts[id].given)
            status = mh_fail(MH_BAD_DATA, "%s: no \"%s\"", where, known[id].key);
    if (status == MH_OK && !chat->parts[MH_CHAT_BEGIN_PART].given) {
        chat->parts[MH_CHAT_BEGIN_PART].given = true;
        status = token_text(&p, "bos", mh_tokenizer_bos(chat->tokenizer),
                            &chat->parts[MH_CHAT_BEGIN_PART].before);
    }
    if (status == MH_OK && !chat->parts[MH_CHAT_SYSTEM_PART].given &&
        (chat->parts[MH_CHAT_SYSTEM_JOIN_PART].given ||
         chat->parts[MH_CHAT_DEFAULT_SYSTEM_PART].given))
        status =
            mh_fail(MH_BAD_DATA, "%s: system-join or default-system without \"system\"", where);
    return status;
}
