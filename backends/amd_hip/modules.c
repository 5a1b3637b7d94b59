/* modules.c: the code objects of kernels/ and their kernels. */
#include <stdio.h>

#include "amd.h"

#define FILE(name) extern const char amd_code_##name[]; /* embedded by the build */
#include "files.def"
#undef FILE

static const struct {
    const char *name, *code;
} files[FILE_COUNT] = {
#define FILE(name) {#name, amd_code_##name},
#include "files.def"
#undef FILE
};

/* Which formats a kernel has: bits. */
enum {
    NONE = 1 << 0,
    CACHE = 1 << MH_FORMAT_F32 | 1 << MH_FORMAT_BF16,
    ALL = 1 << MH_FORMAT_F32 | 1 << MH_FORMAT_F16 | 1 << MH_FORMAT_BF16 | 1 << MH_FORMAT_FP8,
};

static const struct {
    int file;
    const char *name;
    uint32_t formats;
} kernels[KERNEL_COUNT] = {
#define KERNEL(file, name, formats) {FILE_##file, #name, formats},
#include "kernels.def"
#undef KERNEL
};

static mh_status find(struct device *device, int kernel, uint32_t format)
{
    static const char *const suffix[FORMATS] = {"", "_f32", "_f16", "_bf16", "_fp8"};
    char name[64];
    snprintf(name, sizeof(name), "%s%s", kernels[kernel].name, suffix[format]);
    return HIP(device, ModuleGetFunction(&device->functions[kernel][format],
                                         device->modules[kernels[kernel].file], name));
}

mh_status amd_load(struct device *device)
{
    mh_status status = MH_OK;
    for (int i = 0; i < FILE_COUNT && !status; i++)
        status = HIP(device, ModuleLoadData(&device->modules[i], files[i].code));
    if (status == MH_UNSUPPORTED)
        status = FAIL(device->core, status,
                      "amd: the kernels are for gfx942 (MI300), this GPU is another");
    for (int i = 0; i < KERNEL_COUNT && !status; i++)
        for (uint32_t format = 0; format < FORMATS && !status; format++)
            if (kernels[i].formats >> format & 1)
                status = find(device, i, format);
    if (status)
        amd_unload(device);
    return status;
}

void amd_unload(struct device *device)
{
    for (int i = 0; i < FILE_COUNT; i++)
        if (device->modules[i])
            device->hip->ModuleUnload(device->modules[i]);
}
