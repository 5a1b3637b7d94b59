/* tool.h: what the commands share. */
#ifndef TOOL_H
#define TOOL_H

#include <stdbool.h>
#include <stdio.h>

#include <moehal-model/session.h>
#include <moehal-model/tokenizer.h>

/* Exit statuses. */
enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* ---- options.c ---- */
enum option_kind { OPTION_FLAG, OPTION_TEXT, OPTION_INTEGER, OPTION_NUMBER };

struct option {
    const char *name; /* without the dashes; NULL ends a table */
    enum option_kind kind;
    void *target; /* bool, const char *, int64_t, double */
    const char *argument;
    const char *help;
    double least, most; /* of numbers */
    bool *given;        /* may be NULL */
};

struct command {
    const char *name;
    const char *synopsis; /* after the name */
    const char *summary;
    const char *examples; /* lines */
    int (*run)(int argc, char **argv);
};

extern const struct command command_bench, command_check, command_devices, command_diff,
    command_trace, command_generate, command_chat, command_eval, command_inspect, command_synth;

/* Reads --name value, --name=value and at most `places` bare words. Returns -1 to go on, or the
 * exit status: a usage error told on stderr, or --help done. */
int parse_options(const struct command *command, const struct option *options, int argc,
                  char **argv, const char **words, int places);
int usage_error(const struct command *command, const char *format, ...) MH_PRINTF(2, 3);

/* ---- ui.c ---- */
/* Tells the last error on stderr and returns the exit status that suits it. */
int report_failure(mh_status status);
/* The same for failures of reading what the user named: always EXIT_USAGE, but for memory. */
int report_bad_input(mh_status status);
/* Progress lines on a terminal's stderr; nothing in a pipe. `what` is static text. */
struct progress {
    const char *what;
    bool bytes; /* show megabytes */
    bool shown;
    double next; /* time of the next update */
};
int show_progress(void *progress, uint64_t done, uint64_t total);
void end_progress(struct progress *progress);
double now_seconds(void);
double seconds_since_process_start(void);
/* Ctrl-C: the first sets this flag and cancels the session's run, the second ends the process as
 * usual. */
void catch_interrupt(void);
void interrupt_cancels(mh_session *session); /* borrowed; NULL before it is released */
bool interrupted(void);
void clear_interrupt(void);

/* ---- setup.c: what generate, chat and eval have in common ---- */
struct setup_options {
    const char *model, *device, *profile, *kv, *placement, *timeline, *expert_load, *offload;
    const char *attention;
    int64_t threads, chunk;
    bool strict, is_virtual, json;
    bool spreads; /* takes a list of devices */
    bool joins;   /* runs in several processes */
};
#define SETUP_OPTIONS(s)                                                                             \
    {"model", OPTION_TEXT, &(s).model, "DIR", "the model's directory (Hugging Face layout)"},        \
        {"device", OPTION_TEXT, &(s).device, "URI",                                                  \
         "host, nvidia:0, ...; default: MOEHAL_DEVICE, else auto; a,b: experts spread"},                                  \
        {"virtual", OPTION_FLAG, &(s).is_virtual, NULL,                                              \
         "use the project's virtual GPUs"},                                   \
        {"profile", OPTION_TEXT, &(s).profile, "exact|fast", "arithmetic; default exact"},           \
        {"kv", OPTION_TEXT, &(s).kv, "f32|bf16", "dtype of the cache; default f32"},                 \
        {"placement", OPTION_TEXT, &(s).placement, "WORD[,...]",                                     \
         "strict: no op may fall back; load=FILE, redundant=N: where experts go"},                   \
        {"strict", OPTION_FLAG, &(s).strict, NULL, "the same as --placement strict"},                \
        {"threads", OPTION_INTEGER, &(s).threads, "N", "host threads; default one a core", 0, 4096}, \
        {"chunk", OPTION_INTEGER, &(s).chunk, "N", "tokens of a prefill step; default 512",           \
         1,       1 << 20},                                                                          \
        {"timeline", OPTION_TEXT, &(s).timeline, "FILE",                                             \
         "write a Chrome trace (Perfetto opens it) of every op; *.jsonl: JSON lines"},               \
    {                                                                                                \
        "json", OPTION_FLAG, &(s).json, NULL, "one JSON object on stdout instead of text"            \
    }

