/* client.c: a program like others: Debian's headers, linked with Debian's -lamdhip64;
 * LD_LIBRARY_PATH puts it on the virtual MI300X.
 *
 *   client CODE_OBJECT    (with the kernel `add` of loader/objects.hip) */
#include <dlfcn.h>
#include <stdio.h>

#include <hip/hip_runtime_api.h>

#define CHECK(call)                                                                                \
    do {                                                                                           \
        hipError_t result_ = (call);                                                               \
        if (result_ != hipSuccess) {                                                               \
            fprintf(stderr, "%s: %s\n", #call, hipGetErrorString(result_));                        \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

int main(int argc, char **argv)
{
    float a[64] = {0}, b[64];
    float *da, *db;
    int n = 64;
    hipModule_t module;
    hipFunction_t add;
    hipDeviceProp_t properties;
    if (argc < 2 || !dlsym(RTLD_DEFAULT, "moehal_virtual_driver")) {
        fprintf(stderr, "not on the virtual runtime, or no code object named\n");
        return 1;
    }
    for (int i = 0; i < 64; i++)
        b[i] = (float)i;
    CHECK(hipGetDeviceProperties(&properties, 0));
    CHECK(hipModuleLoad(&module, argv[1]));
    CHECK(hipModuleGetFunction(&add, module, "add"));
    CHECK(hipMalloc((void **)&da, sizeof a));
    CHECK(hipMalloc((void **)&db, sizeof b));
    CHECK(hipMemcpy(da, a, sizeof a, hipMemcpyHostToDevice));
    CHECK(hipMemcpy(db, b, sizeof b, hipMemcpyHostToDevice));
    void *params[] = {&da, &db, &n};
    CHECK(hipModuleLaunchKernel(add, 1, 1, 1, 64, 1, 1, 0, NULL, params, NULL));
    CHECK(hipMemcpy(a, da, sizeof a, hipMemcpyDeviceToHost));
    for (int i = 0; i < 64; i++) {
        float want = (float)((i + 1) % 64) + (float)(1 + (i & 3)) + 5;
        if (a[i] != want) {
            fprintf(stderr, "element %d is %g, not %g\n", i, (double)a[i], (double)want);
            return 1;
        }
    }
    printf("%s: 64 sums are right\n", properties.name);
    return 0;
}
