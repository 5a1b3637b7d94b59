#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tool.h"

int report_failure(mh_status status)
{
    if (status == MH_CANCELLED)
        fprintf(stderr, "moehal: interrupted\n");
    else
        fprintf(stderr, "moehal: %s\n", mh_last_message());
    switch (status) {
    case MH_INVALID_ARGUMENT:
    case MH_NOT_FOUND:
    case MH_BAD_DATA:
    case MH_ABI_MISMATCH:
        return EXIT_USAGE;
    default:
        return EXIT_FAILED;
    }
}

int report_bad_input(mh_status status)
{
    int code = report_failure(status);
    return status == MH_OUT_OF_MEMORY || status == MH_CANCELLED ? code : EXIT_USAGE;
}

double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The kernel knows when the process began, to a clock tick: an upper bound, off by 10 ms at most.
 */
double seconds_since_process_start(void)
{
    char line[1024] = "";
    unsigned long long ticks = 0;
    struct timespec t;
    FILE *file = fopen("/proc/self/stat", "r");
    if (!file)
        return 0;
    size_t length = fread(line, 1, sizeof(line) - 1, file);
    fclose(file);
    line[length] = 0;
    /* The name in parentheses may hold anything; field 22 is the 20th after it. */
    const char *at = strrchr(line, ')');
    for (int field = 0; at && field < 20; field++)
        at = strchr(at + 1, ' ');
    if (!at || sscanf(at, " %llu", &ticks) != 1)
        return 0;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec -
           (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

/* ---- progress ---- */

int show_progress(void *user, uint64_t done, uint64_t total)
{
    struct progress *p = user;
    double now = now_seconds();
    if (isatty(STDERR_FILENO) && now >= p->next) {
        if (!p->next) { /* short work shows nothing */
            p->next = now + 0.3;
            return interrupted();
        }
        double unit = p->bytes ? 1e-6 : 1;
        fprintf(stderr, "\r%s %3.0f %% (%.0f of %.0f%s)\033[K", p->what,
                100.0 * (double)done / (double)(total ? total : 1), (double)done * unit,
                (double)total * unit, p->bytes ? " MB" : "");
        p->shown = true;
        p->next = now + 0.1;
    }
    return interrupted();
}

void end_progress(struct progress *p)
{
    if (p->shown)
        fprintf(stderr, "\r\033[K");
    p->shown = false;
    p->next = 0;
}

/* ---- Ctrl-C ---- */

static volatile sig_atomic_t was_interrupted;
static mh_session *volatile to_cancel;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    was_interrupted = 1;
    mh_session_cancel(to_cancel, 1);
}

void catch_interrupt(void)
{
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = SA_RESETHAND};
    sigaction(SIGINT, &action, NULL);
}

bool interrupted(void)
{
    return was_interrupted;
}

void interrupt_cancels(mh_session *session)
{
    to_cancel = session;
}

void clear_interrupt(void)
{
    was_interrupted = 0;
    mh_session_cancel(to_cancel, 0);
    catch_interrupt();
}
