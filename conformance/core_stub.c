#include "core.h"
const struct core_case core_graphs[] = {{0}}, core_faults[] = {{0}}, core_models[] = {{0}},
                       core_vectors[] = {{0}};
