/* icd.c: the ICD loader, opened at run time; every platform's devices. Nothing is chosen by name.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "opencl.h"
#include "symbols.h"

const char *opencl_name(cl_int code)
{
    switch (code) {
#define CL_STATUS(name, value)                                                                     \
    case value:                                                                                    \
        return #name;
#define CL_VALUE(name, value)
#include "cl_values.def"
#undef CL_STATUS
#undef CL_VALUE
    default:
        return NULL;
    }
}

mh_status opencl_status(cl_int code)
{
    switch (code) {
    case CL_MEM_OBJECT_ALLOCATION_FAILURE:
    case CL_OUT_OF_HOST_MEMORY:
    case CL_INVALID_BUFFER_SIZE:
        return MH_OUT_OF_MEMORY;
    default:
        return MH_VENDOR_ERROR;
    }
}

mh_status opencl_fail(const mh_core *core, const char *file, uint32_t line, const char *call,
                      cl_int code, const char *format, ...)
{
    char text[512];
    const char *name = opencl_name(code);
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return core->fail(core->context, file, line, opencl_status(code), call, code, name,
                      "%s: %s: %s (%d)", text, call, name ? name : "unknown error", code);
}

static const struct symbol symbols[] = {
#define SYMBOL(need, result, field, name, args) SYMBOL_ENTRY(struct cl_api, need, field, name)
#include "cl.def"
#undef SYMBOL
};

/* ---- why there is no platform ---- */

static void append(char *text, size_t size, const char *more)
{
    size_t used = strlen(text);
    snprintf(text + used, size - used, "%s", more);
}

/* What an .icd file names, and whether it opens. */
static void judge_icd(const char *folder, const char *file, char *text, size_t size)
{
    char path[512], library[300] = "", line[700];
    snprintf(path, sizeof(path), "%.250s/%.250s", folder, file);
    FILE *icd = fopen(path, "r");
    if (!icd || !fgets(library, sizeof(library), icd))
        library[0] = 0;
    if (icd)
        fclose(icd);
    library[strcspn(library, "\r\n")] = 0;
    void *opened = library[0] ? dlopen(library, RTLD_NOW | RTLD_LOCAL) : NULL;
    const char *why = opened ? "it opens, but offers no platform" : NULL;
    if (!why)
        why = library[0] ? dlerror() : "it names no library";
    snprintf(line, sizeof(line), "; %.200s: %.400s", path, why ? why : "its library does not open");
    append(text, size, line);
}

static mh_status no_platform(const mh_core *core, const char *library, cl_int code)
{
    const char *folder = core->environment(core->context, "OCL_ICD_VENDORS");
    char text[700] = "";
    if (!folder || !*folder)
        folder = "/etc/OpenCL/vendors";
    size_t length = strlen(folder);
    DIR *dir = opendir(folder);
    if (dir) {
        for (struct dirent *e = readdir(dir); e; e = readdir(dir)) {
            const char *dot = strrchr(e->d_name, '.');
            if (dot && !strcmp(dot, ".icd"))
                judge_icd(folder, e->d_name, text, sizeof(text));
        }
        closedir(dir);
    } else if (length > 4 && !strcmp(folder + length - 4, ".icd")) {
        const char *slash = strrchr(folder, '/');
        char parent[256];
        snprintf(parent, sizeof(parent), "%.*s", slash ? (int)(slash - folder) : 1,
                 slash ? folder : ".");
        judge_icd(parent, slash ? slash + 1 : folder, text, sizeof(text));
    }
    return core->fail(core->context, __FILE__, __LINE__, MH_NOT_FOUND, "clGetPlatformIDs", code,
                      opencl_name(code),
                      "%s knows no platform (clGetPlatformIDs: %s): %.200s holds %s.icd file%s%s",
                      library, opencl_name(code), folder, text[0] ? "" : "no ", text[0] ? "s" : "",
                      text);
}

/* ---- devices ---- */

static void text_of(const struct cl_api *cl, cl_device_id id, cl_uint what, char *out, size_t size)
{
    char text[4096];
    size_t length = 0;
    memset(out, 0, size);
    if (cl->GetDeviceInfo(id, what, sizeof(text) - 1, text, &length) || length >= sizeof(text))
        return;
    text[length] = 0;
    const char *from = text;
    while (*from == ' ')
        from++;
    snprintf(out, size, "%s", from);
    for (size_t end = strlen(out); end && out[end - 1] == ' ';)
        out[--end] = 0;
}

bool opencl_has_extension(const struct cl_api *cl, cl_device_id id, const char *name)
{
    char list[4096];
    text_of(cl, id, CL_DEVICE_EXTENSIONS, list, sizeof(list));
    size_t length = strlen(name);
    for (const char *at = strstr(list, name); at; at = strstr(at + length, name))
        if ((at == list || at[-1] == ' ') && (at[length] == ' ' || !at[length]))
            return true;
    return false;
}

