#include "core.h"
const struct core_case core_memory[] = {{0}}, core_weights[] = {{0}}, core_streams[] = {{0}},
                       core_graphs[] = {{0}}, core_faults[] = {{0}}, core_models[] = {{0}},
                       core_vectors[] = {{0}};
