/* chat_impl.h: a chat template as read. Private to model/. */
#ifndef MOEHAL_MODEL_CHAT_IMPL_H
#define MOEHAL_MODEL_CHAT_IMPL_H

#include <stdbool.h>

#include <moehal-model/chat.h>
#include <moehal/error.h>

#include "grow.h"

/* The lines of a template. PART(identifier, key, how often {text} stands in it, required) */
#define MH_CHAT_PARTS(PART)                                                                        \
    PART(BEGIN, "begin", 0, false)                                                                 \
    PART(SYSTEM, "system", 1, false)                                                               \
    PART(SYSTEM_JOIN, "system-join", 0, false)                                                     \
    PART(DEFAULT_SYSTEM, "default-system", 0, false)                                               \
    PART(USER, "user", 1, true)                                                                    \
    PART(ASSISTANT, "assistant", 1, true)                                                          \
    PART(GENERATION, "generation", 0, true)                                                        \
    PART(HISTORY_AFTER, "history-after", 0, false)

typedef enum {
#define PART(identifier, key, texts, required) MH_CHAT_##identifier##_PART,
    MH_CHAT_PARTS(PART)
#undef PART
        MH_CHAT_PART_COUNT
} mh_chat_part_id;

typedef struct mh_chat_part {
    bool given;
    mh_blob before, after; /* around {text}; `after` is empty where there is no {text} */
} mh_chat_part;

struct mh_chat_template {
    mh_tokenizer *tokenizer; /* retained */
    char *name;              /* owned */
    mh_chat_part parts[MH_CHAT_PART_COUNT];
};

/* chat_parse.c: reads the lines of `source` (a C string) into chat->parts. `where` begins every
 * message. */
mh_status mh_chat_parse(mh_chat_template *chat, const char *where, const char *source);

/* chat_builtin.c */
typedef struct mh_chat_builtin {
    const char *name;
    const char *source;    /* in the format of a template file */
    const char *tokens[4]; /* what the tokenizer must have; up to the first NULL */
} mh_chat_builtin;
extern const char mh_chat_builtin_names[]; /* for messages */
/* NULL if there is none of this name. */
const mh_chat_builtin *mh_chat_builtin_find(const char *name);
/* The one the model's own chat_template or, without one, its tokens speak for; NULL if none. */
const mh_chat_builtin *mh_chat_builtin_detect(const mh_tokenizer *tokenizer);

#endif
