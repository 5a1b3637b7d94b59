/* opencl.c: the backend's table. */
#include "opencl.h"

static const mh_backend_scratch scratch = {sizeof(scratch), opencl_scratch};

static const mh_backend_table table = {
    .struct_size = sizeof(table),
    .abi = MH_ABI,
    .name = "opencl",
    .description = "every device with an OpenCL driver, through the ICD loader",
    .init = opencl_init,
    .fini = opencl_fini,
    .device_info = opencl_device_info,
    .device_open = opencl_open,
    .device_close = opencl_close,
    .memory_info = opencl_memory_info,
    .buffer_create = opencl_buffer_create,
    .buffer_destroy = opencl_buffer_destroy,
    .stream_create = opencl_stream_create,
    .stream_destroy = opencl_stream_destroy,
    .copy = opencl_copy,
    .mark = opencl_mark,
    .wait = opencl_wait,
    .supports = opencl_supports,
    .encode = opencl_encode,
    .scratch = &scratch,
    .import = &opencl_import_group,
    .graph = &opencl_graph_group,
    .event = &opencl_event_group,
    .gate = &opencl_gate_group,
    .wrap = &opencl_wrap_group,
    .wrap_event = &opencl_wrap_event_group,
    .module = &opencl_module_group,
    .counters = &opencl_counters_group,
};

MH_DEFINE_BACKEND(table)
