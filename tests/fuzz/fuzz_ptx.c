/*
 * fuzz_ptx.c: PTX, as text. The parser may say no, with a reason; what it takes is a module.
 */
#include "fuzz.h"

#include <stdlib.h>

#include "../../virtual/nvidia/machine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vn_diagnostic d = {0};
    struct vn_module *m = vn_module_parse((const char *)data, size, &d);
    if (!m && !d.text[0])
        abort();
    vn_module_release(m);
    return 0;
}
