/* metadata.c: the note of a code object that says what its kernels need: a MessagePack map, as
 * LLVM's AMDGPU usage guide describes it for code objects of versions 3 and up. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loader.h"
#include "msgpack.h"

enum { MAX_KERNELS = 1 << 16, MAX_ARGS = 4096, MAX_KERNARG = 1 << 20 };

bool vl_say(char why[static VL_WHY], const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, VL_WHY, format, arguments);
    va_end(arguments);
    return false;
}

char *vl_text(const char *bytes, size_t n)
{
    if (memchr(bytes, 0, n))
        return NULL;
    char *text = malloc(n + 1);
    if (!text)
        return NULL;
    memcpy(text, bytes, n);
    text[n] = 0;
    return text;
}

static const struct {
    const char *word;
    enum vl_arg_kind kind;
    uint32_t size; /* 0: any */
} kinds[] = {
    {"by_value", VL_ARG_BY_VALUE, 0},
    {"global_buffer", VL_ARG_POINTER, 8},
    {"dynamic_shared_pointer", VL_ARG_DYNAMIC_LDS, 4},
    {"hidden_none", VL_ARG_NONE, 0},
    {"hidden_global_offset_x", VL_ARG_GLOBAL_OFFSET_X, 8},
    {"hidden_global_offset_y", VL_ARG_GLOBAL_OFFSET_Y, 8},
    {"hidden_global_offset_z", VL_ARG_GLOBAL_OFFSET_Z, 8},
    {"hidden_block_count_x", VL_ARG_BLOCK_COUNT_X, 4},
    {"hidden_block_count_y", VL_ARG_BLOCK_COUNT_Y, 4},
    {"hidden_block_count_z", VL_ARG_BLOCK_COUNT_Z, 4},
    {"hidden_group_size_x", VL_ARG_GROUP_SIZE_X, 2},
    {"hidden_group_size_y", VL_ARG_GROUP_SIZE_Y, 2},
    {"hidden_group_size_z", VL_ARG_GROUP_SIZE_Z, 2},
    {"hidden_remainder_x", VL_ARG_REMAINDER_X, 2},
    {"hidden_remainder_y", VL_ARG_REMAINDER_Y, 2},
    {"hidden_remainder_z", VL_ARG_REMAINDER_Z, 2},
    {"hidden_grid_dims", VL_ARG_GRID_DIMS, 2},
    {"hidden_dynamic_lds_size", VL_ARG_DYNAMIC_LDS_SIZE, 4},
    {"hidden_private_base", VL_ARG_PRIVATE_BASE, 4},
    {"hidden_shared_base", VL_ARG_SHARED_BASE, 4},
    {"hidden_queue_ptr", VL_ARG_QUEUE, 8},
    {"hidden_multigrid_sync_arg", VL_ARG_MULTIGRID_SYNC, 8},
    /* What -O0 lists although nothing uses it is passed as zero; a kernel that does use it faults.
     */
    {"hidden_printf_buffer", VL_ARG_REFUSED, 8},
    {"hidden_hostcall_buffer", VL_ARG_REFUSED, 8},
    {"hidden_heap_v1", VL_ARG_REFUSED, 8},
    {"hidden_default_queue", VL_ARG_REFUSED, 8},
    {"hidden_completion_action", VL_ARG_REFUSED, 8},
    {"sampler", VL_ARG_REFUSED, 8},
    {"image", VL_ARG_REFUSED, 8},
    {"pipe", VL_ARG_REFUSED, 8},
    {"queue", VL_ARG_REFUSED, 8},
};

static bool set_kind(struct vl_arg *arg, const struct vl_item *word, char why[static VL_WHY])
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (vl_item_is(word, kinds[i].word)) {
            arg->kind = kinds[i].kind;
            arg->refused = arg->kind == VL_ARG_REFUSED ? kinds[i].word : NULL;
            if (kinds[i].size && arg->size != kinds[i].size)
                return vl_say(why, "metadata: an argument %s has %u bytes, not %u", kinds[i].word,
                              arg->size, kinds[i].size);
            return true;
        }
    return vl_say(why, "metadata: .value_kind %.*s is unknown", (int)(word->count & 63),
                  word->bytes);
}

/* An unsigned number of at most `most`. */
static uint32_t number(struct vl_pack *pack, uint32_t most)
{
    struct vl_item item = vl_pack_expect(pack, VL_PACK_UNSIGNED, "a number is expected");
    if (item.type == VL_PACK_UNSIGNED && item.value > most)
        pack->failed = "a number is beyond its limit";
    return pack->failed ? 0 : (uint32_t)item.value;
}

