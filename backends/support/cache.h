/*
 * cache.h: what a backend compiled, kept on disk between runs.
 *
 * An entry is a file in <user's cache>/moehal/<area>/, named by a hash of its key; the key itself
 * (all that the content depends on: source, options, device, driver's version) is in the file and
 * must match. Writing is atomic: another process sees the old entry, the new one, or none. A
 * damaged or foreign entry is as good as none. All of it is best effort: without a place to write,
 * nothing is kept, and cache_write says why.
 *
 * The user's cache is $MOEHAL_CACHE, else $XDG_CACHE_HOME/moehal, else $HOME/.cache/moehal, as the
 * runtime's policy for the environment allows; MOEHAL_CACHE=off keeps nothing. Any thread.
 */
#ifndef SUPPORT_CACHE_H
#define SUPPORT_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include <moehal/backend.h>

struct cache {
    const mh_core *core;
    char folder[4096]; /* "" keeps nothing */
};

/* `area` is the backend's name. Makes no folder yet. */
void cache_open(struct cache *cache, const mh_core *core, const char *area);

/* The content of the entry of `key`, to be freed with core->deallocate; NULL if there is none. */
void *cache_read(const struct cache *cache, const char *key, uint64_t *size);

/* False, and the reason in words, if it could not be kept. */
bool cache_write(const struct cache *cache, const char *key, const void *data, uint64_t size,
                 char *reason, uint64_t reason_size);

/* 64-bit FNV-1a, to be continued from an earlier result or from CACHE_HASH_START: for keys that
 * name long texts. */
#define CACHE_HASH_START UINT64_C(0xCBF29CE484222325)
uint64_t cache_hash(uint64_t hash, const void *data, uint64_t size);

#endif
