/*
 * symbols.h: a vendor's library, opened at run time through a table of its functions.
 *
 * A backend lists the functions once, in a file vendor.def, a line each:
 *
 *     SYMBOL(REQUIRED, CUresult, cuInit, "cuInit", (unsigned int flags))
 *     SYMBOL(OPTIONAL, CUresult, cuStreamWaitValue32, "cuStreamWaitValue32_v2", (...))
 *
 * and includes it twice: for the struct of pointers (a field a function, NULL where an optional one
 * is not there) and for the table that fills it:
 *
 *     struct vendor {
 *     #define SYMBOL SYMBOL_FIELD
 *     #include "vendor.def"
 *     #undef SYMBOL
 *     };
 *     static const struct symbol vendor_symbols[] = {
 *     #define SYMBOL(need, result, field, name, args) SYMBOL_ENTRY(struct vendor, need, field,
 * name) #include "vendor.def" #undef SYMBOL
 *     };
 *
 * No state, any thread. Knows no vendor.
 */
#ifndef SUPPORT_SYMBOLS_H
#define SUPPORT_SYMBOLS_H

#include <stdbool.h>
#include <stddef.h>

struct symbol {
    const char *name;
    size_t offset; /* of the pointer in the caller's struct */
    bool required;
};

#define SYMBOL_REQUIRED_ true
#define SYMBOL_OPTIONAL_ false
#define SYMBOL_FIELD(need, result, field, name, args) result(*field) args;
#define SYMBOL_ENTRY(type, need, field, name) {(name), offsetof(type, field), SYMBOL_##need##_},

/*
 * Opens the first of `libraries` (ended by NULL: names the system's loader looks up, or paths) that
 * can be, and fills `functions`. Returns the handle, to be closed with symbols_close. If none can
 * be opened, or the one that could lacks a required function: NULL, and `reason` says so in words,
 * naming every library tried with what the loader answered, or every function that is missing. The
 * first library that opens decides: one that lacks something does not make the next be tried.
 */
void *symbols_open(const char *const *libraries, const struct symbol *symbols, size_t count,
                   void *functions, char *reason, size_t reason_size);
void symbols_close(void *library); /* NULL is allowed */

/* The file that `function`, found in a library, comes from; "" where the loader cannot say. The
 * text lives as long as the library is open. */
const char *symbols_path(const void *function);

#endif
