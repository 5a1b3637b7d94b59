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

static mh_status record(const char *file, uint32_t line, mh_status status,
                        const struct hal_vendor *vendor, const char *format, va_list args)
{
    char message[sizeof(last.message)]; /* an argument may be the old message itself */
    vsnprintf(message, sizeof(message), format, args);
    make_printable(message);
    memset(&last, 0, sizeof(last));
    last.struct_size = sizeof(last);
    last.status = status;
    last.line = line;
    snprintf(last.file, sizeof(last.file), "%s", base_name(file));
    memcpy(last.message, message, sizeof(message));
    if (vendor) {
        last.vendor_code = vendor->code;
        snprintf(last.vendor_call, sizeof(last.vendor_call), "%s",
                 vendor->call ? vendor->call : "");
        snprintf(last.vendor_name, sizeof(last.vendor_name), "%s",
                 vendor->name ? vendor->name : "");
    }
    return status;
}

mh_status mh_fail_at(const char *file, uint32_t line, mh_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    record(file, line, status, NULL, format, args);
    va_end(args);
    return status;
}

mh_status hal_fail_at(mh_runtime *runtime, const char *file, uint32_t line, mh_status status,
                      const struct hal_vendor *vendor, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    record(file, line, status, vendor, format, args);
    va_end(args);
    if (runtime && runtime->params.error && !runtime->loading) {
        mh_error copy = last;
        runtime->params.error(runtime->params.error_user, &copy);
    }
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
