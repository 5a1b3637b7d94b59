#include "chat_impl.h"

#include <string.h>

#define V3_TURNS "user: <｜User｜>{text}\nassistant: <｜Assistant｜>{text}{eos}\n"

static const mh_chat_builtin builtins[] = {
    {.name = "v3",
     .source = "system: {text}\nsystem-join: \\n\\n\n" V3_TURNS "generation: <｜Assistant｜>\n",
     .tokens = {"<｜User｜>", "<｜Assistant｜>"}},
    {.name = "r1",
     .source = "system: {text}\nsystem-join: \\n\\n\n" V3_TURNS
               "generation: <｜Assistant｜><think>\\n\nhistory-after: </think>\n",
     .tokens = {"<｜User｜>", "<｜Assistant｜>"}},
    {.name = "v2",
     .source = "system: {text}\\n\\n\nuser: User: {text}\\n\\n\nassistant: Assistant: {text}{eos}\n"
               "generation: Assistant:\n"},
    {.name = "moonlight",
     .source = "begin:\nsystem: <|im_system|>system<|im_middle|>{text}<|im_end|>\n"
               "default-system: You are a helpful assistant\n"
               "user: <|im_user|>user<|im_middle|>{text}<|im_end|>\n"
               "assistant: <|im_assistant|>assistant<|im_middle|>{text}<|im_end|>\n"
               "generation: <|im_assistant|>assistant<|im_middle|>\n",
     .tokens = {"<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>"}},
    {.name = "fairy",
     .source = "system: {text}\n" V3_TURNS "generation: <｜Assistant｜>\n",
     .tokens = {"<｜User｜>", "<｜Assistant｜>"}},
};

const char mh_chat_builtin_names[] = "v3, r1, v2, moonlight, fairy";

const mh_chat_builtin *mh_chat_builtin_find(const char *name)
{
    for (size_t i = 0; i < sizeof(builtins) / sizeof(*builtins); i++)
        if (!strcmp(builtins[i].name, name))
            return &builtins[i];
    return NULL;
}

/* Every string of `signs` must be in the Jinja source, none of `absent`. What the published
 * templates share with no other: how a user turn and the generation prompt are written. */
static const struct {
    const char *name, *signs[4], *absent;
} signatures[] = {
    {"fairy",
     {"{{ bos_token }}{% for m in messages %}", "'<｜User｜>' + m['content']", "'<｜Assistant｜>'"},
     "</think>"},
    {"v3",
     {"'<｜User｜>' + message['content']", "ns.system_prompt + '", "{{'<｜Assistant｜>'}}"},
     "</think>"},
    {"r1",
     {"'<｜User｜>' + message['content']", "{{'<｜Assistant｜><think>", "split('</think>')"},
     "enable_thinking"},
    {"v2",
     {"'User: ' + message['content']", "'Assistant: ' + message['content'] + eos_token",
      "'Assistant:'"},
     "<｜User｜>"},
    {"moonlight",
     {"<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "You are a helpful assistant"},
     "<think>"},
};

static bool matches(size_t index, const char *jinja)
{
    for (size_t i = 0; i < 4 && signatures[index].signs[i]; i++)
        if (!strstr(jinja, signatures[index].signs[i]))
            return false;
    return !strstr(jinja, signatures[index].absent);
}

const mh_chat_builtin *mh_chat_builtin_detect(const mh_tokenizer *tokenizer)
{
    const char *jinja = mh_tokenizer_chat_template(tokenizer);
    if (jinja) {
        for (size_t i = 0; i < sizeof(signatures) / sizeof(*signatures); i++)
            if (matches(i, jinja))
                return mh_chat_builtin_find(signatures[i].name);
        return NULL;
    }
    if (mh_tokenizer_find(tokenizer, "<｜User｜>") >= 0 &&
        mh_tokenizer_find(tokenizer, "<｜Assistant｜>") >= 0)
        return mh_chat_builtin_find(mh_tokenizer_find(tokenizer, "<think>") >= 0 ? "r1" : "v3");
    if (mh_tokenizer_find(tokenizer, "<|im_middle|>") >= 0)
        return mh_chat_builtin_find("moonlight");
    return NULL;
}
