/* cache.c: see cache.h. A file is a struct header, the key, the content. */
#include "cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct header {
    char magic[8];
    uint64_t key_size;
    uint64_t size;
    uint64_t hash; /* of key and content */
};

static const char magic[8] = "mhcache1";

/* Far above any program; a size read from a file is never trusted further. */
#define MOST_BYTES (UINT64_C(1) << 30)

uint64_t cache_hash(uint64_t hash, const void *data, uint64_t size)
{
    const unsigned char *bytes = data;
    for (uint64_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(0x100000001B3);
    return hash;
}

void cache_open(struct cache *cache, const mh_core *core, const char *area)
{
    const char *own = core->environment(core->context, "MOEHAL_CACHE");
    const char *xdg = core->environment(core->context, "XDG_CACHE_HOME");
    const char *home = core->environment(core->context, "HOME");
    int length = 0;
    cache->core = core;
    if (own && *own)
        length = own[0] == '/' ? snprintf(cache->folder, sizeof(cache->folder), "%s/%s", own, area)
                               : 0; /* "off" */
    else if (xdg && xdg[0] == '/')
        length = snprintf(cache->folder, sizeof(cache->folder), "%s/moehal/%s", xdg, area);
    else if (home && home[0] == '/')
        length = snprintf(cache->folder, sizeof(cache->folder), "%s/.cache/moehal/%s", home, area);
    if (length <= 0 || length >= (int)sizeof(cache->folder) - 64)
        cache->folder[0] = 0;
}

static void entry_path(const struct cache *cache, const char *key, char *path, size_t size)
{
    snprintf(path, size, "%s/%016llx", cache->folder,
             (unsigned long long)cache_hash(CACHE_HASH_START, key, strlen(key)));
}

static bool read_all(int file, void *data, uint64_t size)
{
    for (uint64_t done = 0; done < size;) {
        ssize_t got = read(file, (char *)data + done, size - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        done += (uint64_t)got;
    }
    return true;
}

static bool write_all(int file, const void *data, uint64_t size)
{
    for (uint64_t done = 0; done < size;) {
        ssize_t put = write(file, (const char *)data + done, size - done);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return false;
        done += (uint64_t)put;
    }
    return true;
}

/* Key and content in one block, if the file is whole and holds this key. */
static char *read_entry(const mh_core *core, int file, const char *key, struct header *h)
{
    struct stat status;
    uint64_t key_size = strlen(key);
    if (fstat(file, &status) || status.st_uid != geteuid() || !read_all(file, h, sizeof(*h)) ||
        memcmp(h->magic, magic, sizeof(magic)) || h->key_size != key_size || h->size > MOST_BYTES ||
        (uint64_t)status.st_size != sizeof(*h) + key_size + h->size)
        return NULL;
    char *all = core->allocate(core->context, key_size + h->size + 1);
    if (!all)
        return NULL;
    if (read_all(file, all, key_size + h->size) && !memcmp(all, key, key_size) &&
        cache_hash(CACHE_HASH_START, all, key_size + h->size) == h->hash)
        return all;
    core->deallocate(core->context, all);
    return NULL;
}

void *cache_read(const struct cache *cache, const char *key, uint64_t *size)
{
    char path[4200];
    struct header h;
    if (!cache->folder[0])
        return NULL;
    entry_path(cache, key, path, sizeof(path));
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (file < 0)
        return NULL;
    char *all = read_entry(cache->core, file, key, &h);
    close(file);
    if (all) {
        memmove(all, all + h.key_size, h.size);
        *size = h.size;
    }
    return all;
}

/* Every folder of the path, for the user alone. */
static bool make_folders(const char *folder)
{
    char path[4200];
    snprintf(path, sizeof(path), "%s", folder);
    for (char *p = path + 1;; p++) {
        if (*p && *p != '/')
            continue;
        char end = *p;
        *p = 0;
        if (mkdir(path, 0700) && errno != EEXIST)
            return false;
        *p = end;
        if (!end)
            return true;
    }
}

bool cache_write(const struct cache *cache, const char *key, const void *data, uint64_t size,
                 char *reason, uint64_t reason_size)
{
    char path[4200], temporary[4300];
    struct header h = {.key_size = strlen(key), .size = size};
    if (!cache->folder[0]) {
        snprintf(reason, reason_size, "there is no cache folder");
        return false;
    }
    memcpy(h.magic, magic, sizeof(magic));
    h.hash = cache_hash(cache_hash(CACHE_HASH_START, key, h.key_size), data, size);
    entry_path(cache, key, path, sizeof(path));
    snprintf(temporary, sizeof(temporary), "%s.XXXXXX", path);
    int file = make_folders(cache->folder) ? mkostemp(temporary, O_CLOEXEC) : -1;
    if (file < 0) {
        snprintf(reason, reason_size, "%.200s: %s", cache->folder, strerror(errno));
        return false;
    }
    bool good = write_all(file, &h, sizeof(h)) && write_all(file, key, h.key_size) &&
                write_all(file, data, size);
    good = !close(file) && good && !rename(temporary, path);
    if (!good) {
        snprintf(reason, reason_size, "%.200s: %s", temporary, strerror(errno));
        unlink(temporary);
    }
    return good;
}
