#include "tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

static uint64_t mix(uint64_t value)
{
    value ^= value >> 32;
    value *= 0xd6e8feb86659fd93u;
    value ^= value >> 32;
    value *= 0xd6e8feb86659fd93u;
    return value ^ value >> 32;
}

static uint64_t hash_text(const uint8_t *text, uint64_t bytes)
{
    uint64_t hash = bytes;
    for (; bytes >= 8; text += 8, bytes -= 8) {
        uint64_t word;
        memcpy(&word, text, 8);
        hash = mix(hash ^ word);
    }
    uint64_t tail = 0;
    memcpy(&tail, text, bytes);
    return mix(hash ^ tail);
}

/* Slots of `size` bytes, all bits set, a power of two and at least twice `count` of them: probes
 * stay short and an empty slot always exists. */
static mh_status new_slots(void *slots, uint64_t *mask, uint64_t count, uint64_t size)
{
    uint64_t wanted = 16;
    while (count <= UINT32_MAX && wanted < 2 * count)
        wanted *= 2;
    void *memory = count <= UINT32_MAX ? malloc(wanted * size) : NULL;
    if (!memory)
        return mh_fail(MH_OUT_OF_MEMORY, "no memory for a table of %llu entries",
                       (unsigned long long)count);
    memset(memory, 0xff, wanted * size);
    memcpy(slots, &memory, sizeof(memory)); /* the address of a pointer of either type */
    *mask = wanted - 1;
    return MH_OK;
}

mh_status mh_text_table_init(mh_text_table *table, uint64_t count)
{
    return new_slots(&table->slots, &table->mask, count, sizeof(*table->slots));
}

mh_status mh_merge_table_init(mh_merge_table *table, uint64_t count)
{
    return new_slots(&table->slots, &table->mask, count, sizeof(*table->slots));
}

/* The slot of a text, or the empty one where it would be. */
static mh_text_slot *text_slot(const mh_text_table *table, const mh_token *tokens, const void *text,
                               uint64_t bytes, uint64_t hash)
{
    uint64_t slot = hash & table->mask;
    for (;; slot = (slot + 1) & table->mask) {
        int32_t id = table->slots[slot].id;
        if (id < 0 || (table->slots[slot].hash == hash >> 32 && tokens[id].text_size == bytes &&
                       !memcmp(tokens[id].text, text, bytes)))
            return &table->slots[slot];
    }
}

int32_t mh_text_table_find(const mh_text_table *table, const mh_token *tokens, const void *text,
                           uint64_t bytes)
{
    return text_slot(table, tokens, text, bytes, hash_text(text, bytes))->id;
}

int32_t mh_text_table_add(mh_text_table *table, const mh_token *tokens, int32_t id)
{
    const mh_token *token = &tokens[id];
    uint64_t hash = hash_text(token->text, token->text_size);
    mh_text_slot *slot = text_slot(table, tokens, token->text, token->text_size, hash);
    if (slot->id >= 0)
        return slot->id;
    *slot = (mh_text_slot){id, (uint32_t)(hash >> 32)};
    return -1;
}

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static mh_merge *merge_slot(const mh_merge_table *table, uint64_t pair)
{
    uint64_t slot = mix(pair) & table->mask;
    while (table->slots[slot].pair != pair && table->slots[slot].pair != MH_NO_PAIR)
        slot = (slot + 1) & table->mask;
    return &table->slots[slot];
}

void mh_merge_table_add(mh_merge_table *table, int32_t left, int32_t right, uint32_t rank,
                        int32_t id)
{
    mh_merge *merge = merge_slot(table, pair_of(left, right));
    *merge = (mh_merge){.pair = pair_of(left, right), .rank = rank, .id = id};
}

const mh_merge *mh_merge_table_find(const mh_merge_table *table, int32_t left, int32_t right)
{
    const mh_merge *merge = merge_slot(table, pair_of(left, right));
    return merge->pair == MH_NO_PAIR ? NULL : merge;
}