static bool read_arg(struct vl_pack *pack, struct vl_arg *arg, char why[static VL_WHY])
{
    struct vl_item kind = {0};
    struct vl_item map = vl_pack_expect(pack, VL_PACK_MAP, "an argument is no map");
    for (uint32_t i = 0; i < map.count && !pack->failed; i++) {
        struct vl_item key = vl_pack_expect(pack, VL_PACK_STRING, "a key is no string");
        if (vl_item_is(&key, ".offset"))
            arg->offset = number(pack, MAX_KERNARG);
        else if (vl_item_is(&key, ".size"))
            arg->size = number(pack, MAX_KERNARG);
        else if (vl_item_is(&key, ".value_kind"))
            kind = vl_pack_expect(pack, VL_PACK_STRING, ".value_kind is no string");
        else
            vl_pack_skip(pack);
    }
    if (pack->failed)
        return false;
    if (!kind.bytes)
        return vl_say(why, "metadata: an argument has no .value_kind");
    return set_kind(arg, &kind, why);
}

static int by_offset(const void *a, const void *b)
{
    const struct vl_arg *x = a, *y = b;
    bool hidden_x = x->kind >= VL_ARG_FIRST_HIDDEN, hidden_y = y->kind >= VL_ARG_FIRST_HIDDEN;
    if (hidden_x != hidden_y)
        return hidden_x - hidden_y;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static bool is_hidden(const struct vl_arg *arg)
{
    return arg->kind >= VL_ARG_FIRST_HIDDEN &&
           !(arg->refused && strncmp(arg->refused, "hidden_", 7));
}

static bool read_args(struct vl_pack *pack, struct vl_kernel *kernel, struct vl_arg **out,
                      char why[static VL_WHY])
{
    struct vl_item list = vl_pack_expect(pack, VL_PACK_ARRAY, ".args is no array");
    if (*out || list.count > MAX_ARGS)
        return vl_say(why, "metadata: .args twice, or more than %d arguments", MAX_ARGS);
    struct vl_arg *args = calloc(list.count ? list.count : 1, sizeof *args);
    if (!args)
        return vl_say(why, "out of memory");
    *out = args;
    kernel->args = args;
    kernel->arg_count = list.count;
    for (uint32_t i = 0; i < list.count; i++)
        if (!read_arg(pack, &args[i], why))
            return false;
    qsort(args, list.count, sizeof *args, by_offset);
    for (uint32_t i = 0; i < list.count; i++) {
        if (is_hidden(&args[i]))
            continue;
        if (args[i].refused)
            return vl_say(why, "metadata: arguments of kind %s are not supported", args[i].refused);
        uint32_t end = args[i].offset + args[i].size;
        kernel->explicit_args = i + 1;
        kernel->explicit_bytes = end > kernel->explicit_bytes ? end : kernel->explicit_bytes;
    }
    return true;
}

static void read_required(struct vl_pack *pack, struct vl_kernel *kernel)
{
    struct vl_item list = vl_pack_expect(pack, VL_PACK_ARRAY, ".reqd_workgroup_size is no array");
    if (!pack->failed && list.count != 3)
        pack->failed = ".reqd_workgroup_size has not three numbers";
    for (int i = 0; i < 3; i++)
        kernel->required[i] = number(pack, 1024);
}

static bool read_value(struct vl_pack *pack, const struct vl_item *key, struct vl_kernel *kernel,
                       struct vl_arg **args, struct vl_item *name, struct vl_item *symbol,
                       char why[static VL_WHY])
{
    if (vl_item_is(key, ".name"))
        *name = vl_pack_expect(pack, VL_PACK_STRING, ".name is no string");
    else if (vl_item_is(key, ".symbol"))
        *symbol = vl_pack_expect(pack, VL_PACK_STRING, ".symbol is no string");
    else if (vl_item_is(key, ".args"))
        return read_args(pack, kernel, args, why);
    else if (vl_item_is(key, ".kernarg_segment_size"))
        kernel->kernarg_size = number(pack, MAX_KERNARG);
    else if (vl_item_is(key, ".kernarg_segment_align"))
        kernel->kernarg_align = number(pack, 4096);
    else if (vl_item_is(key, ".vgpr_count"))
        kernel->vgprs = number(pack, 512);
    else if (vl_item_is(key, ".agpr_count"))
        kernel->agprs = number(pack, 512);
    else if (vl_item_is(key, ".sgpr_count"))
        kernel->sgprs = number(pack, 512);
    else if (vl_item_is(key, ".max_flat_workgroup_size"))
        kernel->max_threads = number(pack, 1024);
    else if (vl_item_is(key, ".reqd_workgroup_size"))
        read_required(pack, kernel);
    else if (vl_item_is(key, ".uses_dynamic_stack"))
        kernel->dynamic_stack =
            vl_pack_expect(pack, VL_PACK_BOOL, ".uses_dynamic_stack is no boolean").value != 0;
    else if (vl_item_is(key, ".wavefront_size")) {
        if (number(pack, 64) != 64 && !pack->failed)
            return vl_say(why, "metadata: a kernel has waves of 32, the device's are of 64");
    } else
        vl_pack_skip(pack);
    return true;
}

static bool read_kernel(struct vl_pack *pack, struct vl_code *code, char **symbol_out,
                        char why[static VL_WHY])
{
    struct vl_kernel *kernel = &code->p->kernels[code->kernel_count];
    struct vl_item name = {0}, symbol = {0};
    struct vl_item map = vl_pack_expect(pack, VL_PACK_MAP, "a kernel is no map");
    kernel->max_threads = 1024;
    code->kernel_count++;
    for (uint32_t i = 0; i < map.count && !pack->failed; i++) {
        struct vl_item key = vl_pack_expect(pack, VL_PACK_STRING, "a key is no string");
        if (!pack->failed && !read_value(pack, &key, kernel, &code->p->args[code->kernel_count - 1],
                                         &name, &symbol, why))
            return false;
    }
    if (pack->failed)
        return false;
    if (!name.bytes || !symbol.bytes)
        return vl_say(why, "metadata: a kernel has no .name or no .symbol");
    kernel->name = vl_text(name.bytes, name.count);
    *symbol_out = vl_text(symbol.bytes, symbol.count);
    if (!kernel->name || !*symbol_out)
        return vl_say(why, "metadata: a kernel's name has a NUL in it, or there is no memory");
    for (uint32_t i = 0; i < kernel->arg_count; i++)
        if ((uint64_t)kernel->args[i].offset + kernel->args[i].size > kernel->kernarg_size)
            return vl_say(why, "metadata: kernel %.100s: argument %u ends at byte %u of %u",
                          kernel->name, i, kernel->args[i].offset + kernel->args[i].size,
                          kernel->kernarg_size);
    return true;
}

static bool read_kernels(struct vl_pack *pack, struct vl_code *code, char ***symbols,
                         char why[static VL_WHY])
{
    struct vl_item list = vl_pack_expect(pack, VL_PACK_ARRAY, "amdhsa.kernels is no array");
    if (pack->failed)
        return false;
    if (code->p->kernels || list.count > MAX_KERNELS)
        return vl_say(why, "metadata: amdhsa.kernels twice, or more than %d kernels", MAX_KERNELS);
    size_t room = list.count ? list.count : 1;
    code->p->kernels = calloc(room, sizeof code->p->kernels[0]);
    code->p->args = calloc(room, sizeof code->p->args[0]);
    *symbols = calloc(room, sizeof **symbols);
    if (!code->p->kernels || !code->p->args || !*symbols)
        return vl_say(why, "out of memory");
    code->p->kernel_room = room;
    code->kernels = code->p->kernels;
    for (uint32_t i = 0; i < list.count; i++)
        if (!read_kernel(pack, code, &(*symbols)[i], why))
            return false;
    return true;
}

bool vl_metadata_read(struct vl_code *code, const uint8_t *bytes, size_t size, char ***symbols,
                      char why[static VL_WHY])
{
    struct vl_pack pack = {.at = bytes, .end = bytes + size};
    struct vl_item map = vl_pack_expect(&pack, VL_PACK_MAP, "it is no map");
    bool fine = true;
    for (uint32_t i = 0; i < map.count && !pack.failed && fine; i++) {
        struct vl_item key = vl_pack_expect(&pack, VL_PACK_STRING, "a key is no string");
        if (vl_item_is(&key, "amdhsa.kernels"))
            fine = read_kernels(&pack, code, symbols, why);
        else
            vl_pack_skip(&pack);
    }
    if (pack.failed)
        return vl_say(why, "metadata: %s", pack.failed);
    return fine;
}
