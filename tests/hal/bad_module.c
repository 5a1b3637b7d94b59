/* Modules that must be refused, one way each (WAY is set by the build). */
#include <moehal/backend.h>

#if WAY == 1 /* another ABI */
static const mh_backend_table table = {
    .struct_size = sizeof(table), .abi = MH_ABI + 7, .name = "future"};
MH_DEFINE_BACKEND(table)
#elif WAY == 2 /* a mandatory function is missing */
static const mh_backend_table table = {
    .struct_size = sizeof(table), .abi = MH_ABI, .name = "partial"};
MH_DEFINE_BACKEND(table)
#elif WAY == 3 /* not a backend at all */
MH_API int something_else(void);
int something_else(void)
{
    return 0;
}
#endif
