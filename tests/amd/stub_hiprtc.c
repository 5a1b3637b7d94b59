/*
 * stub_hiprtc.c: a hipRTC whose compiler is clang 19, for the GPU that there is, which is virtual:
 * gfx942. From the environment: STUB_LOG, a file that gets the name of each source compiled;
 * STUB_OPTIONS, more of clang's, in the end; STUB_TARGET, six letters that replace "gfx942" in
 * what the metadata say.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))

struct program {
    char folder[64], name[64];
    char *code, log[4096];
    size_t size;
};

static void write_file(const char *folder, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    if (file && fputs(text, file) >= 0)
        fclose(file);
}

static size_t read_file(const char *folder, const char *name, char *to, size_t most)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "r");
    size_t size = file ? fread(to, 1, most, file) : 0;
    if (file)
        fclose(file);
    return size;
}

API int hiprtcVersion(int *major, int *minor)
{
    *major = 9;
    *minor = 0;
    return 0;
}

API const char *hiprtcGetErrorString(int error)
{
    return error == 6 ? "HIPRTC_ERROR_COMPILATION" : "HIPRTC_ERROR";
}

API int hiprtcCreateProgram(struct program **out, const char *source, const char *name, int count,
                            const char *const *headers, const char *const *names)
{
    struct program *p = calloc(1, sizeof(*p));
    if (!p)
        return 1;
    snprintf(p->folder, sizeof(p->folder), "/tmp/moehal-stub-XXXXXX");
    if (!mkdtemp(p->folder)) {
        free(p);
        return 1;
    }
    snprintf(p->name, sizeof(p->name), "%s", name);
    write_file(p->folder, name, source);
    for (int i = 0; i < count; i++)
        write_file(p->folder, names[i], headers[i]);
    *out = p;
    return 0;
}

API int hiprtcDestroyProgram(struct program **program)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -r %s", (*program)->folder);
    if (system(command))
        fprintf(stderr, "%s stays\n", (*program)->folder);
    free((*program)->code);
    free(*program);
    *program = NULL;
    return 0;
}

API int hiprtcCompileProgram(struct program *p, int count, const char *const *options)
{
    char command[2048];
    const char *more = getenv("STUB_OPTIONS"), *target = getenv("STUB_TARGET");
    int length = snprintf(command, sizeof(command),
                          "cd %s; [ -z \"$STUB_LOG\" ] || echo %s >>\"$STUB_LOG\"; clang-19 -x hip "
                          "--offload-arch=gfx942 --cuda-device-only --no-gpu-bundle-output "
                          "-nogpulib -nogpuinc %s -o out",
                          p->folder, p->name, p->name);
    for (int i = 0; i < count; i++)
        length += snprintf(command + length, sizeof(command) - (size_t)length, " %s", options[i]);
    snprintf(command + length, sizeof(command) - (size_t)length, " %s >log 2>&1", more ? more : "");
    int status = system(command);
    read_file(p->folder, "log", p->log, sizeof(p->log) - 1);
    if (status)
        return 6;
    enum { MOST = 8 << 20 };
    p->code = malloc(MOST);
    p->size = p->code ? read_file(p->folder, "out", p->code, MOST) : 0;
    for (char *at = p->code; target && at; at = at ? at + 1 : NULL)
        if ((at = memmem(at, p->size - (size_t)(at - p->code), "amdhsa--gfx942", 14)))
            memcpy(at + 8, target, 6);
    return p->size ? 0 : 1;
}

API int hiprtcGetProgramLogSize(struct program *p, size_t *size)
{
    *size = strlen(p->log) + 1;
    return 0;
}

API int hiprtcGetProgramLog(struct program *p, char *log)
{
    strcpy(log, p->log);
    return 0;
}

API int hiprtcGetCodeSize(struct program *p, size_t *size)
{
    *size = p->size;
    return 0;
}

API int hiprtcGetCode(struct program *p, char *code)
{
    memcpy(code, p->code, p->size);
    return 0;
}
