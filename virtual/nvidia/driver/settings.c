/* settings.c: what the environment says of the devices; docs/virtual-nvidia.md has the list. */
#include "driver.h"
#include "settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Published figures of A100, L4/L40-class, H100, and B200-class parts. */
static const struct limits known_limits[] = {
    {80, 108, 64, 32, 164 << 10, 163 << 10, 40 << 20, 1410000, 1215000, 5120, 128, 2048},
    {86, 84, 48, 16, 100 << 10, 99 << 10, 6 << 20, 1695000, 9751000, 384, 256, 1024},
    {89, 142, 48, 24, 100 << 10, 99 << 10, 96 << 20, 2490000, 9001000, 384, 256, 1024},
    {90, 132, 64, 32, 228 << 10, 227 << 10, 50 << 20, 1980000, 2619000, 5120, 256, 4096},
    {100, 148, 64, 32, 228 << 10, 227 << 10, 126 << 20, 1965000, 3996000, 8192, 256, 8192},
    {120, 170, 48, 24, 100 << 10, 99 << 10, 96 << 20, 2407000, 14001000, 512, 256, 1024},
};

static const char *setting(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static bool complain(const char *name, const char *value, const char *want)
{
    fprintf(stderr, "virtual NVIDIA: %s=%s: want %s\n", name, value, want);
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
    if (word_is(text, "round-robin", &driver.seed))
        driver.schedule = VN_ROUND_ROBIN;
    else if (word_is(text, "random", &driver.seed))
        driver.schedule = VN_RANDOM;
    else if (word_is(text, "adversarial", &driver.seed))
        driver.schedule = VN_ADVERSARIAL;
    else
        return false;
    return true;
}

bool settings_stream_order(const char *text)
{
    if (word_is(text, "submitted", &driver.seed))
        driver.stream_order = ORDER_SUBMITTED;
    else if (word_is(text, "random", &driver.seed))
        driver.stream_order = ORDER_RANDOM;
    else if (word_is(text, "newest", &driver.seed))
        driver.stream_order = ORDER_NEWEST;
    else
        return false;
    return true;
}

bool settings_start(const char *text)
{
    driver.lazy = !strcmp(text, "awaited");
    return driver.lazy || !strcmp(text, "submitted");
}

/* "full", "none", or pairs: "0-1,2-3". */
static bool read_topology(const char *text)
{
    uint32_t all = driver.count == 32 ? ~0u : (1u << driver.count) - 1;
    memset(driver.links, 0, sizeof driver.links);
    if (!strcmp(text, "none"))
        return true;
    if (!strcmp(text, "full")) {
        for (int i = 0; i < driver.count; i++)
            driver.links[i] = all & ~(1u << i);
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

static bool read_limits(struct limits *limits, long sms)
{
    const char *text = setting("MOEHAL_VIRTUAL_SM");
    int capability = 90;
    if (text) { /* 90, 9.0, sm_90 */
        const char *digits = strncmp(text, "sm_", 3) ? text : text + 3;
        int major, minor, n = 0;
        if (sscanf(digits, "%d.%1d%n", &major, &minor, &n) == 2 && !digits[n])
            capability = 10 * major + minor;
        else
            capability = atoi(digits);
    }
    size_t i = 0, count = sizeof known_limits / sizeof known_limits[0];
    while (i < count && known_limits[i].capability != capability)
        i++;
    if (i == count)
        return complain("MOEHAL_VIRTUAL_SM", text, "80, 86, 89, 90, 100 or 120");
    *limits = known_limits[i];
    if (sms)
        limits->sms = (int)sms;
    return true;
}

/* No more than the machine has, unless it is asked for: a program that fills a device would
 * otherwise end by the system's hand. */
static bool read_memory(uint64_t *bytes)
{
    const char *text = setting("MOEHAL_VIRTUAL_MEMORY");
    uint64_t most = (driver.map->bytes / VC_PARTS) & ~((uint64_t)VC_PAGE - 1);
    uint64_t ram = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    *bytes = (uint64_t)80 << 30;
    if (*bytes > ram)
        *bytes = ram & ~(((uint64_t)1 << 20) - 1);
    if (text && (!vc_parse_bytes(text, text + strlen(text), bytes) || *bytes < 1 << 20))
        return complain("MOEHAL_VIRTUAL_MEMORY", text, "bytes, from 1M, with K, M, G or T");
    if (*bytes > most)
        *bytes = most;
    return true;
}

bool settings_read(void)
{
    long count = 8, sms = 0, threads = 0, limit = 0, fuse = 0;
    char why[200];
    if (!number_setting("MOEHAL_VIRTUAL_DEVICES", 1, VC_MAX_DEVICES, &count) ||
        !number_setting("MOEHAL_VIRTUAL_SMS", 1, 1024, &sms) ||
        !number_setting("MOEHAL_VIRTUAL_THREADS", 1, 1024, &threads) ||
        !number_setting("MOEHAL_VIRTUAL_TIME_LIMIT_MS", 0, 86400000, &limit) ||
        !number_setting("MOEHAL_VIRTUAL_FUSE", 0, 1, &fuse))
        return false;
    driver.count = (int)count;
    driver.threads = (int)threads;
    driver.time_limit_ms = (uint64_t)limit;
    driver.fuse = fuse;
    driver.checks = VN_CHECK_DEFAULT;
    driver.count_on = true;
    driver.seed = 1;
    const char *text;
    if ((text = setting("MOEHAL_VIRTUAL_CHECKS")) && !vn_checks_parse(text, &driver.checks))
        return complain("MOEHAL_VIRTUAL_CHECKS", text,
                        "none, default, all, or a list of bounds, uninitialised, shared-races, "
                        "global-races, async-copy, barriers, local");
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
        driver.count_lines = !strcmp(text, "lines");
    }
    text = setting("MOEHAL_VIRTUAL_TOPOLOGY");
    if (!read_topology(text ? text : "full"))
        return complain("MOEHAL_VIRTUAL_TOPOLOGY", text, "full, none, or pairs such as 0-1,2-3");
    if ((text = setting("MOEHAL_VIRTUAL_FAULTS")) && !vc_faults_set(driver.faults, text, why))
        return complain("MOEHAL_VIRTUAL_FAULTS", text, why);
    struct limits limits;
    uint64_t memory;
    if (!read_limits(&limits, sms) || !read_memory(&memory))
        return false;
    const char *name = setting("MOEHAL_VIRTUAL_NAME");
    for (int i = 0; i < driver.count; i++) {
        struct device *d = &driver.device[i];
        d->ordinal = i;
        d->limits = limits;
        d->memory = memory;
        if (name) /* whatever it is called, it is called virtual */
            snprintf(d->name, sizeof d->name, "Virtual %.50s", name);
        else
            snprintf(d->name, sizeof d->name, "Virtual NVIDIA sm_%d (CPU)", limits.capability);
    }
    return true;
}