/* "portable-computing-language" */
static void slug(const char *name, char *out, size_t size)
{
    size_t used = 0;
    for (; *name && used + 1 < size; name++) {
        char c = *name;
        if (c >= 'A' && c <= 'Z')
            c = (char)(c - 'A' + 'a');
        bool word = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (word)
            out[used++] = c;
        else if (used && out[used - 1] != '-')
            out[used++] = '-';
    }
    while (used && out[used - 1] == '-')
        used--;
    out[used] = 0;
}

static bool id_is_taken(const struct instance *in, const char *id)
{
    for (uint32_t i = 0; i < in->count; i++)
        if (!strcmp(in->entries[i].info.id, id))
            return true;
    return false;
}

/* UUID, else PCI bus id, else the platform and the device's place in it. Two drivers of one GPU
 * give the same: the later one gets its platform's name too. */
static void find_id(const struct instance *in, struct entry *e, const char *platform,
                    uint32_t place)
{
    unsigned char uuid[16];
    cl_uint pci[4]; /* domain, bus, device, function */
    char name[40], *id = e->info.id;
    slug(platform, name, sizeof(name));
    snprintf(id, sizeof(e->info.id), "%s-%u", name, place);
    if (opencl_has_extension(&in->cl, e->id, "cl_khr_device_uuid") &&
        !in->cl.GetDeviceInfo(e->id, CL_DEVICE_UUID_KHR, sizeof(uuid), uuid, NULL))
        for (int i = 0, at = 0; i < 16; i++)
            at += snprintf(id + at, sizeof(e->info.id) - (size_t)at, "%s%02x",
                           i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
    else if (opencl_has_extension(&in->cl, e->id, "cl_khr_pci_bus_info") &&
             !in->cl.GetDeviceInfo(e->id, CL_DEVICE_PCI_BUS_INFO_KHR, sizeof(pci), pci, NULL))
        snprintf(id, sizeof(e->info.id), "%04x:%02x:%02x.%x", pci[0] & 0xFFFF, pci[1] & 0xFF,
                 pci[2] & 0xFF, pci[3] & 0xF);
    if (id_is_taken(in, id))
        snprintf(id, sizeof(e->info.id), "%s-%u", name, place);
    for (uint32_t n = 2; id_is_taken(in, id); n++)
        snprintf(id, sizeof(e->info.id), "%s-%u.%u", name, place, n);
}

static void refuse(struct entry *e, const char *reason)
{
    e->info.status = MH_UNSUPPORTED;
    snprintf(e->info.reason, sizeof(e->info.reason), "%s", reason);
}

/* What any backend of these kernels must have; what arithmetic does, the probe finds out at open.
 */
static void judge_device(const struct instance *in, struct entry *e)
{
    cl_bool available = CL_FALSE, compiler = CL_FALSE, little = CL_FALSE;
    char version[256];
    int major = 0, minor = 0;
    in->cl.GetDeviceInfo(e->id, CL_DEVICE_AVAILABLE, sizeof(available), &available, NULL);
    in->cl.GetDeviceInfo(e->id, CL_DEVICE_COMPILER_AVAILABLE, sizeof(compiler), &compiler, NULL);
    in->cl.GetDeviceInfo(e->id, CL_DEVICE_ENDIAN_LITTLE, sizeof(little), &little, NULL);
    text_of(&in->cl, e->id, CL_DEVICE_VERSION, version, sizeof(version));
    if (!available)
        refuse(e, "the driver says that the device is not available");
    else if (!compiler)
        refuse(e, "the driver has no compiler for OpenCL C");
    else if (!little)
        refuse(e, "the device is big-endian");
    else if (sscanf(version, "OpenCL %d.%d", &major, &minor) != 2 || major * 10 + minor < 12)
        snprintf(e->info.reason, sizeof(e->info.reason),
                 "needs OpenCL 1.2, the device has '%.100s'", version),
            e->info.status = MH_UNSUPPORTED;
}

/* Names carry the driver's part of the platform's version, "PoCL 3.1", so that opencl:pocl finds
 * it.
 */
static void driver_words(const char *version, char *out, size_t size)
{
    int skip = 0, words = 0;
    out[0] = 0;
    if (sscanf(version, "OpenCL %*d.%*d %n", &skip) < 0 || !skip)
        return;
    snprintf(out, size, "%s", version + skip + (version[skip] == '('));
    for (char *c = out; *c; c++)
        if (*c == ',' || *c == ')' || (*c == ' ' && ++words == 2)) {
            *c = 0;
            break;
        }
}

static void describe(const struct instance *in, struct entry *e, const char *platform_version)
{
    cl_bitfield type = 0;
    cl_ulong bytes = 0;
    char name[128], words[40];
    in->cl.GetDeviceInfo(e->id, CL_DEVICE_TYPE, sizeof(type), &type, NULL);
    in->cl.GetDeviceInfo(e->id, CL_DEVICE_GLOBAL_MEM_SIZE, sizeof(bytes), &bytes, NULL);
    in->cl.GetDeviceInfo(e->id, CL_DEVICE_MAX_COMPUTE_UNITS, sizeof(cl_uint),
                         &e->info.compute_units, NULL);
    e->info.kind = type & CL_DEVICE_TYPE_GPU   ? MH_DEVICE_GPU
                   : type & CL_DEVICE_TYPE_CPU ? MH_DEVICE_CPU
                                               : MH_DEVICE_ACCELERATOR;
    e->info.memory_bytes = bytes;
    text_of(&in->cl, e->id, CL_DEVICE_NAME, name, sizeof(name));
    driver_words(platform_version, words, sizeof(words));
    snprintf(e->info.name, sizeof(e->info.name), "%.80s%s%s%s", name, words[0] ? " (" : "", words,
             words[0] ? ")" : "");
    text_of(&in->cl, e->id, CL_DRIVER_VERSION, e->info.driver, sizeof(e->info.driver));
    judge_device(in, e);
}

static struct entry *grow(struct instance *in, uint32_t more)
{
    const mh_core *core = in->core;
    struct entry *grown = core->allocate(core->context, (in->count + more) * sizeof(*grown));
    if (!grown)
        return NULL;
    if (in->count)
        memcpy(grown, in->entries, in->count * sizeof(*grown));
    core->deallocate(core->context, in->entries);
    in->entries = grown;
    return grown + in->count;
}

static mh_status add_platform(struct instance *in, cl_platform_id platform)
{
    char name[128] = "", version[256] = "";
    cl_device_id ids[64];
    cl_uint count = 0;
    in->cl.GetPlatformInfo(platform, CL_PLATFORM_NAME, sizeof(name) - 1, name, NULL);
    in->cl.GetPlatformInfo(platform, CL_PLATFORM_VERSION, sizeof(version) - 1, version, NULL);
    cl_int code = in->cl.GetDeviceIDs(platform, CL_DEVICE_TYPE_EVERY, 64, ids, &count);
    if (code)
        count = 0;
    if (count > 64)
        count = 64;
    struct entry *entries = grow(in, count ? count : 1);
    if (!entries)
        return MH_OUT_OF_MEMORY;
    for (cl_uint i = 0; i < (count ? count : 1); i++) {
        struct entry *e = &entries[i];
        memset(e, 0, sizeof(*e));
        e->info.struct_size = sizeof(e->info);
        e->platform = platform;
        e->id = count ? ids[i] : NULL;
        if (count) {
            find_id(in, e, name, i);
            describe(in, e, version);
        } else { /* listed all the same, with the reason */
            char id[40];
            slug(name, id, sizeof(id));
            snprintf(e->info.id, sizeof(e->info.id), "%s", id);
            snprintf(e->info.name, sizeof(e->info.name), "%s", name);
            e->info.kind = MH_DEVICE_NONE;
            e->info.status = MH_NOT_FOUND;
            snprintf(e->info.reason, sizeof(e->info.reason),
                     "its driver offers no device (clGetDeviceIDs: %s)",
                     code && opencl_name(code) ? opencl_name(code) : "none");
        }
        in->count++;
    }
    return MH_OK;
}

/* Usable devices first, so that opencl:0 is one if there is any; else in the drivers' order. */
static void usable_first(struct instance *in)
{
    uint32_t usable = 0;
    for (uint32_t i = 0; i < in->count; i++)
        if (in->entries[i].id) {
            struct entry e = in->entries[i];
            memmove(in->entries + usable + 1, in->entries + usable,
                    (i - usable) * sizeof(struct entry));
            in->entries[usable++] = e;
        }
}

mh_status opencl_init(const mh_core *core, void **out)
{
    const char *named = core->environment(core->context, "MOEHAL_OPENCL");
    const char *const libraries[] = {named && *named ? named : "libOpenCL.so.1", NULL};
    cl_platform_id platforms[32];
    cl_uint count = 0;
    char reason[512];
    struct instance *in = core->allocate(core->context, sizeof(*in));
    if (!in)
        return MH_OUT_OF_MEMORY;
    in->core = core;
    in->entries = NULL, in->count = 0;
    mh_status status = MH_OK;
    /* Never closed: drivers behind the loader leave threads and exit handlers in the process. */
    if (!symbols_open(libraries, symbols, sizeof(symbols) / sizeof(symbols[0]), &in->cl, reason,
                      sizeof(reason)))
        status = FAIL(core, MH_NOT_FOUND, "%s", reason);
    cl_int code = status ? 0 : in->cl.GetPlatformIDs(32, platforms, &count);
    if (!status && (code || !count))
        status = no_platform(core, libraries[0], code);
    for (cl_uint i = 0; !status && i < count && i < 32; i++)
        status = add_platform(in, platforms[i]);
    if (status) {
        opencl_fini(in);
        return status;
    }
    usable_first(in);
    *out = in;
    return MH_OK;
}

void opencl_fini(void *user)
{
    struct instance *in = user;
    in->core->deallocate(in->core->context, in->entries);
    in->core->deallocate(in->core->context, in);
}

mh_status opencl_device_info(void *user, uint32_t index, mh_device_info *out)
{
    struct instance *in = user;
    if (index >= in->count)
        return MH_NOT_FOUND;
    *out = in->entries[index].info;
    return MH_OK;
}
