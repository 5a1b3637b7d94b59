/*
 * A model over several devices, virtual GPUs among them, of which one is gone from its nth launch
 * on, for every n: the run ends with an error that names the device and says that it is lost, all
 * that was made can be released, and nothing hangs. Each run is a process of its own: such a GPU
 * does not come back. The order of two devices' launches may differ from run to run; which one is
 * lost is drawn so.
 *
 * argv: MODEL_DIR URIS STRIDE DRIVER...; a driver is the path of a virtual one, whose launches
 * count.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../model/few_tokens.h"

enum { MOST = 8, SECONDS = 10 };

struct outcome { /* shared with the process that runs */
    mh_status status;
    uint64_t launches;
    int32_t tokens[TOKENS];
    char message[512];
    char uris[MOST][64];
    bool lost[MOST]; /* as the library says it of a device */
    bool left;       /* memory of a device in use at the end */
};

static const char *model_dir, *uri_list;
static char **drivers;
static uint64_t stride;
static struct outcome *outcome;

static void must(mh_status status)
{
    if (!status)
        return;
    fprintf(stderr, "%s\n", mh_last_message());
    _exit(3);
}

static void *of_driver(const char *driver, const char *symbol)
{
    void *library = dlopen(driver, RTLD_NOW | RTLD_NOLOAD);
    void *found = library ? dlsym(library, symbol) : NULL;
    if (!found) {
        fprintf(stderr, "%s: no %s, or not loaded\n", driver, symbol);
        _exit(3);
    }
    return found;
}

static uint64_t launches_of(const char *driver)
{
    int (*ask)(int device, const char *name, uint64_t *value);
    void *symbol = of_driver(driver, "moehal_virtual_counter");
    uint64_t all = 0, value;
    memcpy(&ask, &symbol, sizeof(ask));
    for (int d = 0; !ask(d, "launches", &value); d++)
        all += value;
    return all;
}

static void lose(const char *driver, uint64_t nth)
{
    int (*faults)(const char *list);
    void *symbol = of_driver(driver, "moehal_virtual_faults");
    char fault[32];
    memcpy(&faults, &symbol, sizeof(faults));
    snprintf(fault, sizeof(fault), "lost:%llu", (unsigned long long)nth);
    if (faults(fault))
        _exit(3);
}

static uint32_t open_devices(mh_runtime *runtime, mh_device **devices)
{
    uint32_t count = 0;
    for (const char *at = uri_list; *at && count < MOST; count++) {
        char *uri = outcome->uris[count];
        mh_device_params p = MH_INIT(mh_device_params);
        size_t length = strcspn(at, ",");
        p.threads = 1;
        snprintf(uri, sizeof(outcome->uris[0]), "%.*s", (int)length, at);
        must(mh_device_open(runtime, uri, &p, &devices[count]));
        at += length + (at[length] == ',');
    }
    return count;
}

static void run(const char *driver, uint64_t nth)
{
    mh_runtime *runtime;
    mh_device *devices[MOST];
    mh_checkpoint *checkpoint;
    mh_model *model = NULL;
    must(mh_runtime_create(NULL, &runtime));
    uint32_t count = open_devices(runtime, devices);
    must(mh_checkpoint_open(model_dir, &checkpoint));
    if (nth)
        lose(driver, nth);
    outcome->status = mh_model_load(checkpoint, devices, count, NULL, &model);
    if (!outcome->status)
        outcome->status = write_some(model, outcome->tokens);
    if (outcome->status)
        snprintf(outcome->message, sizeof(outcome->message), "%s", mh_last_message());
    mh_model_release(model);
    mh_checkpoint_release(checkpoint);
    for (uint32_t i = 0; i < count; i++) {
        mh_memory_info info = MH_INIT(mh_memory_info);
        mh_error cause = MH_INIT(mh_error);
        outcome->lost[i] = !mh_device_error(devices[i], &cause);
        outcome->left |= !mh_device_memory(devices[i], &info) && info.used;
    }
    outcome->launches = launches_of(driver);
    for (uint32_t i = 0; i < count; i++)
        mh_device_release(devices[i]);
    mh_runtime_release(runtime);
}

/* In a process of its own; false: it is not over in time. */
static bool run_in_time(const char *driver, uint64_t nth)
{
    int status = 0;
    *outcome = (struct outcome){0};
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        run(driver, nth);
        _exit(0);
    }
    for (int ticks = 0; !waitpid(child, &status, WNOHANG); ticks++) {
        nanosleep(&(struct timespec){0, 5000000}, NULL);
        if (ticks < 200 * SECONDS)
            continue;
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        return false;
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        fail_msg("launch %llu: ends with 0x%x", (unsigned long long)nth, (unsigned)status);
    assert_false(outcome->left);
    return true;
}

/* A busy machine may not keep the time once. */
static void run_apart(const char *driver, uint64_t nth)
{
    if (!run_in_time(driver, nth) && !run_in_time(driver, nth))
        fail_msg("launch %llu: hangs", (unsigned long long)nth);
}

/* That which the message names is one that the library holds for lost. */
static void check_message(uint64_t nth)
{
    char text[100];
    for (int i = 0; i < MOST; i++) {
        snprintf(text, sizeof(text), "device %s is lost: ", outcome->uris[i]);
        if (outcome->lost[i] && strstr(outcome->message, text))
            return;
    }
    fail_msg("launch %llu: %s", (unsigned long long)nth, outcome->message);
}

static void lose_each(const char *driver)
{
    int32_t want[TOKENS];
    uint64_t ends = 0;
    run_apart(driver, 0);
    assert_int_equal(outcome->status, MH_OK);
    memcpy(want, outcome->tokens, sizeof(want));
    uint64_t launches = outcome->launches;
    assert_true(launches > 50);
    for (uint64_t nth = 1; nth <= launches; nth += stride) {
        run_apart(driver, nth);
        /* The last of a session may be lost after its results were read. */
        if (!outcome->status) {
            assert_memory_equal(outcome->tokens, want, sizeof(want));
            continue;
        }
        assert_int_equal(outcome->status, MH_DEVICE_LOST);
        check_message(nth);
        ends++;
    }
    print_message("%s, %s: lost at %llu of %llu launches, told %llu times\n", uri_list,
                  strrchr(driver, '/') + 1, (unsigned long long)((launches + stride - 1) / stride),
                  (unsigned long long)launches, (unsigned long long)ends);
    assert_true(ends * 10 >= (launches + stride - 1) / stride * 9);
}

static void each_launch_of_each_device(void **state)
{
    (void)state;
    for (char **driver = drivers; *driver; driver++)
        lose_each(*driver);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_launch_of_each_device)};
    if (argc < 5)
        return 2;
    model_dir = argv[1], uri_list = argv[2], stride = strtoull(argv[3], NULL, 10);
    drivers = argv + 4;
    outcome =
        mmap(NULL, sizeof(*outcome), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (outcome == MAP_FAILED)
        return 2;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
