/* backends/opencl/cl.h and cl.def against Khronos' own headers: values, types, every signature. */
#define CL_TARGET_OPENCL_VERSION 300
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include <CL/cl.h>
#include <CL/cl_ext.h>

#include <stdio.h>

#define CL_VALUE(name, value) _Static_assert((name) == (value), #name);
#define CL_STATUS CL_VALUE
#include "cl_values.def"

#define SYMBOL(need, result, field, name, args)                                                    \
    _Static_assert(__builtin_types_compatible_p(__typeof__(&cl##field), result(*) args), name);
#include "cl.def"
#include "cl_command_buffer.def"

int main(void)
{
    puts("the declarations agree"); /* or this file would not have compiled */
    return 0;
}
