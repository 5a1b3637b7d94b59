#include "chat_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer_impl.h"
#include "utf8.h"

#define FILE_LIMIT 65536

/* ---- opening ---- */

static mh_status read_template_file(const char *path, char **out)
{
    FILE *file = fopen(path, "rb");
    if (!file && errno == ENOENT)
        return mh_fail(MH_NOT_FOUND, "--template \"%s\": no such file, and not one of %s", path,
                       mh_chat_builtin_names);
    if (!file)
        return mh_fail(MH_IO_ERROR, "%s: %s", path, strerror(errno));
    mh_status status = MH_OK;
    char *text = malloc(FILE_LIMIT + 1);
    size_t bytes = text ? fread(text, 1, FILE_LIMIT + 1, file) : 0;
    if (!text)
        status = mh_fail(MH_OUT_OF_MEMORY, "%s: no memory to read it", path);
    else if (ferror(file))
        status = mh_fail(MH_IO_ERROR, "%s: cannot be read", path);
    else if (bytes > FILE_LIMIT)
        status = mh_fail(MH_BAD_DATA, "%s: longer than %d bytes", path, FILE_LIMIT);
    else if (memchr(text, '\0', bytes) || mh_utf8_valid_prefix((uint8_t *)text, bytes) != bytes)
        status = mh_fail(MH_BAD_DATA, "%s: not UTF-8 text", path);
    fclose(file);
    if (status != MH_OK) {
        free(text);
        return status;
    }
    text[bytes] = '\0';
    *out = text;
    return MH_OK;
}

static mh_status use_builtin(mh_chat_template *chat, const mh_chat_builtin *builtin)
{
    for (size_t i = 0; i < 4 && builtin->tokens[i]; i++)
        if (mh_tokenizer_find(chat->tokenizer, builtin->tokens[i]) < 0)
            return mh_fail(MH_UNSUPPORTED,
                           "the chat template %s needs the token %s, which the tokenizer lacks",
                           builtin->name, builtin->tokens[i]);
    return mh_chat_parse(chat, builtin->name, builtin->source);
}

static mh_status use_file(mh_chat_template *chat, const char *path)
{
    char *source = NULL;
    mh_status status = read_template_file(path, &source);
    if (status == MH_OK)
        status = mh_chat_parse(chat, path, source);
    free(source);
    return status;
}

