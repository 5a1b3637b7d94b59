/* What backends share: libraries opened at run time, and the cache on disk. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../support/support.h"
#include "cache.h"
#include "symbols.h"

/* ---- symbols ---- */

struct functions {
    double (*cosine)(double);
    void (*absent)(void);
};

static const struct symbol table[] = {
    SYMBOL_ENTRY(struct functions, REQUIRED, cosine, "cos")
        SYMBOL_ENTRY(struct functions, OPTIONAL, absent, "no_such_function")};

static void opens_and_fills(void **state)
{
    (void)state;
    struct functions f = {NULL, (void (*)(void))(uintptr_t)1};
    char reason[512];
    void *library = symbols_open((const char *const[]){"no-such-library.so.7", "libm.so.6", NULL},
                                 table, 2, &f, reason, sizeof(reason));
    assert_non_null(library);
    assert_true(f.cosine(0) == 1);
    assert_null(f.absent);
    assert_non_null(strstr(symbols_path(*(void **)&f.cosine), "libm"));
    symbols_close(library);
}

static void says_what_is_missing(void **state)
{
    (void)state;
    static const struct symbol needy[] = {
        SYMBOL_ENTRY(struct functions, REQUIRED, cosine, "no_cosine")
            SYMBOL_ENTRY(struct functions, REQUIRED, absent, "no_such_function")};
    struct functions f;
    char reason[512], tiny[8];
    assert_null(symbols_open((const char *const[]){"libm.so.6", NULL}, needy, 2, &f, reason,
                             sizeof(reason)));
    assert_string_equal(reason, "libm.so.6 lacks no_cosine, no_such_function");
    assert_null(symbols_open((const char *const[]){"no-such-a.so", "/no/such/b.so", NULL}, needy, 2,
                             &f, reason, sizeof(reason)));
    assert_non_null(strstr(reason, "no-such-a.so: "));
    assert_non_null(strstr(reason, "; /no/such/b.so: "));
    assert_null(symbols_open((const char *const[]){"no-such-a.so", NULL}, needy, 2, &f, tiny,
                             sizeof(tiny)));
    assert_string_equal(tiny, "no-such");
}

/* ---- the cache ---- */

static const char *variables[3]; /* MOEHAL_CACHE, XDG_CACHE_HOME, HOME */

static const char *environment(void *context, const char *name)
{
    (void)context;
    return !strcmp(name, "MOEHAL_CACHE")     ? variables[0]
           : !strcmp(name, "XDG_CACHE_HOME") ? variables[1]
           : !strcmp(name, "HOME")           ? variables[2]
                                             : NULL;
}

static void *allocate(void *context, uint64_t size)
{
    (void)context;
    return malloc(size);
}

static void deallocate(void *context, void *memory)
{
    (void)context;
    free(memory);
}

static const mh_core core = {sizeof(core), NULL, allocate, deallocate, NULL, NULL, environment};

/* The only file in a cache's folder. */
static const char *only_file(const struct cache *cache)
{
    static char path[8192];
    char command[8192];
    assert_int_equal(test_count_files(cache->folder), 1);
    snprintf(command, sizeof(command), "ls -A '%s'", cache->folder);
    FILE *list = popen(command, "r");
    char name[256] = "";
    assert_non_null(fgets(name, sizeof(name), list));
    pclose(list);
    name[strcspn(name, "\n")] = 0;
    snprintf(path, sizeof(path), "%s/%s", cache->folder, name);
    return path;
}

static void keeps(void **state)
{
    struct cache cache;
    char reason[256];
    uint64_t size;
    variables[0] = test_path(*state, "a/b");
    cache_open(&cache, &core, "opencl");
    assert_null(cache_read(&cache, "key", &size));
    assert_true(cache_write(&cache, "key", "content", 7, reason, sizeof(reason)));
    assert_true(cache_write(&cache, "key", "newer", 5, reason, sizeof(reason)));
    char *got = cache_read(&cache, "key", &size);
    assert_non_null(got);
    assert_int_equal(size, 5);
    assert_memory_equal(got, "newer", 5);
    free(got);
    assert_null(cache_read(&cache, "another key", &size));
    struct stat folder;
    assert_int_equal(stat(cache.folder, &folder), 0);
    assert_int_equal(folder.st_mode & 0777, 0700);
    only_file(&cache); /* nothing temporary is left */
}

/* Every byte of an entry, changed; every length it might be cut to; more behind it. */
static void trusts_no_damage(void **state)
{
    struct cache cache;
    char reason[256];
    uint64_t size, bytes;
    variables[0] = test_path(*state, "damaged");
    cache_open(&cache, &core, "x");
    assert_true(cache_write(&cache, "the key", "some content", 12, reason, sizeof(reason)));
    const char *path = only_file(&cache);
    unsigned char *whole = test_read(path, &bytes);
    for (uint64_t i = 0; i < bytes; i++) {
        whole[i] ^= 0x41;
        test_write(path, whole, bytes);
        assert_null(cache_read(&cache, "the key", &size));
        whole[i] ^= 0x41;
        test_write(path, whole, i);
        assert_null(cache_read(&cache, "the key", &size));
    }
    test_write(path, whole, bytes + 1); /* with the NUL that test_read adds */
    assert_null(cache_read(&cache, "the key", &size));
    test_write(path, whole, bytes);
    char *got = cache_read(&cache, "the key", &size);
    assert_non_null(got);
    free(got);
    free(whole);
}

static void finds_its_place(void **state)
{
    (void)state;
    struct cache cache;
    char reason[256];
    variables[0] = NULL, variables[1] = "/xdg", variables[2] = "/a/home";
    cache_open(&cache, &core, "x");
    assert_string_equal(cache.folder, "/xdg/moehal/x");
    variables[1] = NULL;
    cache_open(&cache, &core, "x");
    assert_string_equal(cache.folder, "/a/home/.cache/moehal/x");
    variables[0] = "off";
    cache_open(&cache, &core, "x");
    assert_string_equal(cache.folder, "");
    assert_false(cache_write(&cache, "key", "content", 7, reason, sizeof(reason)));
    variables[0] = "/proc/no";
    cache_open(&cache, &core, "x");
    assert_false(cache_write(&cache, "key", "content", 7, reason, sizeof(reason)));
    assert_non_null(strstr(reason, "/proc/no/x: "));
}

static int setup(void **state)
{
    *state = test_make_dir();
    return 0;
}

static int teardown(void **state)
{
    test_remove_dir(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens_and_fills), cmocka_unit_test(says_what_is_missing),
        cmocka_unit_test(keeps),           cmocka_unit_test(trusts_no_damage),
        cmocka_unit_test(finds_its_place),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
