/*
 * A prompt, the sequence saved, a token after it, by processes that MPI joins.
 *
 * argv: MODEL_DIR FILE [VICTIM|split]: each saves to FILE.PROCESS; the victim is killed while it
 * does. split: each process has a part of the cache.
 */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <moehal-model/session.h>

static int victim;

/* In place of libc's: where mh_sequence_save has written all, but its file has no name yet. */
__attribute__((visibility("default"))) int fsync(int file)
{
    if (victim)
        raise(SIGKILL);
    return (int)syscall(SYS_fsync, file);
}

static mh_status save(mh_model *model, const char *path, uint32_t attention)
{
    static const int32_t prompt[] = {0, 5, 9, 17, 3};
    mh_session_params params = MH_INIT(mh_session_params);
    mh_session *session = NULL;
    int32_t token = 0;
    params.context = 16;
    params.attention = attention;
    mh_status status = mh_session_create(model, &params, &session);
    if (!status)
        status = mh_session_run(session, prompt, 5, NULL);
    if (!status)
        status = mh_sequence_save(session, 0, path);
    if (!status)
        status = mh_session_next(session, &token);
    if (!status)
        status = mh_session_run(session, &token, 1, NULL);
    mh_session_release(session);
    return status;
}

int main(int argc, char **argv)
{
    mh_runtime *runtime = NULL;
    mh_device *device = NULL;
    mh_checkpoint *checkpoint = NULL;
    mh_model *model = NULL;
    mh_model_params params = MH_INIT(mh_model_params);
    mh_device_params serial = MH_INIT(mh_device_params);
    char path[4096];
    if (argc < 3)
        return 2;
    serial.threads = 1;
    mh_status status = mh_runtime_create(NULL, &runtime);
    if (!status)
        status = mh_transport_open(runtime, "mpi", &params.transport);
    if (!status)
        status = mh_device_open(runtime, "host", &serial, &device);
    if (!status)
        status = mh_checkpoint_open(argv[1], &checkpoint);
    if (!status)
        status = mh_model_load(checkpoint, &device, 1, &params, &model);
    if (!status) {
        uint32_t process = mh_transport_process(params.transport);
        bool split = argc > 3 && !strcmp(argv[3], "split");
        victim = argc > 3 && !split && strtoul(argv[3], NULL, 10) == process;
        snprintf(path, sizeof(path), "%s.%u", argv[2], process);
        status = save(model, path, split ? MH_ATTENTION_SPLIT : MH_ATTENTION_REPLICATED);
    }
    if (status) {
        fprintf(stderr, "%s\n", mh_last_message());
        mh_transport_abort(params.transport, 1);
    }
    mh_model_release(model);
    mh_checkpoint_release(checkpoint);
    mh_device_release(device);
    mh_transport_release(params.transport);
    mh_runtime_release(runtime);
    return status != MH_OK;
}
