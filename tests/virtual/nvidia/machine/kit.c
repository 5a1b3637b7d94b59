#include "kit.h"

void kit_open(struct kit *kit, const char *ptx)
{
    memset(kit, 0, sizeof *kit);
    char why[200];
    kit->map = vc_map_create(why);
    assert_non_null(kit->map);
    kit->pool = vg_pool_create(2);
    assert_non_null(kit->pool);
    struct vn_diagnostic d = {0};
    kit->module = vn_module_parse(ptx, strlen(ptx), &d);
    if (!kit->module)
        fail_msg("line %u, column %u: %s", d.line, d.column, d.text);
    uint64_t *addresses = calloc(vn_module_variables(kit->module) + 1, sizeof *addresses);
    for (size_t i = 0; i < vn_module_variables(kit->module); i++) {
        const struct vn_variable *v = vn_module_variable(kit->module, i);
        struct vc_alloc_info info = {.bytes = v->size ? v->size : 1,
                                     .align = v->align,
                                     .kind = VC_MODULE,
                                     .access = 1,
                                     .name = v->name};
        addresses[i] = vc_alloc(kit->map, &info);
    }
    kit->image = vn_image_create(kit->module, kit->map, addresses, &d);
    free(addresses);
    if (!kit->image)
        fail_msg("%s", d.text);
    kit->next.checks = VN_CHECK_DEFAULT;
    kit->next.count = true;
}

void kit_close(struct kit *kit)
{
    vn_counters_free(&kit->counters);
    vn_image_destroy(kit->image);
    vn_module_release(kit->module);
    vg_pool_destroy(kit->pool);
    vc_map_destroy(kit->map);
}

uint64_t kit_buffer(struct kit *kit, size_t bytes, const void *contents)
{
    struct vc_alloc_info info = {.bytes = bytes, .align = 256, .kind = VC_GLOBAL, .access = 1};
    uint64_t at = vc_alloc(kit->map, &info);
    assert_true(at != 0);
    if (contents) {
        memcpy(kit_host(at), contents, bytes);
        vc_mark(kit->map, at, bytes);
    }
    return at;
}

static void on_report(void *context, const struct vc_finding *f)
{
    struct kit *kit = context;
    if (kit->finding_count == 16)
        return;
    struct kit_finding *k = &kit->findings[kit->finding_count++];
    snprintf(k->check, sizeof k->check, "%s", f->check);
    snprintf(k->text, sizeof k->text, "%s", f->text);
    k->line = f->code_line;
    k->other_line = f->other_code_line;
    k->block = f->block[0];
    k->thread = f->thread[0];
    k->address = f->address;
}

static void on_print(void *context, const char *text, size_t size)
{
    struct kit *kit = context;
    if (size > sizeof kit->printed - 1 - kit->printed_size)
        size = sizeof kit->printed - 1 - kit->printed_size;
    memcpy(kit->printed + kit->printed_size, text, size);
    kit->printed_size += size;
}

enum vn_status kit_run(struct kit *kit, const char *kernel, uint32_t grid, uint32_t block,
                       unsigned count, const uint64_t *arguments)
{
    struct vn_launch l = kit->next;
    const struct vn_function *f = NULL;
    for (size_t i = 0; i < vn_module_functions(kit->module); i++) {
        if (!strcmp(vn_module_function(kit->module, i)->name, kernel)) {
            f = vn_module_function(kit->module, i);
            l.function = i;
        }
    }
    assert_non_null(f);
    assert_int_equal(f->param_count, count);
    uint8_t params[4096] = {0};
    for (unsigned i = 0; i < count; i++)
        memcpy(params + f->params[i].offset, &arguments[i],
               f->params[i].size < 8 ? f->params[i].size : 8);
    l.image = kit->image;
    l.grid[0] = grid;
    l.block[0] = block;
    for (int i = 1; i < 3; i++) {
        l.grid[i] += !l.grid[i];
        l.block[i] += !l.block[i];
    }
    l.params = params;
    l.map = kit->map;
    l.pool = kit->pool;
    l.sm_count = 4;
    l.sinks.context = kit;
    l.sinks.report = on_report;
    l.sinks.print = on_print;
    kit->finding_count = 0;
    kit->printed_size = 0;
    memset(kit->printed, 0, sizeof kit->printed);
    vn_counters_free(&kit->counters);
    return vn_execute(&l, &kit->counters);
}

const struct kit_finding *kit_found(const struct kit *kit, const char *check)
{
    for (unsigned i = 0; i < kit->finding_count; i++) {
        if (!strcmp(kit->findings[i].check, check))
            return &kit->findings[i];
    }
    return NULL;
}

uint32_t kit_line(const char *text, const char *mark)
{
    const char *at = strstr(text, mark);
    assert_non_null(at);
    uint32_t line = 1;
    for (const char *p = text; p < at; p++)
        line += *p == '\n';
    return line;
}
