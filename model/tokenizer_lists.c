/* tokenizer_lists.c: the two long lists of tokenizer.json, read from its text. A tree of JSON
 * values of V3's 255,000 strings takes ten times as long to make; all else in the file is
 * jansson's. */
#include "tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "utf8.h"

typedef struct {
    const char *file;               /* begins every message */
    const uint8_t *text, *at, *end; /* *end is 0, which is nowhere valid */
    uint8_t *to;                    /* where the next string goes */
    mh_token_lists *lists;
    struct {
        const uint8_t *begin, *end;
    } cuts[2]; /* what was read here */
    int cut_count;
} reader;

static mh_status bad(const reader *r, const uint8_t *at, const char *what)
{
    uint64_t line = 1, column = 1;
    for (const uint8_t *c = r->text; c < at; c++) {
        column = *c == '\n' ? 1 : column + ((*c & 0xc0) != 0x80);
        line += *c == '\n';
    }
    return mh_fail(MH_BAD_DATA, "%s: line %llu, column %llu: %s", r->file, (unsigned long long)line,
                   (unsigned long long)column, at == r->end ? "the file ends early" : what);
}

static void pass_space(reader *r)
{
    while (*r->at == ' ' || *r->at == '\n' || *r->at == '\t' || *r->at == '\r')
        r->at++;
}

/* ---- strings ---- */

static int32_t four_digits(const uint8_t *at)
{
    int32_t code = 0;
    for (int i = 0; i < 4; i++) {
        uint8_t c = at[i], letter = c | 0x20;
        if (c >= '0' && c <= '9')
            code = code * 16 + c - '0';
        else if (letter >= 'a' && letter <= 'f')
            code = code * 16 + letter - 'a' + 10;
        else
            return -1;
    }
    return code;
}

/* Past the escape at `at`, whose character goes to *to; NULL: it is none, or stands for a NUL. */
static const uint8_t *pass_escape(const uint8_t *at, uint8_t **to)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *name = at[1] ? strchr(names, at[1]) : NULL;
    if (name) {
        *(*to)++ = (uint8_t)values[name - names];
        return at + 2;
    }
    int32_t code = at[1] == 'u' ? four_digits(at + 2) : -1;
    if (code <= 0 || (code >= 0xdc00 && code <= 0xdfff))
        return NULL;
    at += 6;
    if (code >= 0xd800 && code < 0xdc00) { /* the first half of a pair */
        int32_t low = at[0] == '\\' && at[1] == 'u' ? four_digits(at + 2) : -1;
        if (low < 0xdc00 || low > 0xdfff)
            return NULL;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        at += 6;
    }
    *to += mh_utf8_put((uint32_t)code, *to);
    return at;
}

/* The string at r->at, NUL-terminated, to r->to, which it does not move. */
static mh_status read_string(reader *r, uint32_t *size)
{
    uint8_t *to = r->to;
    if (*r->at != '"')
        return bad(r, r->at, "a string is expected");
    for (r->at++; *r->at != '"';) {
        uint32_t length = 1;
        if (*r->at == '\\') {
            const uint8_t *behind = pass_escape(r->at, &to);
            if (!behind)
                return bad(r, r->at, "a wrong escape");
            r->at = behind;
            continue;
        }
        if (*r->at < 0x20)
            return bad(r, r->at, "a control character in a string");
        if (*r->at >= 0x80 &&
            mh_utf8_next(r->at, (uint64_t)(r->end - r->at), &length) != MH_UTF8_CHARACTER)
            return bad(r, r->at, "not UTF-8");
        while (length--)
            *to++ = *r->at++;
    }
    r->at++;
    *to = 0;
    *size = (uint32_t)(to - r->to);
    return MH_OK;
}

/* ---- structure ---- */

/* Past a value that jansson will judge. */
static mh_status pass_value(reader *r)
{
    bool in_string = false;
    for (uint64_t depth = 0; r->at < r->end; r->at++) {
        uint8_t c = *r->at;
        if (c == '"')
            in_string = !in_string;
        else if (in_string)
            r->at += c == '\\' && r->at + 1 < r->end;
        else if (!depth && (c == ',' || c == '}' || c == ']'))
            return MH_OK;
        else if (c == '{' || c == '[')
            depth++;
        else if (c == '}' || c == ']')
            depth--;
    }
    return bad(r, r->end, "");
}

