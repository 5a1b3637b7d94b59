#include "tokenizer_impl.h"

#include <stdlib.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "utf8.h"

#define TEXT_LIMIT (UINT64_C(1) << 30) /* symbols of a piece are counted in int32_t */

static mh_status encode_text(const mh_tokenizer *tokenizer, mh_encode_work *work,
                             const uint8_t *text, uint64_t bytes)
{
    mh_status status = mh_pretokenize(tokenizer, work, text, bytes);
    for (uint64_t i = 0; status == MH_OK && i < work->pieces.count; i++)
        if (work->pieces.list[i].bytes)
            status = mh_bpe(tokenizer, work, work->pieces.list[i].text, work->pieces.list[i].bytes);
    return status;
}

/* Added tokens are looked for in two rounds: those matched before normalization, then, in what is
 * left, the others. The order shows even with no normalizer: a token of the first round wins over
 * an earlier or longer one of the second. */
static mh_status encode_span(const mh_tokenizer *tokenizer, mh_encode_work *work,
                             const uint8_t *text, const uint8_t *plain, uint64_t from, uint64_t to,
                             int round)
{
    mh_status status = MH_OK;
    mh_added_match match;
    if (from == to)
        return MH_OK;
    if (round == 2)
        return encode_text(tokenizer, work, text + from, to - from);
    while (status == MH_OK && mh_added_find(tokenizer, text, plain, from, to, round == 1, &match)) {
        status = encode_span(tokenizer, work, text, plain, from, match.begin, round + 1);
        if (status == MH_OK)
            status = mh_push_id(work, match.id);
        from = match.end;
    }
    return status == MH_OK ? encode_span(tokenizer, work, text, plain, from, to, round + 1)
                           : status;
}

static void finish_work(mh_encode_work *work)
{
    free(work->ids);
    free(work->pieces.list);
    free(work->next_pieces.list);
    free(work->prefixed.data);
    free(work->symbols);
    free(work->heap);
    free(work->spelling.data);
    pcre2_match_data_free(work->match);
}

static mh_status check_text(const uint8_t *text, uint64_t bytes)
{
    if (bytes > TEXT_LIMIT)
        return mh_fail(MH_INVALID_ARGUMENT, "text of %llu bytes is too long (limit %llu)",
                       (unsigned long long)bytes, (unsigned long long)TEXT_LIMIT);
    if (bytes && !text)
        return mh_fail(MH_INVALID_ARGUMENT, "text is NULL but has %llu bytes",
                       (unsigned long long)bytes);
    uint64_t valid = mh_utf8_valid_prefix(text, bytes);
    if (valid < bytes)
        return mh_fail(MH_INVALID_ARGUMENT, "text is not UTF-8: byte 0x%02x at offset %llu",
                       text[valid], (unsigned long long)valid);
    return MH_OK;
}

mh_status mh_encode_marked(const mh_tokenizer *tokenizer, const uint8_t *text, const uint8_t *plain,
                           uint64_t bytes, uint32_t flags, int32_t **ids, uint64_t *count)
{
    mh_encode_work work = {0};
    mh_status status = check_text(text, bytes);
    if (status == MH_OK) /* so that *ids is memory even for no ids at all */
        status = mh_grow(&work.ids, &work.id_capacity, 1, sizeof(int32_t));
    if (status == MH_OK && (flags & MH_ENCODE_BOS) && tokenizer->add_bos)
        status = mh_push_id(&work, tokenizer->bos);
    if (status == MH_OK)
        status =
            encode_span(tokenizer, &work, text, plain, 0, bytes, flags & MH_ENCODE_PLAIN ? 2 : 0);
    if (status == MH_OK) {
        *ids = work.ids;
        *count = work.id_count;
        work.ids = NULL;
    }
    finish_work(&work);
    return status;
}

mh_status mh_tokenizer_encode(const mh_tokenizer *tokenizer, const char *text, uint64_t bytes,
                              uint32_t flags, int32_t **ids, uint64_t *count)
{
    if (!tokenizer || !ids || !count)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_tokenizer_encode: a NULL argument");
    if (flags & ~(MH_ENCODE_BOS | MH_ENCODE_PLAIN))
        return mh_fail(MH_INVALID_ARGUMENT, "mh_tokenizer_encode: unknown flags 0x%x", flags);
    return mh_encode_marked(tokenizer, (const uint8_t *)text, NULL, bytes, flags, ids, count);
}
