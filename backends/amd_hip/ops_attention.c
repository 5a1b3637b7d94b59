/* ops_attention.c: rotation, the cache, attention, projections by heads. */
#include "plan.h"

/* ---- without a kernel yet ---- */

PLAN_OP(rope)
{
    (void)o, (void)l;
    return NO_KERNEL;
}

PLAN_OP(kv_write)
{
    (void)o, (void)l;
    return NO_KERNEL;
}

PLAN_OP(mla_kv)
{
    (void)o, (void)l;
    return NO_KERNEL;
}

PLAN_OP(attention)
{
    (void)o, (void)l;
    return NO_KERNEL;
}

PLAN_OP(head_linear)
{
    (void)o, (void)l;
    return NO_KERNEL;
}

PLAN_OP(mla_query)
{
    (void)o, (void)l;
    return NO_KERNEL;
}

PLAN_OP(mla_qkv)
{
    (void)o, (void)l;
    return NO_KERNEL;
}
