/* cmd_eval.c: logits of given ids, or the perplexity of a text. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <moehal-model/safetensors.h>

#include "tool.h"

#define WINDOW 511 /* tokens predicted a window, after BOS */

struct inputs {
    struct setup_options setup;
    const char *ids, *text, *out;
    bool hidden;
};

/* ---- --ids ---- */

struct results {
    float *logits;
    float **hidden; /* NULL unless asked for */
    float *hidden_values;
};

static mh_status make_results(const struct inputs *in, const mh_config *c, uint64_t count,
                              struct results *r)
{
    uint64_t layers = (uint64_t)c->num_hidden_layers + 1, size = (uint64_t)c->hidden_size;
    r->logits = calloc(count * (uint64_t)c->vocab_size, sizeof(float));
    if (in->hidden) {
        r->hidden = calloc(layers, sizeof(*r->hidden));
        r->hidden_values = calloc(layers * count * size, sizeof(float));
    }
    if (!r->logits || (in->hidden && (!r->hidden || !r->hidden_values)))
        return mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for the outputs of %llu tokens",
                       (unsigned long long)count);
    for (uint64_t l = 0; in->hidden && l < layers; l++)
        r->hidden[l] = r->hidden_values + l * count * size;
    return MH_OK;
}

static mh_status write_results(const struct inputs *in, const mh_config *c, uint64_t count,
                               const struct results *r)
{
    uint64_t layers = (uint64_t)c->num_hidden_layers + 1;
    mh_safetensors_entry *entries = calloc(1 + layers, sizeof(*entries));
    char(*names)[32] = calloc(1 + layers, sizeof(*names));
    mh_status status = MH_OK;
    uint64_t used = 0;
    if (!entries || !names)
        status = mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for the names");
    for (uint64_t i = 0; !status && i < 1 + (r->hidden ? layers : 0); i++, used++) {
        mh_safetensors_entry *e = &entries[i];
        snprintf(names[i], sizeof(names[i]), i ? "hidden.%d" : "logits", (int)i - 1);
        *e = (mh_safetensors_entry){.name = names[i], .dtype = MH_ST_F32, .rank = 2};
        e->shape[0] = (int64_t)count;
        e->shape[1] = i ? c->hidden_size : c->vocab_size;
        e->data = i ? r->hidden[i - 1] : r->logits;
    }
    if (!status)
        status = mh_safetensors_write(in->out, entries, used);
    free(entries);
    free(names);
    return status;
}

static int eval_ids(const struct inputs *in, struct setup *setup)
{
    struct progress progress = {.what = "evaluating"};
    struct results r = {0};
    mh_session *session = NULL;
    int32_t *ids = NULL;
    uint64_t count;
    int code = parse_ids(&command_eval, in->ids, &ids, &count);
    if (code >= 0)
        return code;
    mh_status status = setup_session(setup, &in->setup, (int64_t)count, &progress, &session);
    if (!status)
        status = make_results(in, setup->config, count, &r);
    mh_session_outputs outputs = MH_INIT(mh_session_outputs);
    outputs.logits = r.logits;
    outputs.hidden = r.hidden;
    if (!status)
        status = mh_session_run(session, ids, count, &outputs);
    end_progress(&progress);
    if (!status && in->out)
        status = write_results(in, setup->config, count, &r);
    if (!status && in->setup.json)
        printf("{\"device\": \"%s\", \"virtual\": %s, \"tokens\": %llu}\n", setup->uri,
               setup->info.flags & MH_DEVICE_IS_VIRTUAL ? "true" : "false",
               (unsigned long long)count);
    else if (!status)
        printf("%llu tokens on %s%s%s\n", (unsigned long long)count, setup->uri,
               in->out ? ", written to " : "", in->out ? in->out : "");
    free(r.logits);
    free(r.hidden);
    free(r.hidden_values);
    free(ids);
    mh_session_release(session);
    return status ? report_failure(status) : EXIT_DONE;
}

/* ---- --text ---- */

static char *read_text(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    char *text = NULL;
    size_t room = 0;
    *size = 0;
    while (file && !feof(file) && !ferror(file)) {
        if (*size == room) {
            char *grown = realloc(text, room = room ? 2 * room : 65536);
            if (!grown)
                break;
            text = grown;
        }
        *size += fread(text + *size, 1, room - *size, file);
    }
    bool whole = file && feof(file) && !ferror(file);
    if (file)
        fclose(file);
    if (whole)
        return text;
    fprintf(stderr, "moehal: --text: %s: %s\n", path, strerror(errno));
    free(text);
    return NULL;
}

/* -log p of `token`, in nats. */
static double loss(const float *logits, int64_t count, int32_t token)
{
    double most = logits[0], sum = 0;
    for (int64_t i = 1; i < count; i++)
        most = logits[i] > most ? logits[i] : most;
    for (int64_t i = 0; i < count; i++)
        sum += exp(logits[i] - most);
    /* cppcheck-suppress invalidFunctionArg ; the largest logit alone adds 1 */
    return log(sum) + most - logits[token];
}

