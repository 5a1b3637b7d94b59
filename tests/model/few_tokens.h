/* few_tokens.h: a run of a model as short as can be, for tests that make it fail in every place. */
#ifndef FEW_TOKENS_H
#define FEW_TOKENS_H

#include <moehal-model/session.h>

enum { TOKENS = 2 };

/* A prompt and two tokens. */
static inline mh_status write_some(mh_model *model, int32_t tokens[TOKENS])
{
    static const int32_t prompt[] = {0, 5, 9, 17, 3};
    mh_session_params p = MH_INIT(mh_session_params);
    mh_session *session = NULL;
    p.context = 16;
    mh_status status = mh_session_create(model, &p, &session);
    if (!status)
        status = mh_session_run(session, prompt, 5, NULL);
    for (int i = 0; !status && i < TOKENS; i++) {
        status = mh_session_next(session, &tokens[i]);
        if (!status)
            status = mh_session_run(session, &tokens[i], 1, NULL);
    }
    mh_session_release(session);
    return status;
}

#endif
