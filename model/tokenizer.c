#include "tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

mh_tokenizer *mh_tokenizer_retain(mh_tokenizer *tokenizer)
{
    if (tokenizer)
        atomic_fetch_add_explicit(&tokenizer->references, 1, memory_order_relaxed);
    return tokenizer;
}

void mh_tokenizer_release(mh_tokenizer *tokenizer)
{
    if (!tokenizer ||
        atomic_fetch_sub_explicit(&tokenizer->references, 1, memory_order_acq_rel) != 1)
        return;
    for (uint64_t i = 0; i < tokenizer->stage_count; i++)
        mh_pattern_free(tokenizer->stages[i].pattern);
    free(tokenizer->stages);
    free(tokenizer->tokens);
    free(tokenizer->texts);
    free(tokenizer->by_text.slots);
    free(tokenizer->merges.slots);
    free(tokenizer->added_sizes);
    free(tokenizer->chat_template);
    free(tokenizer);
}

uint64_t mh_tokenizer_vocab_size(const mh_tokenizer *tokenizer)
{
    return tokenizer->token_count;
}

int32_t mh_tokenizer_bos(const mh_tokenizer *tokenizer)
{
    return tokenizer->bos;
}

int32_t mh_tokenizer_eos(const mh_tokenizer *tokenizer)
{
    return tokenizer->eos;
}

uint32_t mh_tokenizer_adds_bos(const mh_tokenizer *tokenizer)
{
    return tokenizer->add_bos;
}

int32_t mh_tokenizer_find(const mh_tokenizer *tokenizer, const char *token)
{
    return mh_text_table_find(&tokenizer->by_text, tokenizer->tokens, token, strlen(token));
}

const char *mh_tokenizer_token(const mh_tokenizer *tokenizer, int32_t id)
{
    if (id < 0 || (uint64_t)id >= tokenizer->token_count)
        return NULL;
    return (const char *)tokenizer->tokens[id].text;
}

const char *mh_tokenizer_chat_template(const mh_tokenizer *tokenizer)
{
    return tokenizer->chat_template;
}

void mh_model_free(void *memory)
{
    free(memory);
}
