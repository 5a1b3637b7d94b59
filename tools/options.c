#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

int usage_error(const struct command *command, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "moehal %s: ", command->name);
    vfprintf(stderr, format, args);
    fprintf(stderr, "\nTry 'moehal %s --help'.\n", command->name);
    va_end(args);
    return EXIT_USAGE;
}

static void help(const struct command *command, const struct option *options)
{
    printf("usage: moehal %s %s\n\n%s\n\noptions:\n", command->name, command->synopsis,
           command->summary);
    for (const struct option *o = options; o->name; o++) {
        char head[64];
        snprintf(head, sizeof(head), "--%s%s%s", o->name, o->argument ? " " : "",
                 o->argument ? o->argument : "");
        printf("  %-24s %s\n", head, o->help);
    }
    printf("  %-24s %s\n\nexamples:\n%s\n", "--help", "this text", command->examples);
}

static const struct option *find(const struct option *options, const char *name, size_t length)
{
    for (const struct option *o = options; o->name; o++)
        if (strlen(o->name) == length && !memcmp(o->name, name, length))
            return o;
    return NULL;
}

static int set(const struct command *command, const struct option *o, const char *value)
{
    char *end;
    if (o->given)
        *o->given = true;
    if (o->kind == OPTION_TEXT) {
        *(const char **)o->target = value;
        return -1;
    }
    errno = 0;
    long long integer = o->kind == OPTION_INTEGER ? strtoll(value, &end, 10) : 0;
    double number = o->kind == OPTION_INTEGER ? (double)integer : strtod(value, &end);
    if (end == value || *end || errno || isnan(number))
        return usage_error(command, "--%s: '%s' is not a number", o->name, value);
    if (number < o->least || number > o->most)
        return usage_error(command, "--%s: %s is out of range, must be %.15g to %.15g", o->name,
                           value, o->least, o->most);
    if (o->kind == OPTION_INTEGER)
        *(int64_t *)o->target = integer;
    else
        *(double *)o->target = number;
    return -1;
}

int parse_options(const struct command *command, const struct option *options, int argc,
                  char **argv, const char **words, int places)
{
    int used = 0;
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        if (strncmp(word, "--", 2) || !word[2]) {
            if (used == places)
                return usage_error(command, "'%s' is not expected here", word);
            words[used++] = word;
            continue;
        }
        size_t length = strcspn(word + 2, "=");
        const char *value = word[2 + length] ? word + 3 + length : NULL;
        if (length == 4 && !memcmp(word + 2, "help", 4)) {
            help(command, options);
            return EXIT_DONE;
        }
        const struct option *o = find(options, word + 2, length);
        if (!o)
            return usage_error(command, "unknown option '%.*s'", (int)length + 2, word);
        if (o->kind == OPTION_FLAG) {
            if (value)
                return usage_error(command, "--%s takes no value", o->name);
            *(bool *)o->target = true;
            if (!strcmp(o->name, "virtual"))
                setenv("MOEHAL_VIRTUAL", "1", 1); /* backends ask for it when they are loaded */
            continue;
        }
        if (!value && i + 1 == argc)
            return usage_error(command, "--%s needs a value: %s", o->name, o->argument);
        int status = set(command, o, value ? value : argv[++i]);
        if (status >= 0)
            return status;
    }
    return -1;
}

int parse_ids(const struct command *command, const char *text, int32_t **ids, uint64_t *count)
{
    *ids = malloc((strlen(text) / 2 + 1) * sizeof(**ids));
    *count = 0;
    if (!*ids)
        return usage_error(command, "no memory for the ids");
    const char *at = text;
    for (;;) {
        at += strspn(at, " ,\t\n");
        if (!*at)
            break;
        char *end;
        errno = 0;
        long id = strtol(at, &end, 10);
        if (end == at || (*end && !strchr(" ,\t\n", *end)) || errno || id < INT32_MIN ||
            id > INT32_MAX) {
            free(*ids);
            *ids = NULL;
            return usage_error(command, "--ids: '%.20s' is not a token id", at);
        }
        (*ids)[(*count)++] = (int32_t)id;
        at = end;
    }
    if (*count)
        return -1;
    free(*ids);
    *ids = NULL;
    return usage_error(command, "--ids: no token id in '%.40s'", text);
}

int parse_placement(const struct command *command, const char *text, struct placement_words *words)
{
    *words = (struct placement_words){0};
    while (text && *text) {
        size_t length = strcspn(text, ",");
        char *end = NULL;
        if (length == 6 && !strncmp(text, "strict", length)) {
            words->strict = true;
        } else if (length > 5 && length - 5 < sizeof(words->load) && !strncmp(text, "load=", 5)) {
            memcpy(words->load, text + 5, length - 5);
            words->load[length - 5] = '\0';
        } else if (!strncmp(text, "redundant=", 10)) {
            unsigned long count = strtoul(text + 10, &end, 10);
            if (end != text + length || text[10] < '0' || text[10] > '9' || count > 1 << 20)
                return usage_error(command, "--placement: '%.*s', must be a number up to 2^20",
                                   (int)length, text);
            words->redundant = (uint32_t)count;
        } else if (length != 4 || strncmp(text, "auto", length)) {
            return usage_error(command,
                               "--placement: '%.*s', must be auto, strict, load=FILE or "
                               "redundant=N",
                               (int)length, text);
        }
        text += length + (text[length] == ',');
    }
    return -1;
}
