#include "tokenizer_impl.h"

#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "utf8.h"

static mh_status push(mh_pieces *pieces, const uint8_t *text, uint64_t bytes)
{
    mh_status status = MH_OK;
    if (pieces->count == pieces->capacity)
        status = mh_grow(&pieces->list, &pieces->capacity, pieces->count + 1, sizeof(mh_piece));
    if (status == MH_OK)
        pieces->list[pieces->count++] = (mh_piece){text, bytes};
    return status;
}

/* One piece on its way through one split. Matches and the gaps between them arrive as adjacent
 * spans; the behaviour decides where they are cut. */
typedef struct {
    const mh_stage *stage;
    mh_pieces *out;
    uint64_t first;      /* index in `out` of this piece's first span */
    bool previous_match; /* whether the last span was a match */
} splitter;

static mh_status span(splitter *s, const uint8_t *text, uint64_t bytes, bool is_match)
{
    is_match ^= s->stage->invert;
    bool join = false, drop = false;
    bool have_last = s->out->count > s->first;
    switch (s->stage->behavior) {
    case MH_SPLIT_ISOLATED:
        break;
    case MH_SPLIT_REMOVED:
        drop = is_match;
        break;
    case MH_SPLIT_CONTIGUOUS:
        join = is_match == s->previous_match && have_last;
        break;
    case MH_SPLIT_MERGED_WITH_PREVIOUS:
        join = is_match && !s->previous_match && have_last;
        break;
    case MH_SPLIT_MERGED_WITH_NEXT:
        join = !is_match && s->previous_match && have_last;
        break;
    }
    s->previous_match = is_match;
    if (drop)
        return MH_OK;
    if (join) {
        s->out->list[s->out->count - 1].bytes += bytes;
        return MH_OK;
    }
    return push(s->out, text, bytes);
}

/* The next match at or after *from: 1, 0 if there is none, else a PCRE2 error. */
static int find(const mh_stage *stage, pcre2_match_data *match, mh_piece piece, uint64_t from)
{
    /* The text is known to be UTF-8; checking it anew at each match would be quadratic. */
    const uint32_t options = PCRE2_NO_UTF_CHECK;
    int found = pcre2_match(stage->pattern, piece.text, piece.bytes, from, options, match, NULL);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter keeps its stack on the heap */
        found = pcre2_match(stage->pattern, piece.text, piece.bytes, from, options | PCRE2_NO_JIT,
                            match, NULL);
    return found == PCRE2_ERROR_NOMATCH ? 0 : found >= 0 ? 1 : found;
}

static mh_status match_failed(int error)
{
    char reason[128];
    pcre2_get_error_message(error, (PCRE2_UCHAR *)reason, sizeof(reason));
    return mh_fail(error == PCRE2_ERROR_NOMEMORY ? MH_OUT_OF_MEMORY : MH_UNSUPPORTED,
                   "a pre_tokenizer pattern of the tokenizer gave up on the text: %s", reason);
}

static mh_status split_piece(const mh_stage *stage, pcre2_match_data *match, mh_piece piece,
                             mh_pieces *out)
{
    splitter s = {.stage = stage, .out = out, .first = out->count};
    const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(match);
    uint64_t done = 0, from = 0, last_end = UINT64_MAX;
    mh_status status = MH_OK;
    while (status == MH_OK && from <= piece.bytes) {
        int found = find(stage, match, piece, from);
        if (found < 0)
            return match_failed(found);
        if (!found)
            break;
        uint64_t begin = ends[0], end = ends[1];
        if (begin == end && end == last_end) { /* an empty match right behind a match: move on */
            uint32_t step = 1;
            if (from < piece.bytes)
                mh_utf8_next(piece.text + from, piece.bytes - from, &step);
            from += step;
            continue;
        }
        if (begin > done)
            status = span(&s, piece.text + done, begin - done, false);
        if (status == MH_OK)
            status = span(&s, piece.text + begin, end - begin, true);
        done = from = last_end = end;
    }
    if (status == MH_OK && done < piece.bytes)
        status = span(&s, piece.text + done, piece.bytes - done, false);
    return status;
}

static mh_status prefix_space(mh_encode_work *work, mh_piece piece, mh_pieces *out)
{
    if (piece.text[0] == ' ')
        return push(out, piece.text, piece.bytes);
    uint8_t *copy = work->prefixed.data + work->prefixed.bytes;
    copy[0] = ' ';
    memcpy(copy + 1, piece.text, piece.bytes);
    work->prefixed.bytes += piece.bytes + 1;
    return push(out, copy, piece.bytes + 1);
}

static mh_status run_stage(const mh_stage *stage, mh_encode_work *work)
{
    const mh_pieces *in = &work->pieces;
    mh_pieces *out = &work->next_pieces;
    mh_status status = MH_OK;
    out->count = 0;
    if (stage->kind == MH_STAGE_PREFIX_SPACE) {
        uint64_t need = 0; /* reserved at once: pieces point into it */
        for (uint64_t i = 0; i < in->count; i++)
            need += in->list[i].bytes + 1;
        work->prefixed.bytes = 0;
        status = mh_grow(&work->prefixed.data, &work->prefixed.capacity, need, 1);
    }
    for (uint64_t i = 0; status == MH_OK && i < in->count; i++) {
        if (!in->list[i].bytes)
            continue;
        status = stage->kind == MH_STAGE_PREFIX_SPACE
                     ? prefix_space(work, in->list[i], out)
                     : split_piece(stage, work->match, in->list[i], out);
    }
    mh_pieces swap = work->pieces;
    work->pieces = work->next_pieces;
    work->next_pieces = swap;
    return status;
}

mh_status mh_pretokenize(const mh_tokenizer *tokenizer, mh_encode_work *work, const uint8_t *text,
                         uint64_t bytes)
{
    if (!work->match) {
        work->match = pcre2_match_data_create(1, NULL);
        if (!work->match)
            return mh_fail(MH_OUT_OF_MEMORY, "no memory to match a pattern");
    }
    work->pieces.count = 0;
    mh_status status = push(&work->pieces, text, bytes);
    for (uint64_t i = 0; status == MH_OK && i < tokenizer->stage_count; i++)
        status = run_stage(&tokenizer->stages[i], work);
    return status;
}
