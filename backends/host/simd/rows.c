/* rows.c: what goes value by value, LANES at a time. */
#include "../kernels.h"
#include "simd.h"

/* Rule 5: silu(gate) * up. */
static inline vf v_swiglu(vf gate, vf up)
{
    vf z = v_cast(v_xor(v_bits(gate), v_set1i((int)0x80000000)));
    z = v_where_less(v_set1(87), z, v_set1(87), z);
    vf sigmoid = v_div(v_set1(1), v_add(v_set1(1), v_exp(z)));
    return v_mul(v_mul(gate, sigmoid), up);
}

void K(swiglu_row)(float *y, const float *gate, const float *up, int64_t count)
{
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        v_store(y + i, v_swiglu(v_load(gate + i), v_load(up + i)));
    for (; i < count; i++)
        y[i] = swiglu(gate[i], up[i]);
}

/* selection_key's, of each lane. */
static inline vi v_keys(vf values)
{
    vi bits = v_bits(values), sign = v_set1i((int)0x80000000);
    vi key = v_xor(bits, v_or(v_sar(bits, 31), sign));
    key = v_where_equal(bits, sign, sign, key);
    return v_where_greater(v_andnot(sign, bits), v_set1i(0x7F800000), v_set1i(0), key);
}

int32_t K(argmax_row)(const float *logits, int64_t count)
{
    enum { BLOCK = 1024 };
    uint32_t most = 0;
    int64_t best = 0; /* the first block that has it */
    for (int64_t from = 0; from < count; from += BLOCK) {
        int64_t i = from, end = count - from < BLOCK ? count : from + BLOCK;
        vi keys = v_set1i(0);
        uint32_t lanes[LANES], here = 0;
        for (; i + LANES <= end; i += LANES)
            keys = v_max_unsigned(keys, v_keys(v_load(logits + i)));
        memcpy(lanes, &keys, sizeof(lanes));
        for (int j = 0; j < LANES; j++)
            here = lanes[j] > here ? lanes[j] : here;
        for (; i < end; i++)
            here = selection_key(logits[i]) > here ? selection_key(logits[i]) : here;
        if (here > most)
            most = here, best = from;
    }
    while (selection_key(logits[best]) != most)
        best++;
    return (int32_t)best;
}
