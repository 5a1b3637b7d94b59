/* fuzz_config.c: config.json. The input is the file. What is accepted must be usable. */
#include "fuzz.h"

#include <stdlib.h>

#include <moehal-model/config.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mh_config c = MH_INIT(mh_config);
    mh_config_sizes sizes = MH_INIT(mh_config_sizes);
    if (mh_config_parse((const char *)data, size, "config.json", &c))
        return 0;
    volatile double sum = mh_config_softmax_scale(&c) + mh_config_rope_amplitude(&c);
    if (c.qk_rope_head_dim <= 1 << 20) {
        double *inv = malloc((size_t)(c.qk_rope_head_dim / 2) * sizeof(*inv) + 1);
        mh_config_rope_frequencies(&c, inv);
        free(inv);
    }
    if (mh_config_get_sizes(&c, &sizes))
        return 0;
    for (int64_t i = 0; i < c.num_hidden_layers && i < 1000; i++)
        sum += mh_config_is_moe(&c, i);
    return 0;
}
