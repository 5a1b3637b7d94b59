/*
 * How long mh_tokenizer_load takes: ms, the best and the median of 15 loads. argv: DIR, which holds
 * a tokenizer.json.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <moehal-model/tokenizer.h>
#include <moehal/error.h>

enum { ROUNDS = 15 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static int by_size(const void *a, const void *b)
{
    return *(const double *)a < *(const double *)b ? -1 : 1;
}

int main(int argc, char **argv)
{
    double ms[ROUNDS];
    if (argc != 2) {
        fprintf(stderr, "usage: %s DIR\n", argv[0]);
        return 2;
    }
    for (int r = 0; r < ROUNDS; r++) {
        mh_tokenizer *tokenizer = NULL;
        double begin = now();
        if (mh_tokenizer_load(argv[1], &tokenizer)) {
            fprintf(stderr, "%s\n", mh_last_message());
            return 1;
        }
        ms[r] = now() - begin;
        mh_tokenizer_release(tokenizer);
    }
    qsort(ms, ROUNDS, sizeof(ms[0]), by_size);
    printf("mh_tokenizer_load of %s: %.0f ms, median %.0f ms\n", argv[1], ms[0], ms[ROUNDS / 2]);
    return 0;
}
