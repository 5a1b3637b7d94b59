/* One mistake a kernel (kernels/bugs.s): what is said of it, at which instruction, and how the
 * launch ends. Those with a wait too few also give wrong data. */
#include "machine_test.h"

static const char *folder;

struct bug {
    const char *kernel;
    uint32_t lanes;
    enum va_status status;
    const char *check, *insn; /* NULL: nothing is said */
    bool wrong;               /* the output is not twice the input */
};

static const struct bug bugs[] = {
    {"fine", 128, VA_OK, NULL, NULL, false},
    {"wait_vm", 64, VA_OK, "missing-wait", "v_add_f32_e32 v3, v2, v2", true},
    {"wait_scalar", 64, VA_OK, "missing-wait", "v_mov_b32_e32 v3, s10", true},
    {"wait_lds", 64, VA_OK, "missing-wait", "v_add_f32_e32 v3, v3, v3", true},
    {"wait_count", 64, VA_OK, "missing-wait", "v_add_f32_e32 v3, v3, v2", true},
    {"wait_stored", 64, VA_OK, "missing-wait", "global_store_dword v1, v2, s[6:7]", true},
    {"wait_order", 64, VA_OK, "missing-wait", "v_mov_b32_e32 v3, s10", true},
    {"wait_address", 64, VA_ILLEGAL_ADDRESS, "missing-wait", "global_load_dword v4, v[2:3], off",
     true},
    {"wait_into_lds", 64, VA_OK, NULL, NULL, true},
    {"wait_overwritten", 64, VA_OK, "missing-wait", "v_mov_b32_e32 v2, 0", true},
    {"bounds_load", 64, VA_ILLEGAL_ADDRESS, "out-of-bounds", "global_load_dword v2", false},
    {"bounds_store", 64, VA_ILLEGAL_ADDRESS, "out-of-bounds", "global_store_dword v1, v2", false},
    {"bounds_null", 64, VA_ILLEGAL_ADDRESS, "out-of-bounds", "global_store_dword v[2:3], v1, off",
     false},
    {"bounds_freed", 64, VA_ILLEGAL_ADDRESS, "out-of-bounds", "global_store_dword v1, v2, s[8:9]",
     false},
    {"bounds_scalar", 64, VA_ILLEGAL_ADDRESS, "out-of-bounds", "s_load_dwordx4 s[12:15]", false},
    {"bounds_lds", 64, VA_ILLEGAL_ADDRESS, "lds-out-of-bounds", "ds_write_b32 v1, v2", false},
    {"bounds_scratch", 64, VA_STACK, "scratch", "scratch_store_dword off, v2, off offset:16",
     false},
    {"bounds_scratch_flat", 64, VA_STACK, "scratch", "flat_store_dword v[2:3], v1", false},
    {"misaligned", 64, VA_MISALIGNED_ADDRESS, "misaligned", "global_atomic_add v1, v2", false},
    {"unwritten_memory", 64, VA_OK, "uninitialised", "global_load_dword v2, v1, s[6:7] offset:1024",
     false},
    {"unwritten_lds", 64, VA_OK, "uninitialised-lds", "ds_read_b32 v2, v1 offset:256", false},
    {"unwritten_address", 64, VA_ILLEGAL_ADDRESS, "uninitialised-register",
     "global_load_dword v2, v20", false},
    {"unwritten_stored", 64, VA_OK, "uninitialised-register", "global_store_dword v1, v3, s[6:7]",
     false},
    {"unwritten_compared", 64, VA_OK, "uninitialised-register", "v_cmp_gt_u32_e32 vcc, v4, v1",
     false},
    {"unwritten_scalar", 64, VA_ILLEGAL_ADDRESS, "uninitialised-register",
     "s_load_dword s10, s[14:15]", false},
    {"unwritten_lane", 64, VA_OK, "uninitialised-register", "global_store_dword v1, v3, s[6:7]",
     false},
    {"relative_written", 64, VA_OK, NULL, NULL, false}, /* one that s_set_gpr_idx_on has moved */
    {"unwritten_relative", 64, VA_OK, "uninitialised-register", "global_store_dword v1, v3, s[6:7]",
     false},
    {"race_read", 128, VA_OK, "lds-race", "ds_", false},
    {"race_write", 128, VA_OK, "lds-race", "ds_write_b32 v3, v2", false},
    {"barriers", 128, VA_OK, "divergent-barrier", "s_barrier", false},
    {"not_implemented", 64, VA_ILLEGAL_INSTRUCTION, "instruction", "v_smfmac_f32_16x16x32_f16",
     false},
    {"not_an_instruction", 64, VA_ILLEGAL_INSTRUCTION, "instruction", ".long 0xffffffff", false},
    {"register_v", 64, VA_REGISTER, "register", "v_mov_b32_e32 v40, 0", false},
    {"register_a", 64, VA_REGISTER, "register", "v_accvgpr_write_b32 a8, v1", false},
    {"jump", 64, VA_INVALID_PC, "invalid-pc", "s_setpc_b64 s[10:11]", false},
    {"trap", 64, VA_TRAP, "trap", "s_trap 2", false},
};

