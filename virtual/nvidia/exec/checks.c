/* The names of checks. */
#include <string.h>

#include "../machine.h"

bool vn_checks_parse(const char *list, unsigned *checks)
{
    static const struct {
        const char *word;
        unsigned bits;
    } words[] = {
        {"none", 0},
        {"default", VN_CHECK_DEFAULT},
        {"all", VN_CHECK_ALL},
        {"bounds", VN_CHECK_BOUNDS},
        {"uninitialised", VN_CHECK_UNINITIALISED},
        {"shared-races", VN_CHECK_SHARED_RACES},
        {"global-races", VN_CHECK_GLOBAL_RACES},
        {"async-copy", VN_CHECK_ASYNC_COPY},
        {"barriers", VN_CHECK_BARRIERS},
        {"local", VN_CHECK_LOCAL},
        {"cas-loads", VN_CHECK_CAS_LOADS},
    };
    unsigned result = 0;
    for (const char *at = list; *at;) {
        size_t n = strcspn(at, ","), i = 0, count = sizeof words / sizeof words[0];
        while (i < count && (strlen(words[i].word) != n || memcmp(words[i].word, at, n)))
            i++;
        if (i == count)
            return false;
        result |= words[i].bits;
        at += n + (at[n] == ',');
    }
    *checks = result;
    return true;
}
