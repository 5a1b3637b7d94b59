/* moehal_virtual.h: what a virtual GPU's driver library exports beside its vendor's API.
 *
 * A driver is virtual if it has the symbol moehal_virtual_driver (dlsym); the functions are there
 * then too. All may be called from any thread, before the vendor's initialisation as well; then the
 * settings wait for it. Names and texts that are handed out stay valid until the next clear or
 * reset. */
#ifndef MOEHAL_VIRTUAL_H
#define MOEHAL_VIRTUAL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef MOEHAL_VIRTUAL_API
#define MOEHAL_VIRTUAL_API
#endif

/* "moehal virtual NVIDIA driver" */
MOEHAL_VIRTUAL_API extern const char moehal_virtual_driver[];

/* ---- counters: exact, of one device, since its last reset ---- */

/* Name and meaning of counter `index`; 0, or -1 past the last. */
MOEHAL_VIRTUAL_API int moehal_virtual_counter_at(unsigned index, const char **name,
                                                 const char **meaning);
/* Waits for nothing: synchronise first. -1: no such device or name. */
MOEHAL_VIRTUAL_API int moehal_virtual_counter(int device, const char *name, uint64_t *value);
MOEHAL_VIRTUAL_API int moehal_virtual_counters_reset(int device);

/* The same by kernel: those launched since the reset, in the order of their first launch. */
MOEHAL_VIRTUAL_API int moehal_virtual_kernel_at(int device, unsigned index, const char **kernel,
                                                uint64_t *launches);
MOEHAL_VIRTUAL_API int moehal_virtual_kernel_counter(int device, const char *kernel,
                                                     const char *name, uint64_t *value);

/* And by line of PTX, or by instruction of gfx942 (MOEHAL_VIRTUAL_COUNT=lines): a table as text,
 * one line a line, of the kernel's launches. NULL: nothing was counted. The caller frees it with
 * free(). */
MOEHAL_VIRTUAL_API char *moehal_virtual_kernel_lines(int device, const char *kernel);

/* ---- reports of the checks ---- */

MOEHAL_VIRTUAL_API uint64_t moehal_virtual_report_count(void);
/* Any of the pointers may be NULL. `json` is one object. */
MOEHAL_VIRTUAL_API int moehal_virtual_report_at(uint64_t index, const char **check,
                                                const char **json, const char **text,
                                                uint64_t *times);
MOEHAL_VIRTUAL_API void moehal_virtual_reports_clear(void);
/* Nothing to standard error any more: for a test that expects reports. */
MOEHAL_VIRTUAL_API void moehal_virtual_reports_quiet(int quiet);

/* ---- settings by call ---- */

/* As MOEHAL_VIRTUAL_FAULTS; replaces what was set. -1: it does not read. */
MOEHAL_VIRTUAL_API int moehal_virtual_faults(const char *list);
/* "checks", "schedule", "streams", "start", "time_limit_ms", "fuse", "count" with the values that
 * their variables take. They hold for the launches submitted from then on. -1: no such setting, or
 * value. */
MOEHAL_VIRTUAL_API int moehal_virtual_set(const char *setting, const char *value);

#ifdef __cplusplus
}
#endif

#endif
