#include "tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

#include "utf8.h"

/* Bytes in, UTF-8 out. What may still become a character waits in `held`. */
typedef struct {
    uint8_t held[4];
    uint32_t held_bytes;
    mh_blob text;
} lossy;

struct mh_detokenizer {
    mh_tokenizer *tokenizer; /* retained */
    uint32_t flags;
    lossy out;
};

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

/* Takes one byte. A held beginning that it does not continue is replaced, and the byte begins
 * anew: so each maximal subpart gives one U+FFFD, as Unicode recommends and Rust's lossy decoding
 * does. */
static mh_status lossy_byte(lossy *out, uint8_t byte)
{
    mh_status status;
    uint32_t length;
    for (;;) {
        out->held[out->held_bytes] = byte;
        switch (mh_utf8_next(out->held, out->held_bytes + 1, &length)) {
        case MH_UTF8_CUT:
            out->held_bytes++;
            return MH_OK;
        case MH_UTF8_CHARACTER:
            status = mh_blob_add(&out->text, out->held, length);
            out->held_bytes = 0;
            return status;
        case MH_UTF8_INVALID:
            break;
        }
        bool again = out->held_bytes > 0;
        out->held_bytes = 0;
        status = mh_blob_add(&out->text, replacement, 3);
        if (status != MH_OK || !again)
            return status;
    }
}

static mh_status lossy_token(lossy *out, const mh_tokenizer *tokenizer, int32_t id, uint32_t flags)
{
    if (id < 0 || (uint64_t)id >= tokenizer->token_count || !tokenizer->tokens[id].text)
        return MH_OK;
    const mh_token *token = &tokenizer->tokens[id];
    if ((flags & MH_DECODE_SKIP_SPECIAL) && (token->flags & MH_TOKEN_SPECIAL))
        return MH_OK;
    mh_status status = MH_OK;
    for (uint32_t i = 0; status == MH_OK && i < token->byte_size; i++)
        status = lossy_byte(out, token->bytes[i]);
    return status;
}

static mh_status lossy_end(lossy *out)
{
    mh_status status = out->held_bytes ? mh_blob_add(&out->text, replacement, 3) : MH_OK;
    out->held_bytes = 0;
    return status;
}

mh_status mh_tokenizer_decode(const mh_tokenizer *tokenizer, const int32_t *ids, uint64_t count,
                              uint32_t flags, char **text, uint64_t *bytes)
{
    if (!tokenizer || !text || (count && !ids))
        return mh_fail(MH_INVALID_ARGUMENT, "mh_tokenizer_decode: a NULL argument");
    if (flags & ~MH_DECODE_SKIP_SPECIAL)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_tokenizer_decode: unknown flags 0x%x", flags);
    lossy out = {.held_bytes = 0};
    mh_status status = MH_OK;
    for (uint64_t i = 0; status == MH_OK && i < count; i++)
        status = lossy_token(&out, tokenizer, ids[i], flags);
    if (status == MH_OK)
        status = lossy_end(&out);
    if (status == MH_OK)
        status = mh_blob_terminate(&out.text);
    if (status != MH_OK) {
        free(out.text.data);
        return status;
    }
    *text = (char *)out.text.data;
    if (bytes)
        *bytes = out.text.bytes;
    return MH_OK;
}

mh_status mh_detokenizer_create(mh_tokenizer *tokenizer, uint32_t flags, mh_detokenizer **out)
{
    if (!tokenizer || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_detokenizer_create: a NULL argument");
    if (flags & ~MH_DECODE_SKIP_SPECIAL)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_detokenizer_create: unknown flags 0x%x", flags);
    mh_detokenizer *d = calloc(1, sizeof(*d));
    if (!d)
        return mh_fail(MH_OUT_OF_MEMORY, "no memory for a detokenizer");
    d->tokenizer = mh_tokenizer_retain(tokenizer);
    d->flags = flags;
    *out = d;
    return MH_OK;
}

void mh_detokenizer_release(mh_detokenizer *detokenizer)
{
    if (!detokenizer)
        return;
    mh_tokenizer_release(detokenizer->tokenizer);
    free(detokenizer->out.text.data);
    free(detokenizer);
}

static mh_status hand_out(mh_detokenizer *d, mh_status status, const char **text, uint64_t *bytes)
{
    if (status == MH_OK)
        status = mh_blob_terminate(&d->out.text);
    if (status != MH_OK)
        return status;
    *text = (const char *)d->out.text.data;
    if (bytes)
        *bytes = d->out.text.bytes;
    return MH_OK;
}

mh_status mh_detokenizer_push(mh_detokenizer *detokenizer, int32_t id, const char **text,
                              uint64_t *bytes)
{
    if (!detokenizer || !text)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_detokenizer_push: a NULL argument");
    detokenizer->out.text.bytes = 0;
    return hand_out(detokenizer,
                    lossy_token(&detokenizer->out, detokenizer->tokenizer, id, detokenizer->flags),
                    text, bytes);
}

mh_status mh_detokenizer_finish(mh_detokenizer *detokenizer, const char **text, uint64_t *bytes)
{
    if (!detokenizer || !text)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_detokenizer_finish: a NULL argument");
    detokenizer->out.text.bytes = 0;
    return hand_out(detokenizer, lossy_end(&detokenizer->out), text, bytes);
}