#define EXPERT_LOAD_OPTION(s)                                                                        \
    {                                                                                                \
        "expert-load", OPTION_TEXT, &(s).expert_load, "FILE",                                        \
            "write how often each expert was chosen, for --placement load=FILE"                      \
    }
#define OFFLOAD_OPTION(s)                                                                            \
    {                                                                                                \
        "offload", OPTION_TEXT, &(s).offload, "auto|N",                                              \
            "keep what fits, or N, of a layer's experts on a GPU, and fetch others when chosen"      \
    }

#define ATTENTION_OPTION(s)                                                                          \
    {                                                                                                \
        "attention", OPTION_TEXT, &(s).attention, "replicated|split",                                \
            "split: each of several devices keeps its part of the cache"                             \
    }

/* The words of --placement. */
struct placement_words {
    bool strict;
    uint32_t redundant;
    char load[1024]; /* "": none */
};
/* Returns -1, or the exit status after telling why. text may be NULL. */
int parse_placement(const struct command *command, const char *text, struct placement_words *words);
/* The same of --offload; and of an option that knows two words, of which no text means the first. */
int parse_choice(const struct command *command, const char *name, const char *text,
                 const char *first, const char *second, bool *is_second);
int parse_offload(const struct command *command, const char *text,
                  const struct placement_words *words, int64_t *places);

struct setup {
    mh_runtime *runtime;
    mh_timeline *timeline;   /* or NULL */
    mh_transport *transport; /* NULL: this process is alone */
    bool quiet;              /* another process tells what came out */
    mh_device *devices[64];
    uint64_t device_count;
    mh_device *device;   /* the first */
    mh_device_info info; /* of it; MH_DEVICE_IS_VIRTUAL if any is */
    char uri[1024];      /* of all, with commas between */
    mh_checkpoint *checkpoint;
    const mh_config *config;
    mh_tokenizer *tokenizer; /* NULL: the directory has none; why is in tokenizer_reason */
    char tokenizer_reason[768];
    mh_model *model;
    struct placement_words placement;
    mh_expert_load *counted; /* by the session, for a file; or NULL */
    const char *counted_path;
    int64_t expert_places; /* as of mh_model_params */
    uint32_t attention;    /* as of mh_session_params */
    uint32_t profile;
    mh_dtype kv;
};

/* The other processes, under mpirun; NULL: there are none. All but the first lose their stdout. */
mh_status open_transport(mh_runtime *runtime, bool joins, mh_transport **out);
/* Each name of a list with commas between, or NULL: whatever is best. Of several processes on a
 * machine each takes its own, in turn; where there are fewer, they share. */
mh_status for_each_device(const char *uris, const mh_transport *transport,
                          mh_status (*take)(void *user, const char *uri), void *user);
/* Opens everything but the session. Returns -1, or the exit status after telling why. */
int setup_open(struct setup *setup, const struct command *command,
               const struct setup_options *options);
/* Returns `code`, unless the timeline could not be written. */
int setup_close(struct setup *setup, int code);
/* Launches of an op that fell back to the host, on all devices. */
uint64_t setup_fallbacks(const struct setup *setup, mh_op_id op);
/* A session with room for `context` tokens, at most the model's limit. */
mh_status setup_session(struct setup *setup, const struct setup_options *options, int64_t context,
                        struct progress *progress, mh_session **out);

/* "0 17 4" as ids; owned by the caller. Returns -1, or the exit status after telling why. */
int parse_ids(const struct command *command, const char *text, int32_t **ids, uint64_t *count);

#endif
