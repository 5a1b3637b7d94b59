#include <signal.h>
#include <string.h>

#include "tool.h"

static const struct command *const commands[] = {
    &command_bench, &command_check, &command_devices, &command_diff,  &command_generate,
    &command_chat,  &command_eval,  &command_inspect, &command_synth, &command_trace,
};

static void print_help(FILE *to)
{
    fprintf(to, "usage: moehal COMMAND ...\n\ncommands:\n");
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        fprintf(to, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    fprintf(to,
            "\n'moehal COMMAND --help' tells more. Exit status: 0 done; 1 the work failed; 2 bad "
            "usage or input.\n");
}

/* What a command printed may still lie in the buffer; a full disk is found out only now. */
static int finish(int code)
{
    if (!fflush(stdout) && !ferror(stdout))
        return code;
    fprintf(stderr, "moehal: stdout: could not be written\n");
    return EXIT_FAILED;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_DFL);
    if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help"))) {
        print_help(stdout);
        return finish(EXIT_DONE);
    }
    if (argc > 1 && !strcmp(argv[1], "--version")) {
        printf("moehal %s (MH_ABI %u)\n", mh_version(), mh_abi());
        return finish(EXIT_DONE);
    }
    for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(commands[0]); i++)
        if (!strcmp(argv[1], commands[i]->name))
            return finish(commands[i]->run(argc - 2, argv + 2));
    if (argc > 1)
        fprintf(stderr, "moehal: unknown command '%s'\n", argv[1]);
    print_help(stderr);
    return EXIT_USAGE;
}
