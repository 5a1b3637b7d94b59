/* report.h: what a virtual device has to say about a program's mistakes. */
#ifndef VIRTUAL_REPORT_H
#define VIRTUAL_REPORT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

/* One finding. Strings are copied by vc_report; NULL and 0 mean that it does not apply. */
struct vc_finding {
    const char *check;  /* "out-of-bounds", "race", ... : a stable word, from checks.def */
    const char *kernel; /* as the module names it */
    const char *file;   /* from .loc, else the module's own name */
    uint32_t line;      /* in `file` */
    uint32_t code_line; /* in the PTX text, or where else the vendor counts */
    bool silent_code;   /* `text` says code_line in the vendor's way */
    uint32_t grid[3], block[3], thread[3];
    uint32_t lanes; /* mask of lanes it concerns */
    uint64_t address, bytes;
    unsigned device;
    const char *text; /* one line for people: what happened, to what, next to which allocation */
    /* The other side of a race, or the barrier that was missed. */
    const char *other_file;
    uint32_t other_line, other_code_line, other_block[3], other_thread[3];
    const char *other_kernel; /* NULL: of the same launch */
    unsigned other_device;
};

/* The sink: a line of text for each finding to standard error, or to the file that
 * MOEHAL_VIRTUAL_REPORT names (JSON lines if its name ends in .json or .jsonl); and kept in memory,
 * so that a program can ask. Findings of the same check at the same line are counted, not repeated.
 */
struct vc_reports;
struct vc_reports *vc_reports_create(const char *vendor);
void vc_reports_destroy(struct vc_reports *reports);
void vc_report(struct vc_reports *reports, const struct vc_finding *finding);

/* Distinct findings since the last clear, and how often each was seen. `json` of a finding stays
 * valid until the clear. */
uint64_t vc_reports_count(struct vc_reports *reports);
bool vc_reports_at(struct vc_reports *reports, uint64_t index, const char **check,
                   const char **json, const char **text, uint64_t *times);
void vc_reports_clear(struct vc_reports *reports);
/* No text to standard error (a test that expects findings). */
void vc_reports_quiet(struct vc_reports *reports, bool quiet);

/* A line of the driver's log: to standard error if MOEHAL_VIRTUAL_LOG is set, to a file if its
 * value has a '/' in it; else nothing. */
void vc_log(struct vc_reports *reports, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
