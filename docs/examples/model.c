/* model.c: tokens of a model, greedily. Usage: model DIR */
#include <stdio.h>

#include <moehal-model/session.h>

static int progress(void *user, uint64_t done, uint64_t total)
{
    (void)user, (void)done, (void)total;
    return 0; /* anything else ends the work with MH_CANCELLED */
}

int main(int argc, char **argv)
{
    const int32_t prompt[] = {0, 17, 4};
    int32_t token = 0;
    mh_runtime *runtime = NULL;
    mh_device *device = NULL;
    mh_checkpoint *checkpoint = NULL;
    mh_model *model = NULL;
    mh_session *session = NULL;
    mh_model_params loading = MH_INIT(mh_model_params);
    mh_session_params params = MH_INIT(mh_session_params);
    loading.progress = progress;
    params.context = 64;
    params.kv_dtype = MH_BF16; /* half the cache; f32 by default */

    int ok = argc == 2 && !mh_runtime_create(NULL, &runtime) &&
             !mh_device_open(runtime, NULL, NULL, &device) &&
             !mh_checkpoint_open(argv[1], &checkpoint) &&
             !mh_model_load(checkpoint, &device, 1, &loading, &model) &&
             !mh_session_create(model, &params, &session) &&
             !mh_session_run(session, prompt, 3, NULL);
    for (int i = 0; ok && i < 8; i++) {
        ok = !mh_session_next(session, &token) && !mh_session_run(session, &token, 1, NULL);
        printf("%d ", token);
    }
    ok = ok && mh_session_position(session) == 3 + 8;

    /* Back to the prompt: what came after it never was. */
    int32_t again = -1;
    ok = ok && !mh_session_rewind(session, 2) && !mh_session_run(session, prompt + 2, 1, NULL) &&
         !mh_session_next(session, &again);
    printf("\nand again it begins with %d\n", again);
    if (!ok)
        fprintf(stderr, "%s\n", mh_last_message());

    mh_session_release(session);
    mh_model_release(model);
    mh_checkpoint_release(checkpoint);
    mh_device_release(device);
    mh_runtime_release(runtime);
    return !ok;
}