static void check(struct device *d, const struct bug *bug)
{
    float in[512], out[512] = {0};
    for (int i = 0; i < 512; i++)
        in[i] = (float)i + 1;
    uint64_t freed = device_alloc(d, 4096);
    vc_free(d->map, freed);
    uint64_t args[3] = {device_upload(d, in, 2048), device_alloc(d, 2048), freed};
    enum va_status status = device_run(d, bug->kernel, 1, bug->lanes, args, sizeof args);
    bool said = bug->check ? d->findings && !strcmp(d->check, bug->check) : !d->findings;
    if (status != bug->status || !said || (bug->insn && !strstr(d->text, bug->insn)))
        fail_msg("%s: status %d, %u findings, %s: %s", bug->kernel, status, d->findings, d->check,
                 d->text);
    if (status != VA_OK && !strstr(d->fault.text, bug->kernel))
        fail_msg("%s: fault %s", bug->kernel, d->fault.text);
    memcpy(out, (void *)(uintptr_t)args[1], bug->lanes * 4);
    bool wrong = false;
    for (uint32_t i = 0; i < bug->lanes; i++)
        wrong |= out[i] != 2 * in[i];
    if (bug->wrong != wrong && (bug->wrong || !bug->check))
        fail_msg("%s: the result is %s", bug->kernel, wrong ? "wrong" : "right");
}

static void test_every_bug(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof bugs / sizeof bugs[0]; k++) {
        struct device d = {.checks = VA_CHECK_DEFAULT};
        device_load(&d, folder, "bugs.co");
        check(&d, &bugs[k]);
        device_close(&d);
    }
}

/* Without the checks what hardware cannot see passes, and nothing is said. */
static void test_without_checks(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof bugs / sizeof bugs[0]; k++) {
        if (bugs[k].status != VA_OK)
            continue;
        struct device d = {.checks = 0};
        uint64_t args[3];
        device_load(&d, folder, "bugs.co");
        for (int n = 0; n < 3; n++)
            args[n] = device_alloc(&d, 2048);
        device_run_clean(&d, bugs[k].kernel, 1, bugs[k].lanes, args, sizeof args);
        device_close(&d);
    }
}

static void *stop_it(void *flag)
{
    *(_Atomic bool *)flag = true;
    return NULL;
}

static void test_forever(void **state)
{
    struct device d = {.checks = VA_CHECK_DEFAULT};
    _Atomic bool stop = false;
    (void)state;
    device_load(&d, folder, "bugs.co");
    uint64_t args[3] = {device_alloc(&d, 64), device_alloc(&d, 64), 0};
    d.limit_ms = 20;
    assert_int_equal(device_run(&d, "forever", 1, 64, args, sizeof args), VA_TIMEOUT);
    d.limit_ms = 0;
    stop_it((void *)&stop);
    d.stop = &stop;
    assert_int_equal(device_run(&d, "forever", 1, 64, args, sizeof args), VA_STOPPED);
    d.stop = NULL;
    assert_int_equal(device_run(&d, "fine", 1, 1025, args, sizeof args), VA_INVALID_CONFIGURATION);
    assert_non_null(strstr(d.fault.text, "1025"));
    device_close(&d);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_bug),
                                       cmocka_unit_test(test_without_checks),
                                       cmocka_unit_test(test_forever)};
    folder = argc > 1 ? argv[1] : ".";
    return cmocka_run_group_tests(tests, NULL, NULL);
}
