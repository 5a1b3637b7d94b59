/* seeds.h: devices of either vendor under schedules: one seed, one run. Before it: DEVICES;
 * INSTRUCTIONS, the name of a counter; clear and wait_for_all; send_and_take, which launches the
 * kernels that meet over a buffer for the nth time. */
static uint64_t instructions(void)
{
    uint64_t value, all = 0;
    for (int d = 0; d < DEVICES; d++) {
        assert_int_equal(moehal_virtual_counter(d, INSTRUCTIONS, &value), 0);
        all = all * 1000003 + value;
        assert_int_equal(moehal_virtual_counters_reset(d), 0);
    }
    return all;
}

/* How often devices looked at flags in vain depends on who went on when. */
static uint64_t run_once(const char *order)
{
    clear();
    assert_int_equal(moehal_virtual_set("schedule", order), 0);
    instructions();
    for (uint32_t n = 1; n <= 6; n++)
        send_and_take(n);
    wait_for_all();
    assert_int_equal(moehal_virtual_report_count(), 0);
    return instructions();
}

static void try_seeds(void)
{
    static const char *const orders[] = {"round-robin", "random:1",      "random:2",
                                         "random:3",    "adversarial:1", "adversarial:2"};
    enum { ORDERS = sizeof orders / sizeof orders[0] };
    uint64_t found[ORDERS];
    for (int i = 0; i < ORDERS; i++) {
        found[i] = run_once(orders[i]);
        for (int again = 0; again < 3; again++)
            assert_int_equal(run_once(orders[i]), found[i]);
        for (int other = 0; other < i; other++)
            assert_int_not_equal(found[i], found[other]);
    }
}

static void schedule(int i)
{
    char text[40] = "round-robin";
    if (i)
        snprintf(text, sizeof text, "%s:%d", i % 2 ? "random" : "adversarial", i);
    assert_int_equal(moehal_virtual_set("schedule", text), 0);
}
