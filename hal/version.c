#include <moehal/base.h>

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

const char *mh_version(void)
{
    return TEXT(MH_VERSION_MAJOR) "." TEXT(MH_VERSION_MINOR) "." TEXT(MH_VERSION_PATCH);
}

uint32_t mh_abi(void)
{
    return MH_ABI;
}