/* Windows of BOS + 511 tokens, each of the 511 predicted; the last one is shorter. */
static mh_status measure(mh_session *session, const mh_config *c, const int32_t *ids,
                         uint64_t count, struct progress *progress, double *total)
{
    int32_t window[WINDOW];
    float *logits = malloc(sizeof(float) * WINDOW * (size_t)c->vocab_size);
    mh_status status =
        logits ? MH_OK : mh_fail(MH_OUT_OF_MEMORY, "host memory: no room for the logits");
    mh_session_outputs outputs = MH_INIT(mh_session_outputs);
    outputs.logits = logits;
    *total = 0;
    for (uint64_t begin = 0; !status && begin < count; begin += WINDOW) {
        uint64_t n = count - begin < WINDOW ? count - begin : WINDOW;
        window[0] = c->bos_token_id;
        memcpy(window + 1, ids + begin, (n - 1) * sizeof(*ids));
        status = mh_session_rewind(session, 0);
        if (!status)
            status = mh_session_run(session, window, n, &outputs);
        for (uint64_t i = 0; !status && i < n; i++)
            *total += loss(logits + i * (uint64_t)c->vocab_size, c->vocab_size, ids[begin + i]);
        if (!status && show_progress(progress, begin + n, count))
            status = mh_fail(MH_CANCELLED, "interrupted");
    }
    free(logits);
    return status;
}

static int eval_text(const struct inputs *in, struct setup *setup)
{
    struct progress progress = {.what = "evaluating"};
    mh_session *session = NULL;
    int32_t *ids = NULL;
    uint64_t count = 0;
    size_t size;
    double total = 0;
    if (!setup->tokenizer) {
        fprintf(stderr, "moehal: --text: %s\n", setup->tokenizer_reason);
        return EXIT_USAGE;
    }
    if (setup->config->bos_token_id < 0) {
        fprintf(stderr, "moehal: --text: %s/config.json has no bos_token_id\n", in->setup.model);
        return EXIT_USAGE;
    }
    char *text = read_text(in->text, &size);
    if (!text)
        return EXIT_USAGE;
    mh_status status = mh_tokenizer_encode(setup->tokenizer, text, size, 0, &ids, &count);
    if (!status && !count)
        status = mh_fail(MH_BAD_DATA, "--text: %s: holds no token", in->text);
    if (!status)
        status = setup_session(setup, &in->setup, WINDOW, NULL, &session);
    if (!status)
        status = measure(session, setup->config, ids, count, &progress, &total);
    end_progress(&progress);
    double nll = total / (double)(count ? count : 1);
    if (!status && in->setup.json)
        printf("{\"device\": \"%s\", \"virtual\": %s, \"tokens\": %llu, \"nll\": %.9g, "
               "\"perplexity\": %.9g}\n",
               setup->uri, setup->info.flags & MH_DEVICE_IS_VIRTUAL ? "true" : "false",
               (unsigned long long)count, nll, exp(nll));
    else if (!status)
        printf("tokens %llu\nnll %.6f\nperplexity %.4f\n", (unsigned long long)count, nll,
               exp(nll));
    free(text);
    mh_model_free(ids);
    mh_session_release(session);
    return status ? report_failure(status) : EXIT_DONE;
}

static int run(int argc, char **argv)
{
    struct inputs in = {.setup = {.spreads = true, .joins = true}};
    const struct option options[] = {
        SETUP_OPTIONS(in.setup),
        EXPERT_LOAD_OPTION(in.setup),
        OFFLOAD_OPTION(in.setup),
        ATTENTION_OPTION(in.setup),
        {"ids", OPTION_TEXT, &in.ids, "\"0 17 4\"", "logits of these tokens"},
        {"text", OPTION_TEXT, &in.text, "FILE", "perplexity of a text"},
        {"out", OPTION_TEXT, &in.out, "FILE", "with --ids: write logits as safetensors"},
        {"hidden", OPTION_FLAG, &in.hidden, NULL, "with --out: hidden states too"},
        {0},
    };
    int code = parse_options(&command_eval, options, argc, argv, NULL, 0);
    if (code >= 0)
        return code;
    if (!in.ids == !in.text)
        return usage_error(&command_eval, "one of --ids and --text is needed");
    if (in.text && (in.out || in.hidden))
        return usage_error(&command_eval, "--out and --hidden go with --ids");
    if (in.hidden && !in.out)
        return usage_error(&command_eval, "--hidden needs --out");
    struct setup setup;
    code = setup_open(&setup, &command_eval, &in.setup);
    if (code < 0)
        code = in.ids ? eval_ids(&in, &setup) : eval_text(&in, &setup);
    return setup_close(&setup, code);
}

const struct command command_eval = {
    "eval",
    "--model DIR (--ids \"0 17 4\" | --text FILE) [options]",
    "logits of given tokens, or the perplexity of a text",
    "  moehal eval --model DIR --ids \"0 17 4\" --out logits.safetensors --hidden\n"
    "  moehal eval --model models/fairy --text story.txt --json",
    run,
};
