/* forms.h: which instructions a device uses. */
#ifndef HOST_FORMS_H
#define HOST_FORMS_H

#include "kernels.h"

struct host_form {
    const char *name;
    const host_kernel *kernels;   /* by op id */
    const struct host_fast *fast; /* NULL: the fast profile runs the exact kernels */
};

/* The best the processor has, or what MOEHAL_HOST_ISA and MOEHAL_HOST_FAST ask for. */
mh_status host_choose_form(const mh_core *core, struct host_form *out);

#endif
