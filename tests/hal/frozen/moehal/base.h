/*
 * base.h: what every other header needs: export marks, the ABI number, status codes, versions.
 *
 * Conventions of the whole API:
 *  - every function that can fail returns mh_status; the detail is in error.h's mh_last_error();
 *  - enumerations cross the boundary as uint32_t, sizes as uint64_t, dimensions as int64_t;
 *  - a struct that crosses the boundary begins with `struct_size`, set by the caller to
 *    sizeof(the struct): a shorter one is extended with zeros, a longer one is refused unless its
 *    unknown tail is zero. MH_INIT(type) gives a zeroed struct with the size set;
 *  - "Borrowed" pointers stay the caller's; "owned" ones are released by whoever the text names.
 */
#ifndef MOEHAL_BASE_H
#define MOEHAL_BASE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define MH_API __attribute__((visibility("default")))
#define MH_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define MH_API
#define MH_PRINTF(fmt, args)
#endif

#ifdef __cplusplus
#define MH_BEGIN_DECLS extern "C" {
#define MH_END_DECLS }
#else
#define MH_BEGIN_DECLS
#define MH_END_DECLS
#endif

/* The number a backend module and the core must share exactly before 1.0. */
#define MH_ABI 1u

#define MH_VERSION_MAJOR 0
#define MH_VERSION_MINOR 1
#define MH_VERSION_PATCH 0

/* A timeout in nanoseconds that never ends. */
#define MH_FOREVER UINT64_MAX

/* A zeroed struct of a boundary type with its struct_size set. */
#define MH_INIT(type) ((type){.struct_size = sizeof(type)})

MH_BEGIN_DECLS

typedef uint32_t mh_status;
enum {
#define MH_STATUS(value, NAME, text) MH_##NAME = value,
#include <moehal/status.def>
#undef MH_STATUS
};

/* The name of a status in lower case ("out of memory"); never NULL. Any thread. */
MH_API const char *mh_status_text(mh_status status);

/* The version of the library that runs, as "MAJOR.MINOR.PATCH". Any thread. */
MH_API const char *mh_version(void);

/* The ABI number of the library that runs; compare with MH_ABI of the headers. Any thread. */
MH_API uint32_t mh_abi(void);

MH_END_DECLS

#endif
