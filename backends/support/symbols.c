/* symbols.c: see symbols.h. */
#include "symbols.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Appends to `text`, as much as fits. */
__attribute__((format(printf, 3, 4))) static void append(char *text, size_t size,
                                                         const char *format, ...)
{
    size_t used = strlen(text);
    va_list args;
    va_start(args, format);
    vsnprintf(text + used, size - used, format, args);
    va_end(args);
}

/* The loader's words, which begin with the library's name wherever it is at fault. */
static void append_loader_error(char *reason, size_t size, const char *library)
{
    const char *words = dlerror();
    if (!words)
        words = "cannot be opened";
    bool named = !strncmp(words, library, strlen(library));
    append(reason, size, "%s%s%s%s", *reason ? "; " : "", named ? "" : library, named ? "" : ": ",
           words);
}

static bool find_all(void *library, const char *name, const struct symbol *symbols, size_t count,
                     void *functions, char *reason, size_t reason_size)
{
    size_t missing = 0;
    for (size_t i = 0; i < count; i++) {
        void *found = dlsym(library, symbols[i].name);
        memcpy((char *)functions + symbols[i].offset, &found, sizeof(found));
        if (found || !symbols[i].required)
            continue;
        append(reason, reason_size, "%s%s%s", missing ? "" : name, missing ? ", " : " lacks ",
               symbols[i].name);
        missing++;
    }
    return !missing;
}

void *symbols_open(const char *const *libraries, const struct symbol *symbols, size_t count,
                   void *functions, char *reason, size_t reason_size)
{
    reason[0] = 0;
    for (; *libraries; libraries++) {
        void *library = dlopen(*libraries, RTLD_NOW | RTLD_LOCAL);
        if (!library) {
            append_loader_error(reason, reason_size, *libraries);
            continue;
        }
        reason[0] = 0;
        if (find_all(library, *libraries, symbols, count, functions, reason, reason_size))
            return library;
        dlclose(library);
        return NULL;
    }
    return NULL;
}

void symbols_close(void *library)
{
    if (library)
        dlclose(library);
}

const char *symbols_path(const void *function)
{
    Dl_info info;
    return dladdr(function, &info) && info.dli_fname ? info.dli_fname : "";
}
