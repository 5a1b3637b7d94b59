/*
 * chat.h: a conversation to the token ids a model expects.
 *
 * Templates built in, by name:
 *   v3         DeepSeek-V3: BOS, all system messages joined by an empty line, then
 *              <｜User｜>text, <｜Assistant｜>text EOS; generation begins <｜Assistant｜>
 *   r1         DeepSeek-R1: as v3, but generation begins <｜Assistant｜><think>\n (the reply starts
 *              inside the thought) and earlier replies keep only what follows </think>
 *   v2         DeepSeek-V2, V2-Lite: "User: text\n\n", "Assistant: text" EOS; system messages where
 *              they stand, each with "\n\n" behind it
 *   moonlight  Moonlight-Instruct: <|im_user|>user<|im_middle|>text<|im_end|> and so on
 *   fairy      the bundled model: as v3, but system messages stay where they stand
 *
 * Jinja is not interpreted. The model's chat_template is recognised as one of these by its text or,
 * where the model has none, by the special tokens it has; else the caller chooses by name, or gives
 * a file. Tool calls are not rendered.
 *
 * A template FILE is UTF-8 text of lines "key: value". Empty lines and lines beginning with # are
 * skipped; one space after the colon is dropped and the rest taken as it is. \n, \t and \\ mean
 * what they do in C; {text} stands for the message, {bos} and {eos} for those tokens, {{ and }} for
 * braces:
 *
 *   begin: {bos}                              what comes first; {bos} if there is no such line
 *   system: {text}                            a system message; without it they are refused
 *   system-join: \n\n                         if given: all system messages are joined by this and
 *                                             come right after `begin`
 *   default-system: You are helpful.          used when there is no system message
 *   user: <｜User｜>{text}                    required
 *   assistant: <｜Assistant｜>{text}{eos}     required
 *   generation: <｜Assistant｜>               required: where the model goes on
 *   history-after: </think>                   earlier replies keep what follows the last of these
 *
 * Messages are never commands: in what mh_chat_encode returns, special tokens come from the
 * template alone. A message that holds the text "<｜User｜>" is encoded as those characters.
 *
 * A template never changes after it is opened: any thread may use it, several at once.
 */
#ifndef MOEHAL_MODEL_CHAT_H
#define MOEHAL_MODEL_CHAT_H

#include <moehal-model/tokenizer.h>

MH_BEGIN_DECLS

typedef struct mh_chat_template mh_chat_template;

enum {
    MH_CHAT_SYSTEM = 0,
    MH_CHAT_USER = 1,
    MH_CHAT_ASSISTANT = 2,
};

/* A plain value that will not grow. */
typedef struct mh_chat_message {
    uint32_t role; /* MH_CHAT_* */
    uint32_t reserved;
    const char *text; /* borrowed; UTF-8 */
    uint64_t bytes;
} mh_chat_message;

enum {
    MH_CHAT_GENERATION = 1u, /* end with the beginning of a reply, for the model to go on from */
};

/* `choice`: NULL for the model's own template, the name of a built-in one, or the path of a
 * template file (a name wins). Retains the tokenizer. *out is owned by the caller.
 * MH_UNSUPPORTED: the model's own template is none of the built-in ones, or the tokenizer lacks a
 * token that the template needs. MH_NOT_FOUND: `choice` is neither name nor file. MH_BAD_DATA: the
 * message names file, line and what is wrong there. */
MH_API mh_status mh_chat_template_open(mh_tokenizer *tokenizer, const char *choice,
                                       mh_chat_template **out);

/* NULL is allowed. */
MH_API void mh_chat_template_release(mh_chat_template *chat);

/* The name of the built-in template, or the path of the file. Borrowed. */
MH_API const char *mh_chat_template_name(const mh_chat_template *chat);

/* The conversation as text, BOS included, to be looked at. To run a model use mh_chat_encode: the
 * text does not tell special tokens from a message that spells one. *text ends with a NUL not
 * counted in *bytes (may be NULL) and is owned by the caller: mh_model_free().
 * MH_INVALID_ARGUMENT: an unknown role, a message that is not UTF-8, a system message where the
 * template has none. */
MH_API mh_status mh_chat_render(const mh_chat_template *chat, const mh_chat_message *messages,
                                uint64_t count, uint32_t flags, char **text, uint64_t *bytes);

/* The conversation as ids, BOS included: nothing is to be put before them. Errors as above. *ids is
 * owned by the caller: mh_model_free(). */
MH_API mh_status mh_chat_encode(const mh_chat_template *chat, const mh_chat_message *messages,
                                uint64_t count, uint32_t flags, int32_t **ids, uint64_t *id_count);

MH_END_DECLS

#endif
