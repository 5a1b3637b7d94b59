/* Broken PTX: the texts named on the command line, mutated. The parser may say no, with a line; it
 * may not crash or hang. tests/fuzz/fuzz_ptx.c looks further, where there is libFuzzer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../../virtual/nvidia/machine.h"

static uint64_t next(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    return *s ^= *s << 17;
}

/* Cuts, repeats, swaps bytes, and exchanges words between places. */
static size_t mutate(char *t, size_t n, size_t room, uint64_t *s)
{
    for (uint64_t k = 1 + next(s) % 4; k && n > 8; k--) {
        size_t at = next(s) % n, len = 1 + next(s) % 24;
        len = len > n - at ? n - at : len;
        switch (next(s) % 6) {
        case 0:
            memmove(t + at, t + at + len, n - at - len);
            n -= len;
            break;
        case 1:
            if (n + len < room) {
                memmove(t + at + len, t + at, n - at);
                n += len;
            }
            break;
        case 2:
            t[at] = (char)next(s);
            break;
        case 3:
            t[at] = "{}()[];,.:%@!-+0"[next(s) % 16];
            break;
        case 4:
            memmove(t + at, t + next(s) % (n - len + 1), len);
            break;
        default:
            n = next(s) % 16 ? n : at;
        }
    }
    return n;
}

int main(int argc, char **argv)
{
    long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 1000;
    uint64_t seed = 88172645463325252u, accepted = 0, tried = 0;
    for (int i = 2; i < argc; i++) {
        FILE *f = fopen(argv[i], "rb");
        static char text[1 << 16], copy[1 << 17];
        size_t n = f ? fread(text, 1, sizeof text, f) : 0;
        if (f)
            fclose(f);
        if (!n) {
            fprintf(stderr, "cannot read %s\n", argv[i]);
            return 2;
        }
        for (long k = 0; k < rounds; k++) {
            memcpy(copy, text, n);
            size_t m = k ? mutate(copy, n, sizeof copy, &seed) : n;
            struct vn_diagnostic d = {0};
            struct vn_module *module = vn_module_parse(copy, m, &d);
            if (!module && !d.text[0]) {
                fprintf(stderr, "refused without a reason\n");
                return 1;
            }
            if (!k && !module) {
                fprintf(stderr, "%s:%u:%u: %s\n", argv[i], d.line, d.column, d.text);
                return 1;
            }
            accepted += module != NULL;
            tried++;
            vn_module_release(module);
        }
    }
    printf("%llu texts, %llu accepted\n", (unsigned long long)tried, (unsigned long long)accepted);
    return 0;
}
