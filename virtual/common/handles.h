/* handles.h: a pointer that a program passes is looked up before it is followed.
 *
 * A table of the pointers that were handed out, with a type each. Any thread. */
#ifndef VIRTUAL_HANDLES_H
#define VIRTUAL_HANDLES_H

#include <stdbool.h>

/* Types are small numbers from 1. */
bool vc_handle_add(const void *pointer, unsigned type); /* false: out of memory */
void vc_handle_remove(const void *pointer);
bool vc_handle_is(const void *pointer, unsigned type); /* NULL: no */

#endif
