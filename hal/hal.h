/*
 * hal.h: what the files of hal/ share. Not installed.
 */
#ifndef HAL_H
#define HAL_H

#include <moehal/base.h>

/* Struct versioning of the boundary (base.h). `known` is sizeof() as this library was built.
 * mh_struct_in copies the caller's struct into a zero-extended local one; mh_struct_out fills as
 * much of the caller's as it has room for. Both name the struct in their error. */
mh_status mh_struct_in(void *local, const void *caller, uint64_t known, const char *name);
mh_status mh_struct_out(void *caller, const void *local, uint64_t known);

#endif
