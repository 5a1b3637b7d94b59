/* vectors_data.c: the independent vectors (tests/data/golden/README.md says who made them), carried
 * along so that every device can be held against them. */
#include "vectors_data.h"

#define EMBED(name, path)                                                                          \
    __asm__(".pushsection .rodata\n"                                                               \
            ".balign 16\n" #name "_begin:\n"                                                       \
            ".incbin \"" path "\"\n" #name "_end:\n"                                               \
            ".byte 0\n"                                                                            \
            ".popsection\n");                                                                      \
    extern const unsigned char name##_begin[], name##_end[];

EMBED(conf_ops_tensors, VECTORS "/ops-exact.safetensors")
EMBED(conf_ops_json, VECTORS "/ops-exact.json")
EMBED(conf_router_tensors, VECTORS "/router.safetensors")
EMBED(conf_router_json, VECTORS "/router.json")

#define FILE_OF(name)                                                                              \
    {                                                                                              \
        name##_begin, (size_t)(name##_end - name##_begin)                                          \
    }

struct conf_vectors conf_vectors_ops(void)
{
    return (struct conf_vectors){FILE_OF(conf_ops_tensors), FILE_OF(conf_ops_json)};
}

struct conf_vectors conf_vectors_router(void)
{
    return (struct conf_vectors){FILE_OF(conf_router_tensors), FILE_OF(conf_router_json)};
}
