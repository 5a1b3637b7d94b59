/*
 * cl.h: the part of OpenCL 1.2 that the backend uses, declared here so that building it needs
 * nothing installed; a test compares every line with Khronos' headers. Names and values are the
 * standard's.
 */
#ifndef OPENCL_CL_H
#define OPENCL_CL_H

#include <stddef.h>
#include <stdint.h>

typedef int32_t cl_int;
typedef uint32_t cl_uint, cl_bool;
typedef uint64_t cl_ulong, cl_bitfield;
typedef intptr_t cl_context_properties;

typedef struct _cl_platform_id *cl_platform_id;
typedef struct _cl_device_id *cl_device_id;
typedef struct _cl_context *cl_context;
typedef struct _cl_command_queue *cl_command_queue;
typedef struct _cl_mem *cl_mem;
typedef struct _cl_program *cl_program;
typedef struct _cl_kernel *cl_kernel;
typedef struct _cl_event *cl_event;

/* cl_khr_command_buffer */
typedef struct _cl_command_buffer_khr *cl_command_buffer_khr;
typedef struct _cl_mutable_command_khr *cl_mutable_command_khr;
typedef cl_uint cl_sync_point_khr;
typedef cl_ulong cl_command_buffer_properties_khr, cl_ndrange_kernel_command_properties_khr;

/* CL_VALUE(name, value): also read by the test. */
enum {
#define CL_VALUE(name, value) name = value,
#define CL_STATUS CL_VALUE
#include "cl_values.def"
#undef CL_STATUS
#undef CL_VALUE
};

#define CL_DEVICE_TYPE_EVERY ((cl_bitfield)0xFFFFFFFF) /* CL_DEVICE_TYPE_ALL */

#endif
