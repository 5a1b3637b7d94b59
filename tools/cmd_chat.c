/* cmd_chat.c: a conversation, turn by turn, from stdin. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <moehal-model/chat.h>

#include "generate.h"

struct conversation {
    struct setup *setup;
    mh_chat_template *template;
    struct generation generation;
    mh_chat_message *messages; /* texts owned */
    uint64_t count;
};

static mh_status add_message(struct conversation *c, uint32_t role, const char *text,
                             uint64_t bytes)
{
    mh_chat_message *grown = realloc(c->messages, (c->count + 1) * sizeof(*grown));
    char *copy = malloc(bytes + 1);
    if (grown)
        c->messages = grown;
    if (!grown || !copy) {
        free(copy);
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for the conversation");
    }
    memcpy(copy, text, bytes);
    copy[bytes] = 0;
    c->messages[c->count++] = (mh_chat_message){.role = role, .text = copy, .bytes = bytes};
    return MH_OK;
}

/* The session keeps what it has read; only what is new, or has become different, is read again. */
static uint64_t common_prefix(const struct conversation *c, const int32_t *ids, uint64_t count)
{
    const mh_session *session = c->generation.session;
    uint64_t n = 0, seen = (uint64_t)mh_session_position(session);
    int32_t id;
    while (n < count && n < seen && !mh_sequence_tokens(session, 0, (int64_t)n, 1, &id) &&
           id == ids[n])
        n++;
    return n < count ? n : count - 1; /* the last token is always run: its logits are wanted */
}

static mh_status reply(struct conversation *c)
{
    int32_t *ids = NULL;
    uint64_t count = 0, bytes;
    char *text = NULL;
    mh_session *session = c->generation.session;
    mh_status status =
        mh_chat_encode(c->template, c->messages, c->count, MH_CHAT_GENERATION, &ids, &count);
    if (!status && (int64_t)count >= mh_session_context(session))
        status = mh_fail(MH_INVALID_ARGUMENT,
                         "the conversation has %llu tokens, the context has room for %lld",
                         (unsigned long long)count, (long long)mh_session_context(session));
    if (!status) {
        uint64_t kept = common_prefix(c, ids, count);
        status = mh_session_rewind(session, (int64_t)kept);
        if (!status)
            status = generate(&c->generation, ids + kept, count - kept);
        if (!status)
            print_summary(&c->generation, c->setup, count - kept);
    }
    if (!status)
        status = mh_tokenizer_decode(c->setup->tokenizer, c->generation.ids, c->generation.count,
                                     MH_DECODE_SKIP_SPECIAL, &text, &bytes);
    if (!status)
        status = add_message(c, MH_CHAT_ASSISTANT, text, bytes);
    generation_free(&c->generation);
    mh_model_free(text);
    mh_model_free(ids);
    return status;
}

static int talk(struct conversation *c)
{
    char *line = NULL;
    size_t room = 0;
    bool terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    mh_status status = MH_OK;
    if (terminal)
        fprintf(stderr, "template %s; an empty line or Ctrl-D ends\n",
                mh_chat_template_name(c->template));
    while (!status) {
        if (terminal)
            fputs("> ", stdout), fflush(stdout);
        ssize_t length = getline(&line, &room, stdin);
        if (length > 0 && line[length - 1] == '\n')
            line[--length] = 0;
        if (length <= 0 || (interrupted() && length <= 0))
            break;
        status = add_message(c, MH_CHAT_USER, line, (uint64_t)length);
        if (!status)
            status = reply(c);
        if (status == MH_CANCELLED) { /* before a word of the answer: it was never asked */
            free((void *)(uintptr_t)c->messages[--c->count].text);
            putchar('\n');
            status = MH_OK;
        }
        clear_interrupt(); /* Ctrl-C ended the reply, not the conversation */
    }
    free(line);
    return status ? report_failure(status) : EXIT_DONE;
}

static int run_chat(struct setup *setup, const struct setup_options *options,
                    const struct sampling_options *sampling_options, const char *name)
{
    struct progress progress = {.what = "reading"};
    struct conversation c = {.setup = setup};
    if (!setup->tokenizer) {
        fprintf(stderr, "moehal: chat: %s\n", setup->tokenizer_reason);
        return EXIT_USAGE;
    }
    mh_status status = mh_chat_template_open(setup->tokenizer, name, &c.template);
    if (status)
        return report_bad_input(status);
    c.generation = (struct generation){
        .tokenizer = setup->tokenizer,
        .config = setup->config,
        .devices = setup->devices,
        .device_count = setup->device_count,
        .timeline = setup->timeline,
        .max_tokens = sampling_options->has_max_tokens ? sampling_options->max_tokens : 512,
        .stream = true,
    };
    mh_sampling sampling = choose_sampling(sampling_options, setup->config);
    /* The model's whole context, within reason: the cache is taken at once. */
    status = setup_session(setup, options, 8192, &progress, &c.generation.session);
    if (!status)
        status = mh_session_set_sampling(c.generation.session, &sampling);
    interrupt_cancels(c.generation.session);
    int code = status ? report_failure(status) : talk(&c);
    interrupt_cancels(NULL);
    for (uint64_t i = 0; i < c.count; i++)
        free((void *)(uintptr_t)c.messages[i].text);
    free(c.messages);
    mh_session_release(c.generation.session);
    mh_chat_template_release(c.template);
    return code;
}

static int run(int argc, char **argv)
{
    struct setup_options options = {.spreads = true};
    struct sampling_options sampling = {0};
    const char *name = NULL;
    const struct option table[] = {
        SETUP_OPTIONS(options),
        ATTENTION_OPTION(options),
        {"template", OPTION_TEXT, &name, "NAME|FILE", "chat template; default: the model's own"},
        SAMPLING_OPTIONS(sampling),
        {0},
    };
    int code = parse_options(&command_chat, table, argc, argv, NULL, 0);
    if (code >= 0)
        return code;
    struct setup setup;
    code = setup_open(&setup, &command_chat, &options);
    if (code < 0)
        code = run_chat(&setup, &options, &sampling, name);
    return setup_close(&setup, code);
}

const struct command command_chat = {
    "chat",
    "--model DIR [--template NAME|FILE] [options of generate]",
    "a conversation, turn by turn, with the model's chat template",
    "  moehal chat --model models/fairy\n"
    "  echo 'Tell me the story of The Golden Goose.' | moehal chat --model models/fairy",
    run,
};