/* A list from its opening bracket past its closing one. */
static mh_status read_list(reader *r, uint8_t close, mh_status (*item)(reader *))
{
    r->at++;
    pass_space(r);
    if (*r->at == close) {
        r->at++;
        return MH_OK;
    }
    for (;;) {
        mh_status status = item(r);
        if (status != MH_OK)
            return status;
        pass_space(r);
        uint8_t c = *r->at;
        if (c != ',' && c != close)
            return bad(r, r->at,
                       close == '}' ? "',' or '}' is expected" : "',' or ']' is expected");
        r->at++;
        if (c == close)
            return MH_OK;
        pass_space(r);
    }
}

/* The key at r->at, to r->to, and past its colon. */
static mh_status read_key(reader *r, uint32_t *size)
{
    mh_status status = read_string(r, size);
    if (status != MH_OK)
        return status;
    pass_space(r);
    if (*r->at != ':')
        return bad(r, r->at, "':' is expected");
    r->at++;
    pass_space(r);
    return MH_OK;
}

/* ---- the two lists ---- */

/* "text": id */
static mh_status read_token(reader *r)
{
    mh_token_lists *l = r->lists;
    mh_vocab_entry entry = {.text = (char *)r->to};
    mh_status status = read_key(r, &entry.size);
    if (status != MH_OK)
        return status;
    bool minus = *r->at == '-';
    const uint8_t *digits = r->at + minus, *at = digits;
    while (*at >= '0' && *at <= '9' && at - digits < 18)
        entry.id = 10 * entry.id + (*at++ - '0');
    if (at == r->end)
        return bad(r, at, "");
    if (at == digits || (*at >= '0' && *at <= '9') || (*digits == '0' && at - digits > 1) ||
        *at == '.' || *at == 'e' || *at == 'E')
        return mh_fail(MH_BAD_DATA,
                       "%s: model.vocab: the id of \"%s\" is missing, or not an integer", r->file,
                       entry.text);
    entry.id = minus ? -entry.id : entry.id;
    r->at = at;
    r->to += entry.size + 1;
    status = mh_grow(&l->vocab, &l->vocab_capacity, l->vocab_count + 1, sizeof(*l->vocab));
    if (status == MH_OK)
        l->vocab[l->vocab_count++] = entry;
    return status;
}

static mh_status wrong_merge(const reader *r)
{
    if (r->at == r->end)
        return bad(r, r->at, "");
    return mh_fail(MH_BAD_DATA, "%s: model.merges[%llu]: not \"a b\" or [\"a\", \"b\"]", r->file,
                   (unsigned long long)r->lists->merge_count);
}

/* Fewer or more than two make a wrong merge. */
static mh_status read_side(reader *r)
{
    mh_token_lists *l = r->lists;
    mh_merge_entry *entry = &l->merges[l->merge_count];
    uint32_t size;
    if (*r->at != '"' || entry->sides == 2)
        return wrong_merge(r);
    mh_status status = read_string(r, &size);
    if (status == MH_OK) {
        entry->size[entry->sides++] = size;
        r->to += size;
    }
    return status;
}

/* "a b" or ["a", "b"]. A token holds no space (the byte alphabet has none), so one space parts. */
static mh_status read_merge(reader *r)
{
    mh_token_lists *l = r->lists;
    mh_status status =
        mh_grow(&l->merges, &l->merge_capacity, l->merge_count + 1, sizeof(*l->merges));
    if (status != MH_OK)
        return status;
    mh_merge_entry *entry = &l->merges[l->merge_count];
    *entry = (mh_merge_entry){.text = (char *)r->to};
    if (*r->at == '[') {
        status = read_list(r, ']', read_side);
    } else if (*r->at == '"') {
        uint32_t size;
        status = read_string(r, &size);
        uint8_t *space = status == MH_OK ? memchr(r->to, ' ', size) : NULL;
        if (space) {
            entry->sides = 2;
            entry->size[0] = (uint32_t)(space - r->to);
            entry->size[1] = size - entry->size[0] - 1;
            memmove(space, space + 1, entry->size[1]);
            r->to += size - 1;
        }
    }
    if (status != MH_OK)
        return status;
    if (entry->sides != 2)
        return wrong_merge(r);
    l->merge_count++;
    return MH_OK;
}

