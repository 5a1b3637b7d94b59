#include <moehal/error.h>

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "hal.h"

static _Thread_local mh_error last;

const char *mh_status_text(mh_status status)
{
    switch (status) {
#define MH_STATUS(value, NAME, text)                                                               \
    case value:                                                                                    \
        return text;
#include <moehal/status.def>
#undef MH_STATUS
    default:
        return "unknown status";
    }
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* A message may quote a file's bytes: keep a terminal and a log line safe from them. */
static void make_printable(char *text)
{
    for (unsigned char *c = (unsigned char *)text; *c; c++)
        if (*c < 0x20 || *c == 0x7f)
            *c = '?';
}

mh_status mh_fail_at(const char *file, uint32_t line, mh_status status, const char *format, ...)
{
    char message[sizeof(last.message)]; /* an argument may be the old message itself */
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    make_printable(message);
    memset(&last, 0, sizeof(last));
    last.struct_size = sizeof(last);
    last.status = status;
    last.line = line;
    snprintf(last.file, sizeof(last.file), "%s", base_name(file));
    memcpy(last.message, message, sizeof(message));
    return status;
}

mh_status mh_last_error(mh_error *out)
{
    if (!last.struct_size)
        return MH_NOT_FOUND;
    return mh_struct_out(out, &last, sizeof(last));
}

const char *mh_last_message(void)
{
    return last.message;
}
