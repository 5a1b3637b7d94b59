/* The list of op cases: as long as promised, every name a case again, the same for the same seed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "build.h"

struct count {
    uint64_t cases, hash, by_op[64];
    bool check_names;
};

static int visit(void *user, struct conf_case *c)
{
    struct count *count = user;
    struct conf_case again;
    count->cases++;
    count->by_op[c->op]++;
    for (const char *at = c->name; *at; at++)
        count->hash = (count->hash ^ (unsigned char)*at) * 0x100000001B3u;
    if (!count->check_names)
        return 0;
    if (!conf_case_parse(c->name, &again))
        fail_msg("%s is no case by its own name", c->name);
    again.seed = c->seed;
    if (strcmp(again.name, c->name) || memcmp(again.dim, c->dim, sizeof(c->dim)) ||
        again.format != c->format || again.dtype != c->dtype || again.to != c->to)
        fail_msg("%s is another case by its name: %s", c->name, again.name);
    return 0;
}

static void the_list_is_whole(void **unused)
{
    (void)unused;
    struct count first = {.check_names = true}, again = {0}, other = {0}, quick = {0};
    conf_enumerate(1, false, visit, &first);
    conf_enumerate(1, false, visit, &again);
    conf_enumerate(2, false, visit, &other);
    conf_enumerate(1, true, visit, &quick);
    assert_true(first.cases >= 20000);
    assert_true(quick.cases < 3000);
    assert_true(first.hash == again.hash && first.hash != other.hash);
    for (mh_op_id op = 1; mh_op_size(op); op++) {
        assert_true(first.by_op[op] >= 100);
        assert_true(quick.by_op[op] >= 8);
    }
}

/* What a case writes lies inside its buffers, apart from everything else. */
static int check_layout(void *user, struct conf_case *c)
{
    struct conf_build b;
    uint64_t *number = user;
    if ((*number)++ % 3)
        return 0;
    assert_true(conf_build_make(&b, c));
    for (uint32_t i = 0; i < b.operand_count; i++) {
        const struct conf_operand *o = &b.operands[i];
        int64_t last = conf_count(o) - 1;
        bool read_only = !(o->info.flags & MH_OPERAND_WRITTEN) && !conf_is_table(o->info.name);
        uint64_t guard = c->layout == LAYOUT_DENSE && read_only ? 0 : GUARD / 2;
        if (last >= 0 &&
            conf_element(o, last) + mh_dtype_size(o->view.dtype) + guard > b.bytes[o->buffer])
            fail_msg("%s: %s ends beyond its buffer", c->name, o->info.name);
    }
    conf_build_free(&b);
    return 0;
}

/* Sizes survive the way from a case to its op and back. */
static int check_way_back(void *user, struct conf_case *c)
{
    struct conf_build b;
    struct conf_case again;
    union conf_op op;
    mh_weight *weights[BUILD_WEIGHTS] = {0};
    mh_device *device = user;
    bool moves = c->op == MH_OP_COPY || c->op == MH_OP_CAST || c->op == MH_OP_FILL;
    if (moves || c->layout != LAYOUT_DENSE || c->values != VALUES_RANDOM)
        return 0;
    assert_true(conf_build_make(&b, c));
    for (uint32_t i = 0; i < b.weight_count; i++)
        assert_int_equal(conf_weight_create(&b.weights[i], device, false, &weights[i]), MH_OK);
    conf_op_for(&b, NULL, weights, &op);
    if (!conf_case_of_op(&op.base, &again))
        fail_msg("%s: its op has no case", c->name);
    /* Groups that a variant ignores, and experts where there is no map, need not come back. */
    for (const char *l = conf_rule(c->op)->letters; *l; l++)
        if (!strchr("GWES", *l) && again.dim[(unsigned char)*l] != c->dim[(unsigned char)*l])
            fail_msg("%s comes back as %s", c->name, again.name);
    assert_int_equal(again.format, c->format);
    assert_int_equal(again.dtype, c->dtype);
    for (uint32_t i = 0; i < b.weight_count; i++)
        mh_weight_release(weights[i]);
    conf_build_free(&b);
    return 0;
}

static void an_op_has_a_case(void **unused)
{
    mh_runtime *runtime;
    mh_device *device;
    (void)unused;
    assert_int_equal(mh_runtime_create(NULL, &runtime), MH_OK);
    assert_int_equal(mh_device_open(runtime, "host", NULL, &device), MH_OK);
    conf_enumerate(1, true, check_way_back, device);
    mh_device_release(device);
    mh_runtime_release(runtime);
}

static void operands_lie_inside_their_buffers(void **unused)
{
    uint64_t number = 0;
    (void)unused;
    conf_enumerate(3, true, check_layout, &number);
    assert_true(number > 1000);
}

static void names_that_are_none(void **unused)
{
    static const char *const bad[] = {
        "",
        "linear",
        "linear/f32/T1.O1.I1/dense/random",
        "linear/f32/T1.O1.I1/dense/random/plain/more",
        "linear/f32/T1.O1.I0/dense/random/plain",
        "linear/f32/T1.O1.I1x/dense/random/plain",
        "linear/f32/T1.I1.O1/dense/random/plain",
        "linear/f32/T1.O1.I99999999999/dense/random/plain",
        "linear/f32/T-1.O1.I1/dense/random/plain",
        "linear/f64/T1.O1.I1/dense/random/plain",
        "linear/f32/T1.O1.I1/loose/random/plain",
        "linear/f32/T1.O1.I1/dense/odd/plain",
        "linear/f32/T1.O1.I1/dense/random/residual",
        "nothing/f32/T1.O1.I1/dense/random/plain",
        "kv_write/f32/T9.L1.R2.P1.Q1.M1/dense/random/plain", /* nine rows, one place */
    };
    (void)unused;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct conf_case c;
        if (conf_case_parse(bad[i], &c))
            fail_msg("'%s' is taken for a case", bad[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_list_is_whole),
        cmocka_unit_test(an_op_has_a_case),
        cmocka_unit_test(operands_lie_inside_their_buffers),
        cmocka_unit_test(names_that_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