/* Values of other types, and those of keys that are there twice, are left for jansson. */
static mh_status read_model_member(reader *r)
{
    uint32_t size;
    mh_status status = read_key(r, &size);
    if (status != MH_OK)
        return status;
    bool vocab = !strcmp((char *)r->to, "vocab") && *r->at == '{';
    bool merges = !strcmp((char *)r->to, "merges") && *r->at == '[';
    if ((!vocab && !merges) || r->cut_count == 2)
        return pass_value(r);
    r->cuts[r->cut_count].begin = r->at;
    status = vocab ? read_list(r, '}', read_token) : read_list(r, ']', read_merge);
    r->cuts[r->cut_count++].end = r->at;
    return status;
}

static mh_status read_root_member(reader *r)
{
    uint32_t size;
    mh_status status = read_key(r, &size);
    if (status != MH_OK)
        return status;
    return !strcmp((char *)r->to, "model") && *r->at == '{' ? read_list(r, '}', read_model_member)
                                                            : pass_value(r);
}

/* ---- the rest ---- */

/* The text with empty lists in place of those that were read. Owned. */
static char *without_lists(const reader *r, uint64_t *bytes)
{
    const uint8_t *from = r->text;
    char *rest = malloc((size_t)(r->end - r->text) + 1), *to = rest;
    for (int i = 0; rest && i <= r->cut_count; i++) {
        const uint8_t *until = i < r->cut_count ? r->cuts[i].begin + 1 : r->end;
        memcpy(to, from, (size_t)(until - from));
        to += until - from;
        from = i < r->cut_count ? r->cuts[i].end - 1 : r->end;
    }
    *bytes = (uint64_t)(to - rest);
    return rest;
}

/* Where the rest's byte `position` is in the text. */
static const uint8_t *place_in_text(const reader *r, uint64_t position)
{
    const uint8_t *at = r->text + position;
    for (int i = 0; i < r->cut_count; i++)
        if (at > r->cuts[i].begin + 1)
            at += r->cuts[i].end - r->cuts[i].begin - 2;
    return at < r->end ? at : r->end;
}

static mh_status parse_rest(const reader *r, json_t **out)
{
    uint64_t bytes;
    json_error_t error;
    char *rest = without_lists(r, &bytes);
    if (!rest)
        return mh_fail(MH_OUT_OF_MEMORY, "%s: no memory to read it", r->file);
    *out = json_loadb(rest, bytes, JSON_REJECT_DUPLICATES, &error);
    free(rest);
    /* Short of memory, the parser often fails without a place or a word. */
    if (!*out && (json_error_code(&error) == json_error_out_of_memory || error.line < 0))
        return mh_fail(MH_OUT_OF_MEMORY, "%s: no memory to read it", r->file);
    if (!*out)
        return bad(r, place_in_text(r, (uint64_t)error.position), error.text);
    if (json_is_object(*out))
        return MH_OK;
    json_decref(*out);
    *out = NULL;
    return mh_fail(MH_BAD_DATA, "%s: not a JSON object", r->file);
}

mh_status mh_token_lists_read(const char *file, const char *text, uint64_t bytes,
                              mh_token_lists *lists, json_t **rest)
{
    reader r = {.file = file, .text = (const uint8_t *)text, .lists = lists};
    /* Each string takes less room than it has in the text, quotes counted. */
    lists->strings = malloc(bytes + 1);
    if (!lists->strings)
        return mh_fail(MH_OUT_OF_MEMORY, "%s: no memory for its strings", file);
    r.at = r.text, r.end = r.text + bytes, r.to = (uint8_t *)lists->strings;
    pass_space(&r);
    mh_status status = *r.at == '{' ? read_list(&r, '}', read_root_member) : MH_OK;
    return status == MH_OK ? parse_rest(&r, rest) : status;
}

void mh_token_lists_free(mh_token_lists *lists)
{
    free(lists->vocab);
    free(lists->merges);
    free(lists->strings);
}
