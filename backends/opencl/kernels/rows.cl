/*
 * rows.cl: add, swiglu, rmsnorm, combine: ops that go along rows. Numerics rules 5, 6 and 9.
 * Groups: add and swiglu (blocks of ROW_BLOCK columns, rows); rmsnorm (rows); combine (blocks, rows).
 * Local memory: 256 bytes at most. In place where op.h allows it: a lane reads what it writes.
 */
#define ROW_BLOCK 1024

KERNEL void add(TENSOR(float, y), TENSOR(const float, a), TENSOR(const float, b), const long size)
{
    long t = get_group_id(1), begin = (long)get_group_id(0) * ROW_BLOCK;
    long end = min(begin + ROW_BLOCK, size);
    global float *to = ROW1(y, t);
    global const float *left = ROW1(a, t), *right = ROW1(b, t);
    for (long i = begin + LANE; i < end; i += LANES)
        to[i] = left[i] + right[i];
}

KERNEL void swiglu(TENSOR(float, y), TENSOR(const float, gate), TENSOR(const float, up),
                   const long size)
{
    long t = get_group_id(1), begin = (long)get_group_id(0) * ROW_BLOCK;
    long end = min(begin + ROW_BLOCK, size);
    global float *to = ROW1(y, t);
    global const float *g = ROW1(gate, t), *u = ROW1(up, t);
    for (long i = begin + LANE; i < end; i += LANES)
        to[i] = swiglu_of(g[i], u[i]);
}

/* A lane's elements are its stripe's: what it adds up is what it has written itself. */
KERNEL void rmsnorm(TENSOR(float, y), TENSOR(const float, x), TENSOR(const float, w),
                    TENSOR(const float, residual), TENSOR(float, sum), const int has_residual,
                    const long size, const float inverse, const float eps)
{
    local float stripes[STRIPES];
    long t = get_group_id(0);
    global const float *from = ROW1(x, t), *weight = ROW1(w, 0);
    global float *to = ROW1(y, t);
    if (has_residual) {
        global const float *more = ROW1(residual, t);
        global float *total = ROW1(sum, t);
        for (long i = LANE; i < size; i += LANES)
            total[i] = from[i] + more[i];
        from = total;
    }
    float mean = group_dot(from, from, size, stripes) * inverse;
    float r = RCP(SQRT(mean + eps));
    for (long i = LANE; i < size; i += LANES) {
        float scaled = from[i] * r;
        to[i] = scaled * weight[i];
    }
}

KERNEL void combine(TENSOR(float, y), TENSOR(const float, h), TENSOR(const float, e),
                    TENSOR(const float, weights), TENSOR(const float, shared),
                    const int has_shared, TENSOR(const int, experts), const int has_experts,
                    TENSOR(const int, map), const int has_map, global uint *fault,
                    const long fault_at, const long size, const long slots, const long count,
                    const long resident)
{
    long t = get_group_id(1), begin = (long)get_group_id(0) * ROW_BLOCK;
    long end = min(begin + ROW_BLOCK, size);
    if (has_experts)
        COLD for (long j = 0; j < slots; j++)
            if (expert_slot(map, map_view, has_map, count, resident,
                            *ROW2(experts, t, j)) < 0) {
                raise_fault(fault + fault_at);
                return;
            }
    global const float *more = ROW1(shared, t), *weight = ROW1(weights, t), *residual = ROW1(h, t);
    global float *to = ROW1(y, t);
    COLD for (long i = begin + LANE; i < end; i += LANES) {
        float acc = has_shared ? more[i] : 0.0f;
        COLD for (long j = 0; j < slots; j++)
            acc = fma(weight[j], ROW2(e, t, j)[i], acc);
        to[i] = residual[i] + acc;
    }
}
