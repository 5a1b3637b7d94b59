/* ops_route.c: the choice of experts and of tokens. */
#include "plan.h"

/* ---- without a kernel yet ---- */

PLAN_OP(router)
{
    (void)o, (void)l;
    return NO_KERNEL;
}

PLAN_OP(router_linear)
{
    (void)o, (void)l;
    return NO_KERNEL;
}

PLAN_OP(norm_router)
{
    (void)o, (void)l;
    return NO_KERNEL;
}

PLAN_OP(argmax)
{
    (void)o, (void)l;
    return NO_KERNEL;
}

PLAN_OP(sample)
{
    (void)o, (void)l;
    return NO_KERNEL;
}
