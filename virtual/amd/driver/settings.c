/* settings.c: what the environment says of the devices; docs/virtual-amd.md has the list. */
#include "driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_DEVICES = 8 };

/* Published figures of an MI300X: 304 compute units, 2.1 GHz, 163.4 TF/s of f32 and 1307.4 TF/s of
 * bf16, 8 stacks of HBM3 at 5.2 Gb/s a pin. */
static const struct limits mi300x = {304, 32, 64 << 10, 4 << 20, 2100000, 2600000, 8192, 256, 2048};

static const char *setting(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static bool complain(const char *name, const char *value, const char *want)
{
    fprintf(stderr, "virtual AMD: %s=%s: want %s\n", name, value, want);
    return false;
}

static bool number_setting(const char *name, long low, long high, long *value)
{
    const char *text = setting(name);
    char *end, want[80];
    if (!text)
        return true;
    long n = strtol(text, &end, 10);
    if (*end || n < low || n > high) {
        snprintf(want, sizeof want, "a number from %ld to %ld", low, high);
        return complain(name, text, want);
    }
    *value = n;
    return true;
}

bool settings_checks(const char *list, unsigned *checks)
{
    static const struct {
        const char *word;
        unsigned bits;
    } words[] = {
        {"none", 0},
        {"default", VA_CHECK_DEFAULT},
        {"all", VA_CHECK_DEFAULT | VA_CHECK_GLOBAL_RACES},
        {"bounds", VA_CHECK_BOUNDS},
        {"uninitialised", VA_CHECK_UNINITIALISED},
        {"registers", VA_CHECK_REGISTERS},
        {"lds-races", VA_CHECK_LDS_RACES},
        {"barriers", VA_CHECK_BARRIERS},
        {"waits", VA_CHECK_WAITS},
        {"global-races", VA_CHECK_GLOBAL_RACES},
    };
    unsigned result = 0;
    for (const char *at = list; *at;) {
        size_t n = strcspn(at, ","), i = 0, count = sizeof words / sizeof words[0];
        while (i < count && (strlen(words[i].word) != n || memcmp(words[i].word, at, n)))
            i++;
        if (i == count)
            return false;
        result |= words[i].bits;
        at += n + (at[n] == ',');
    }
    *checks = result;
    return true;
}

/* "random:7": a word and a seed. */
static bool word_is(const char *text, const char *word, uint64_t *seed)
{
    size_t n = strlen(word);
    char *end = NULL;
    if (strncmp(text, word, n) || (text[n] && text[n] != ':'))
        return false;
    if (text[n] == ':') {
        *seed = strtoull(text + n + 1, &end, 10);
        return end != text + n + 1 && !*end;
    }
    return true;
}

bool settings_schedule(const char *text)
{
    static const char *const words[] = {"round-robin", "random", "adversarial"};
    for (int i = 0; i < 3; i++)
        if (word_is(text, words[i], &driver.seed)) {
            driver.schedule = (enum va_schedule)i;
            return true;
        }
    return false;
}

bool settings_stream_order(const char *text)
{
    static const char *const words[] = {"submitted", "random", "newest"};
    for (int i = 0; i < 3; i++)
        if (word_is(text, words[i], &driver.seed)) {
            driver.stream_order = (enum stream_order)i;
            return true;
        }
    return false;
}

bool settings_start(const char *text)
{
    driver.lazy = !strcmp(text, "awaited");
    return driver.lazy || !strcmp(text, "submitted");
}

/* "full", "none", or pairs: "0-1,2-3". */
static bool read_topology(const char *text)
{
    memset(driver.links, 0, sizeof driver.links);
    if (!strcmp(text, "none"))
        return true;
    if (!strcmp(text, "full")) {
        for (int i = 0; i < driver.count; i++)
            driver.links[i] = ((1u << driver.count) - 1) & ~(1u << i);
        return true;
    }
    for (const char *at = text; *at;) {
        char *end;
        unsigned long a = strtoul(at, &end, 10);
        if (end == at || *end != '-')
            return false;
        at = end + 1;
        unsigned long b = strtoul(at, &end, 10);
        if (end == at || (*end && *end != ',') || a == b || a >= (unsigned long)driver.count ||
            b >= (unsigned long)driver.count)
            return false;
        driver.links[a] |= 1u << b;
        driver.links[b] |= 1u << a;
        at = *end ? end + 1 : end;
    }
    return true;
}

/* No more than the machine has, unless it is asked for: a program that fills a device would
 * otherwise end by the system's hand. */
static bool read_memory(uint64_t *bytes)
{
    const char *text = setting("MOEHAL_VIRTUAL_MEMORY");
    uint64_t most = (driver.map->bytes / VC_PARTS) & ~((uint64_t)VC_PAGE - 1);
    uint64_t ram = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    *bytes = (uint64_t)192 << 30;
    if (*bytes > ram)
        *bytes = ram & ~(((uint64_t)1 << 20) - 1);
    if (text && (!vc_parse_bytes(text, text + strlen(text), bytes) || *bytes < 1 << 20))
        return complain("MOEHAL_VIRTUAL_MEMORY", text, "bytes, from 1M, with K, M, G or T");
    if (*bytes > most)
        *bytes = most;
    return true;
}

static bool read_words(void)
{
    const char *text;
    char why[200];
    if ((text = setting("MOEHAL_VIRTUAL_CHECKS")) && !settings_checks(text, &driver.checks))
        return complain("MOEHAL_VIRTUAL_CHECKS", text,
                        "none, default, all, or a list of bounds, uninitialised, registers, "
                        "lds-races, barriers, waits, global-races");
    if ((text = setting("MOEHAL_VIRTUAL_SCHEDULE")) && !settings_schedule(text))
        return complain("MOEHAL_VIRTUAL_SCHEDULE", text,
                        "round-robin, random[:SEED] or adversarial[:SEED]");
    if ((text = setting("MOEHAL_VIRTUAL_STREAMS")) && !settings_stream_order(text))
        return complain("MOEHAL_VIRTUAL_STREAMS", text, "submitted, random[:SEED] or newest");
    if ((text = setting("MOEHAL_VIRTUAL_START")) && !settings_start(text))
        return complain("MOEHAL_VIRTUAL_START", text, "submitted or awaited");
    if ((text = setting("MOEHAL_VIRTUAL_COUNT"))) {
        if (strcmp(text, "off") && strcmp(text, "on") && strcmp(text, "lines"))
            return complain("MOEHAL_VIRTUAL_COUNT", text, "off, on or lines");
        driver.count_on = strcmp(text, "off") != 0;
        driver.count_pcs = !strcmp(text, "lines");
    }
    text = setting("MOEHAL_VIRTUAL_TOPOLOGY");
    if (!read_topology(text ? text : "full"))
        return complain("MOEHAL_VIRTUAL_TOPOLOGY", text, "full, none, or pairs such as 0-1,2-3");
    if ((text = setting("MOEHAL_VIRTUAL_FAULTS")) && !vc_faults_set(driver.faults, text, why))
        return complain("MOEHAL_VIRTUAL_FAULTS", text, why);
    return true;
}

bool settings_read(void)
{
    long count = MOST_DEVICES, cus = mi300x.cus, threads = 0, limit = 0;
    uint64_t memory;
    if (!number_setting("MOEHAL_VIRTUAL_DEVICES", 1, MOST_DEVICES, &count) ||
        !number_setting("MOEHAL_VIRTUAL_CUS", 1, 1024, &cus) ||
        !number_setting("MOEHAL_VIRTUAL_THREADS", 1, 1024, &threads) ||
        !number_setting("MOEHAL_VIRTUAL_TIME_LIMIT_MS", 0, 86400000, &limit))
        return false;
    driver.count = (int)count;
    driver.threads = (int)threads;
    driver.time_limit_ms = (uint64_t)limit;
    driver.checks = VA_CHECK_DEFAULT;
    driver.count_on = true;
    driver.seed = 1;
    if (!read_words() || !read_memory(&memory))
        return false;
    const char *name = setting("MOEHAL_VIRTUAL_NAME");
    for (int i = 0; i < driver.count; i++) {
        struct device *d = &driver.device[i];
        d->ordinal = i;
        d->limits = mi300x;
        d->limits.cus = (int)cus;
        d->memory = memory;
        /* whatever it is called, it is called virtual */
        snprintf(d->name, sizeof d->name, "Virtual %.50s",
                 name ? name : "AMD Instinct MI300X (CPU)");
    }
    return true;
}
