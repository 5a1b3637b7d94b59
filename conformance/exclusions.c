#include "exclusions.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_BYTES (1 << 20)

/* /a/b/moehal_x.so gives /a/b/moehal_x.exclusions; "" for a backend that is linked in. */
static void default_path(mh_runtime *runtime, const char *uri, char *path, size_t size)
{
    mh_backend_info info = MH_INIT(mh_backend_info);
    size_t length = strcspn(uri, ":");
    path[0] = 0;
    for (uint32_t i = 0; !mh_runtime_backend(runtime, i, &info); i++) {
        char *dot = strrchr(info.path, '.');
        if (dot && strlen(info.name) == length && !memcmp(info.name, uri, length))
            snprintf(path, size, "%.*s.exclusions", (int)(dot - info.path), info.path);
        info = MH_INIT(mh_backend_info);
    }
}

static mh_status read_file(struct conf_exclusions *x, bool required)
{
    FILE *file = fopen(x->path, "rb");
    if (!file && errno == ENOENT && !required)
        return MH_OK;
    x->text = file ? calloc(1, MOST_BYTES + 2) : NULL;
    size_t length = x->text ? fread(x->text, 1, MOST_BYTES + 1, file) : 0;
    bool bad = !file || !x->text || ferror(file);
    if (file)
        fclose(file);
    if (bad)
        return mh_fail(MH_IO_ERROR, "%s: %s", x->path, strerror(errno));
    if (length > MOST_BYTES || strlen(x->text) != length)
        return mh_fail(MH_BAD_DATA, "%s: %zu bytes, must be text of at most %d", x->path, length,
                       MOST_BYTES);
    return MH_OK;
}

static mh_status parse(struct conf_exclusions *x)
{
    char *at = x->text;
    uint32_t line = 0;
    for (char *text; (text = strsep(&at, "\n"));) {
        line++;
        text += strspn(text, " \t");
        if (!*text || *text == '#' || *text == '\r')
            continue;
        char *reason = text + strcspn(text, " \t");
        if (*reason)
            *reason++ = 0;
        reason += strspn(reason, " \t");
        if (!*reason)
            return mh_fail(MH_BAD_DATA, "%s:%u: '%s' has no reason", x->path, line, text);
        struct conf_exclusion *grown = realloc(x->list, (x->count + 1) * sizeof(*grown));
        if (!grown)
            return mh_fail(MH_OUT_OF_MEMORY, "%s: no room for its lines", x->path);
        x->list = grown;
        x->list[x->count++] = (struct conf_exclusion){text, reason, line, 0};
    }
    return MH_OK;
}

mh_status conf_exclusions_load(struct conf_exclusions *x, mh_runtime *runtime, const char *uri,
                               const char *path)
{
    *x = (struct conf_exclusions){0};
    if (path)
        snprintf(x->path, sizeof(x->path), "%s", path);
    else
        default_path(runtime, uri, x->path, sizeof(x->path));
    mh_status status = x->path[0] ? read_file(x, path != NULL) : MH_OK;
    return status || !x->text ? status : parse(x);
}

void conf_exclusions_free(struct conf_exclusions *x)
{
    free(x->list);
    free(x->text);
}

void conf_exclusions_apply(struct conf_exclusions *x, struct conf_result *result)
{
    for (uint32_t i = 0; i < x->count; i++) {
        struct conf_exclusion *e = &x->list[i];
        if (fnmatch(e->glob, result->name, 0))
            continue;
        e->matched++;
        if (result->outcome == CONF_PASSED) {
            result->outcome = CONF_FAILED;
            snprintf(result->message, sizeof(result->message),
                     "passes, but %.300s:%u excludes it (%.120s): the exclusion is stale", x->path,
                     e->line, e->reason);
        } else {
            result->outcome = CONF_EXCLUDED;
            snprintf(result->message, sizeof(result->message), "%s", e->reason);
        }
        return;
    }
}