mh_status mh_chat_template_open(mh_tokenizer *tokenizer, const char *choice, mh_chat_template **out)
{
    if (!tokenizer || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_chat_template_open: a NULL argument");
    const mh_chat_builtin *builtin =
        choice ? mh_chat_builtin_find(choice) : mh_chat_builtin_detect(tokenizer);
    if (!choice && !builtin)
        return mh_fail(MH_UNSUPPORTED, "the model %s; choose one with --template (%s, or a file)",
                       mh_tokenizer_chat_template(tokenizer)
                           ? "has a chat_template that moehal does not know"
                           : "has no chat_template",
                       mh_chat_builtin_names);
    mh_chat_template *chat = calloc(1, sizeof(*chat));
    if (!chat)
        return mh_fail(MH_OUT_OF_MEMORY, "no memory for a chat template");
    chat->tokenizer = mh_tokenizer_retain(tokenizer);
    chat->name = strdup(builtin ? builtin->name : choice);
    mh_status status = !chat->name ? mh_fail(MH_OUT_OF_MEMORY, "no memory for a chat template")
                       : builtin   ? use_builtin(chat, builtin)
                                   : use_file(chat, choice);
    if (status != MH_OK) {
        mh_chat_template_release(chat);
        return status;
    }
    *out = chat;
    return MH_OK;
}

void mh_chat_template_release(mh_chat_template *chat)
{
    if (!chat)
        return;
    for (int i = 0; i < MH_CHAT_PART_COUNT; i++) {
        free(chat->parts[i].before.data);
        free(chat->parts[i].after.data);
    }
    mh_tokenizer_release(chat->tokenizer);
    free(chat->name);
    free(chat);
}

const char *mh_chat_template_name(const mh_chat_template *chat)
{
    return chat->name;
}

/* ---- rendering ---- */

/* The text, and for each byte of it 1 if it comes from a message, where a special token is not to
 * be seen. Text and marks are encoded together, since "Assistant: " and what follows share tokens.
 */
typedef struct {
    mh_blob text, plain;
    mh_status status;
} page;

static void write(page *p, const void *text, uint64_t bytes, bool is_message)
{
    if (p->status == MH_OK)
        p->status = mh_blob_add(&p->text, text, bytes);
    if (p->status == MH_OK)
        p->status = mh_grow(&p->plain.data, &p->plain.capacity, p->text.bytes, 1);
    if (p->status == MH_OK && bytes)
        memset(p->plain.data + p->plain.bytes, is_message, bytes);
    p->plain.bytes = p->text.bytes;
}

static void write_literal(page *p, const mh_blob *literal)
{
    write(p, literal->data, literal->bytes, false);
}

static void write_message(page *p, const mh_chat_part *part, const char *text, uint64_t bytes)
{
    write_literal(p, &part->before);
    write(p, text, bytes, true);
    write_literal(p, &part->after);
}

static mh_status check_message(const mh_chat_template *chat, const mh_chat_message *message,
                               uint64_t index)
{
    const unsigned long long i = index;
    if (message->role > MH_CHAT_ASSISTANT)
        return mh_fail(MH_INVALID_ARGUMENT, "message %llu: unknown role %u (limit %u)", i,
                       message->role, MH_CHAT_ASSISTANT);
    if (message->role == MH_CHAT_SYSTEM && !chat->parts[MH_CHAT_SYSTEM_PART].given)
        return mh_fail(MH_INVALID_ARGUMENT, "message %llu: the chat template %s has no system role",
                       i, chat->name);
    if (!message->text && message->bytes)
        return mh_fail(MH_INVALID_ARGUMENT, "message %llu: text is NULL", i);
    const uint8_t *text = (const uint8_t *)message->text;
    uint64_t valid = mh_utf8_valid_prefix(text, message->bytes);
    if (valid < message->bytes)
        return mh_fail(MH_INVALID_ARGUMENT, "message %llu: not UTF-8: byte 0x%02x at offset %llu",
                       i, text[valid], (unsigned long long)valid);
    return MH_OK;
}

/* A reply of an earlier turn without its thought. */
static void write_reply(page *p, const mh_chat_template *chat, const mh_chat_message *message)
{
    const mh_blob *mark = &chat->parts[MH_CHAT_HISTORY_AFTER_PART].before;
    const char *text = message->text;
    uint64_t bytes = message->bytes;
    const char *found;
    while (mark->bytes && bytes && (found = memmem(text, bytes, mark->data, mark->bytes))) {
        bytes -= (uint64_t)(found - text) + mark->bytes;
        text = found + mark->bytes;
    }
    write_message(p, &chat->parts[MH_CHAT_ASSISTANT_PART], text, bytes);
}

/* What stands before the first turn: `begin`, and the system messages if the template gathers them
 * or none is there. */
static void write_head(page *p, const mh_chat_template *chat, const mh_chat_message *messages,
                       uint64_t count)
{
    const mh_chat_part *system = &chat->parts[MH_CHAT_SYSTEM_PART];
    const mh_chat_part *join = &chat->parts[MH_CHAT_SYSTEM_JOIN_PART];
    const mh_blob *otherwise = &chat->parts[MH_CHAT_DEFAULT_SYSTEM_PART].before;
    uint64_t seen = 0;
    write_literal(p, &chat->parts[MH_CHAT_BEGIN_PART].before);
    for (uint64_t i = 0; i < count; i++) {
        if (messages[i].role != MH_CHAT_SYSTEM || (seen++, !join->given))
            continue;
        write_literal(p, seen == 1 ? &system->before : &join->before);
        write(p, messages[i].text, messages[i].bytes, true);
    }
    if (seen && join->given)
        write_literal(p, &system->after);
    if (!seen && chat->parts[MH_CHAT_DEFAULT_SYSTEM_PART].given)
        write_message(p, system, (const char *)otherwise->data, otherwise->bytes);
}

static mh_status write_page(page *p, const mh_chat_template *chat, const mh_chat_message *messages,
                            uint64_t count, uint32_t flags)
{
    if (flags & ~MH_CHAT_GENERATION)
        return mh_fail(MH_INVALID_ARGUMENT, "chat: unknown flags 0x%x", flags);
    for (uint64_t i = 0; i < count; i++) {
        mh_status status = check_message(chat, &messages[i], i);
        if (status != MH_OK)
            return status;
    }
    write_head(p, chat, messages, count);
    for (uint64_t i = 0; i < count; i++) {
        if (messages[i].role == MH_CHAT_ASSISTANT)
            write_reply(p, chat, &messages[i]);
        else if (messages[i].role == MH_CHAT_USER)
            write_message(p, &chat->parts[MH_CHAT_USER_PART], messages[i].text, messages[i].bytes);
        else if (!chat->parts[MH_CHAT_SYSTEM_JOIN_PART].given)
            write_message(p, &chat->parts[MH_CHAT_SYSTEM_PART], messages[i].text,
                          messages[i].bytes);
    }
    if (flags & MH_CHAT_GENERATION)
        write_literal(p, &chat->parts[MH_CHAT_GENERATION_PART].before);
    return p->status;
}

mh_status mh_chat_render(const mh_chat_template *chat, const mh_chat_message *messages,
                         uint64_t count, uint32_t flags, char **text, uint64_t *bytes)
{
    if (!chat || (count && !messages) || !text)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_chat_render: a NULL argument");
    page p = {.status = MH_OK};
    mh_status status = write_page(&p, chat, messages, count, flags);
    if (status == MH_OK)
        status = mh_blob_terminate(&p.text);
    free(p.plain.data);
    if (status != MH_OK) {
        free(p.text.data);
        return status;
    }
    *text = (char *)p.text.data;
    if (bytes)
        *bytes = p.text.bytes;
    return MH_OK;
}

mh_status mh_chat_encode(const mh_chat_template *chat, const mh_chat_message *messages,
                         uint64_t count, uint32_t flags, int32_t **ids, uint64_t *id_count)
{
    if (!chat || (count && !messages) || !ids || !id_count)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_chat_encode: a NULL argument");
    page p = {.status = MH_OK};
    mh_status status = write_page(&p, chat, messages, count, flags);
    if (status == MH_OK)
        status = mh_encode_marked(chat->tokenizer, p.text.data, p.plain.data, p.text.bytes, 0, ids,
                                  id_count);
    free(p.text.data);
    free(p.plain.data);
    return status;
}
