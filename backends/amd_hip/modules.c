/* modules.c: the code objects of kernels/ and their kernels. */
#include <stdio.h>

#include "amd.h"

#define FILE(name, units) extern const char amd_code_##name[]; /* embedded by the build */
#include "files.def"
#undef FILE

static const struct {
    const char *name, *code;
    uint32_t units;
} files[FILE_COUNT] = {
#define FILE(name, units) {#name, amd_code_##name, units},
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
    const char *name;
    int file;
    uint32_t formats;
} kernels[KERNEL_COUNT] = {
#define KERNEL(file, name, formats) {#name, FILE_##file, formats},
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

const char *amd_file_name(int file)
{
    return files[file].name;
}

static bool has_units_for(const struct device *device, int file)
{
    return files[file].units <= device->units;
}

/* The code that came with the module; MH_UNSUPPORTED: it is for another GPU. */
static mh_status load_embedded(struct device *device)
{
    mh_status status = MH_OK;
    device->units = FNUZ;
    snprintf(device->target, sizeof(device->target), "gfx942");
    for (int i = 0; i < FILE_COUNT && !status; i++) {
        int result = device->hip->ModuleLoadData(&device->modules[i], files[i].code);
        status = result == hipErrorNoBinaryForGpu
                     ? MH_UNSUPPORTED /* no failure yet */
                     : amd_check(device->instance, result, "hipModuleLoadData", __FILE__, __LINE__);
    }
    return status;
}

static mh_status load_compiled(struct device *device)
{
    struct amd_compiler *compiler;
    uint64_t size = 0;
    mh_status status = amd_compiler_open(device, &compiler);
    if (status)
        return status;
    /* The smallest first: it says what the target is. */
    status = amd_compile(compiler, FILE_move, &device->images[FILE_move], &size);
    if (!status) {
        amd_compiled_target(device->images[FILE_move], size, device->target);
        device->units = amd_units_of(device->target);
    }
    for (int i = 0; i < FILE_COUNT && !status; i++) {
        if (!has_units_for(device, i))
            continue;
        if (i != FILE_move)
            status = amd_compile(compiler, i, &device->images[i], &size);
        if (!status)
            status = HIP(device, ModuleLoadData(&device->modules[i], device->images[i]));
    }
    amd_compiler_close(compiler);
    return status;
}

/* Lanes of a wave: the kernels count on 64. */
static mh_status check_wave(const struct device *device)
{
    char name[256] = "?";
    int lanes = 0;
    mh_status status =
        HIP(device, DeviceGetAttribute(&lanes, hipDeviceAttributeWarpSize, device->ordinal));
    if (status || lanes == 64)
        return status;
    device->hip->DeviceGetName(name, (int)sizeof(name), device->ordinal);
    return FAIL(device->core, MH_UNSUPPORTED,
                "amd: '%s' has waves of %d work-items (RDNA), and the kernels are for 64", name,
                lanes);
}

mh_status amd_load(struct device *device)
{
    mh_status status = check_wave(device);
    if (status)
        return status;
    status = load_embedded(device);
    if (status == MH_UNSUPPORTED) {
        amd_unload(device);
        status = load_compiled(device);
    }
    for (int i = 0; i < KERNEL_COUNT && !status; i++)
        for (uint32_t format = 0; format < FORMATS && !status; format++)
            if (kernels[i].formats >> format & 1 && has_units_for(device, kernels[i].file))
                status = find(device, i, format);
    if (status)
        amd_unload(device);
    return status;
}

void amd_unload(struct device *device)
{
    for (int i = 0; i < FILE_COUNT; i++) {
        if (device->modules[i])
            device->hip->ModuleUnload(device->modules[i]);
        device->core->deallocate(device->core->context, device->images[i]);
        device->modules[i] = NULL;
        device->images[i] = NULL;
    }
}
