/* sequences.c: several answers to one prompt, side by side; saved, restored. Usage: sequences DIR
 */
#include <stdio.h>
#include <unistd.h>

#include <moehal-model/session.h>

enum { ANSWERS = 3, WORDS = 8 };

/* One token more for every sequence: one launch for all of them. */
static mh_status step(mh_session *session, int32_t written[ANSWERS][WORDS], int word)
{
    mh_sequence_rows rows[ANSWERS];
    for (uint32_t i = 0; i < ANSWERS; i++) {
        mh_status status = mh_sequence_next(session, i, &written[i][word]);
        if (status)
            return status;
        rows[i] = MH_INIT(mh_sequence_rows);
        rows[i].sequence = i;
        rows[i].ids = &written[i][word], rows[i].count = 1;
    }
    return mh_session_step(session, rows, ANSWERS);
}

/* The prompt is read once; each answer begins as a fork of it, with a seed of its own. */
static mh_status answer(mh_session *session, int32_t written[ANSWERS][WORDS])
{
    static const int32_t prompt[] = {0, 17, 4, 99, 7};
    mh_sampling sampling = {.temperature = 0.8f, .top_p = 65536};
    mh_status status = mh_session_run(session, prompt, 4, NULL); /* sequence 0 */
    for (uint32_t i = 1, made; !status && i < ANSWERS; i++)
        status = mh_sequence_fork(session, 0, 4, &made); /* copies nothing; gives 1, 2 */
    mh_sequence_rows rows[ANSWERS];
    for (uint32_t i = 0; !status && i < ANSWERS; i++) {
        sampling.seed = i;
        status = mh_sequence_set_sampling(session, i, &sampling);
        rows[i] = MH_INIT(mh_sequence_rows);
        rows[i].sequence = i;
        rows[i].ids = prompt + 4, rows[i].count = 1;
    }
    if (!status)
        status = mh_session_step(session, rows, ANSWERS);
    for (int word = 0; !status && word < WORDS; word++)
        status = step(session, written, word);
    return status;
}

int main(int argc, char **argv)
{
    static const char saved[] = "sequences.saved";
    int32_t written[ANSWERS][WORDS], next = 0, again = -1;
    uint32_t fourth = 0;
    mh_runtime *runtime = NULL;
    mh_device *device = NULL;
    mh_checkpoint *checkpoint = NULL;
    mh_model *model = NULL;
    mh_session *session = NULL;
    mh_session_params params = MH_INIT(mh_session_params);
    params.sequences = ANSWERS + 1; /* most at a time */
    params.context = 128;           /* of each */
    params.cache_tokens = 256;      /* of all together: less than all might want */

    int ok = argc == 2 && !mh_runtime_create(NULL, &runtime) &&
             !mh_device_open(runtime, NULL, NULL, &device) &&
             !mh_checkpoint_open(argv[1], &checkpoint) &&
             !mh_model_load(checkpoint, &device, 1, NULL, &model) &&
             !mh_session_create(model, &params, &session) && !answer(session, written);
    for (int i = 0; ok && i < ANSWERS; i++)
        for (int word = 0; word < WORDS; word++)
            printf("%d%c", written[i][word], word + 1 < WORDS ? ' ' : '\n');

    /* Bit for bit what it was, here or in another process with the same model. */
    ok = ok && !mh_sequence_save(session, 2, saved) && !mh_sequence_add(session, &fourth) &&
         !mh_sequence_restore(session, fourth, saved) && !mh_sequence_next(session, 2, &next) &&
         !mh_sequence_next(session, fourth, &again) && next == again;
    unlink(saved);

    /* What was asked to stop leaves no trace, and the next call runs. */
    mh_session_cancel(session, 1); /* from any thread, or a signal handler */
    ok = ok && mh_session_run(session, &next, 1, NULL) == MH_CANCELLED &&
         !mh_session_run(session, &next, 1, NULL);

    /* A sequence that leaves gives back the pages that no other one holds. */
    mh_session_info info = MH_INIT(mh_session_info);
    ok = ok && !mh_sequence_remove(session, 1) && !mh_session_get_info(session, &info);
    if (ok)
        printf("%u of %u sequences, %lld of %lld pages free\n", info.sequences_used, info.sequences,
               (long long)info.pages_free, (long long)info.pages);
    else
        fprintf(stderr, "%s\n", mh_last_message());

    mh_session_release(session);
    mh_model_release(model);
    mh_checkpoint_release(checkpoint);
    mh_device_release(device);
    mh_runtime_release(runtime);
    return !ok;
}
