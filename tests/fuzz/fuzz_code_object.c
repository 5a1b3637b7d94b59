/*
 * fuzz_code_object.c: code objects of AMD GPUs, and bundles of them. What is accepted is placed,
 * and everything it says of itself must lie inside of its image.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "../../virtual/amd/loader/code_object.h"

static void must(int is_so)
{
    if (!is_so)
        abort();
}

static void look(const struct vl_code *code)
{
    for (size_t i = 0; i < code->kernel_count; i++) {
        const struct vl_kernel *k = &code->kernels[i];
        must(k->entry >= code->text_at && k->entry - code->text_at < code->text_size);
        must(strlen(k->name) < 1 << 20);
        must(k->explicit_args <= k->arg_count);
        const char *file;
        uint32_t line;
        for (uint64_t at = k->entry; at < k->entry + 64; at += 4)
            must(!vl_code_line(code, at, &file, &line) || (line && strlen(file) < 1 << 20));
        for (uint32_t a = 0; a < k->arg_count; a++)
            must(k->args[a].offset + k->args[a].size <= k->kernarg_size);
    }
    for (size_t i = 0; i < code->variable_count; i++)
        must(code->variables[i].at + code->variables[i].size <= code->span);
    if (code->span > 1 << 20) /* an image may be large; the fuzzer's memory is not */
        return;
    void *image = calloc(1, code->span);
    must(image != NULL);
    vl_code_place(code, image, 0x700000000000);
    free(image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char why[VL_WHY] = "";
    bool wrong;
    size_t picked;
    const void *elf = vl_image_pick(data, size, "gfx942", &picked, &wrong, why);
    struct vl_code *code = elf ? vl_code_parse(elf, picked, "gfx942", &wrong, why) : NULL;
    must(code || why[0]); /* refused with a reason */
    if (code)
        look(code);
    vl_code_free(code);
    return 0;
}
