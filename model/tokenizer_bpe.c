/*
 * Byte pair encoding of one piece: of all adjacent pairs that can be merged, the one of the lowest
 * rank, leftmost first, until none is left. Symbols form a linked list and candidates a binary
 * heap, so that a piece of n bytes takes n log n steps; a candidate outdated by a merge beside it
 * is found out when it comes up.
 */
#include "tokenizer_impl.h"

#include <string.h>

#include "utf8.h"

static bool before(mh_candidate a, mh_candidate b)
{
    return a.rank != b.rank ? a.rank < b.rank : a.at < b.at;
}

static void sift_up(mh_candidate *heap, uint64_t at)
{
    mh_candidate moving = heap[at];
    for (; at && before(moving, heap[(at - 1) / 2]); at = (at - 1) / 2)
        heap[at] = heap[(at - 1) / 2];
    heap[at] = moving;
}

static mh_candidate pop(mh_encode_work *work)
{
    mh_candidate *heap = work->heap, top = heap[0], moving = heap[--work->heap_count];
    uint64_t at = 0, child;
    while ((child = 2 * at + 1) < work->heap_count) {
        if (child + 1 < work->heap_count && before(heap[child + 1], heap[child]))
            child++;
        if (!before(heap[child], moving))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moving;
    return top;
}

/* Puts the pair beginning at symbol `at` on the heap if it can be merged. */
static mh_status consider(const mh_tokenizer *tokenizer, mh_encode_work *work, int32_t at)
{
    if (at < 0 || work->symbols[at].next < 0)
        return MH_OK;
    const mh_merge *merge = mh_merge_table_find(&tokenizer->merges, work->symbols[at].id,
                                                work->symbols[work->symbols[at].next].id);
    if (!merge)
        return MH_OK;
    mh_status status = MH_OK;
    if (work->heap_count == work->heap_capacity)
        status =
            mh_grow(&work->heap, &work->heap_capacity, work->heap_count + 1, sizeof(mh_candidate));
    if (status != MH_OK)
        return status;
    work->heap[work->heap_count] = (mh_candidate){merge->rank, at, merge->id};
    sift_up(work->heap, work->heap_count++);
    return MH_OK;
}

static bool still_holds(const mh_tokenizer *tokenizer, const mh_symbol *symbols, mh_candidate c)
{
    if (symbols[c.at].id < 0 || symbols[c.at].next < 0)
        return false;
    const mh_merge *merge =
        mh_merge_table_find(&tokenizer->merges, symbols[c.at].id, symbols[symbols[c.at].next].id);
    return merge && merge->id == c.id;
}

static mh_status merge_all(const mh_tokenizer *tokenizer, mh_encode_work *work, uint64_t count)
{
    mh_symbol *symbols = work->symbols;
    mh_status status = MH_OK;
    work->heap_count = 0;
    for (uint64_t i = 0; status == MH_OK && i + 1 < count; i++)
        status = consider(tokenizer, work, (int32_t)i);
    while (status == MH_OK && work->heap_count) {
        mh_candidate c = pop(work);
        if (!still_holds(tokenizer, symbols, c))
            continue;
        mh_symbol *left = &symbols[c.at], *right = &symbols[left->next];
        left->id = c.id;
        left->next = right->next;
        right->id = -1;
        if (left->next >= 0)
            symbols[left->next].previous = c.at;
        status = consider(tokenizer, work, left->previous);
        if (status == MH_OK)
            status = consider(tokenizer, work, c.at);
    }
    return status;
}

mh_status mh_push_id(mh_encode_work *work, int32_t id)
{
    mh_status status = MH_OK;
    if (work->id_count == work->id_capacity)
        status = mh_grow(&work->ids, &work->id_capacity, work->id_count + 1, sizeof(int32_t));
    if (status == MH_OK)
        work->ids[work->id_count++] = id;
    return status;
}

/* A token equal to the whole piece. Added tokens never come out of ordinary text. */
static mh_status whole_piece(const mh_tokenizer *tokenizer, mh_encode_work *work,
                             const uint8_t *text, uint64_t bytes, int32_t *id)
{
    mh_status status = MH_OK;
    work->spelling.bytes = 0;
    for (uint64_t i = 0; status == MH_OK && i < bytes; i++) {
        uint8_t character[4];
        status = mh_blob_add(&work->spelling, character,
                             mh_utf8_put(mh_byte_character(text[i]), character));
    }
    if (status != MH_OK)
        return status;
    *id = mh_text_table_find(&tokenizer->by_text, tokenizer->tokens, work->spelling.data,
                             work->spelling.bytes);
    if (*id >= 0 && (tokenizer->tokens[*id].flags & MH_TOKEN_ADDED))
        *id = -1;
    return MH_OK;
}

mh_status mh_bpe(const mh_tokenizer *tokenizer, mh_encode_work *work, const uint8_t *text,
                 uint64_t bytes)
{
    mh_status status = MH_OK;
    if (tokenizer->ignore_merges) {
        int32_t id;
        status = whole_piece(tokenizer, work, text, bytes, &id);
        if (status != MH_OK || id >= 0)
            return status != MH_OK ? status : mh_push_id(work, id);
    }
    status = mh_grow(&work->symbols, &work->symbol_capacity, bytes, sizeof(mh_symbol));
    if (status != MH_OK)
        return status;
    for (uint64_t i = 0; i < bytes; i++) {
        int32_t id = tokenizer->byte_ids[text[i]];
        if (id < 0)
            return mh_fail(MH_UNSUPPORTED, "the tokenizer has no token for the byte 0x%02x",
                           text[i]);
        work->symbols[i] = (mh_symbol){id, (int32_t)i - 1, i + 1 < bytes ? (int32_t)i + 1 : -1};
    }
    status = merge_all(tokenizer, work, bytes);
    for (int32_t i = 0; status == MH_OK && i >= 0; i = work->symbols[i].next)
        status = mh_push_id(work, work->symbols[i].id);
    return status;
}
