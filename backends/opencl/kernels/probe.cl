/*
 * probe.cl: what this device's arithmetic really does, since flags only say what is fast. A row of
 * `in` is three floats, of `out` eight results; the host knows the right ones. One work-item a row.
 */
KERNEL void probe(global const float *in, global float *out, const int rows)
{
    for (int row = (int)get_group_id(0) * LANES + LANE; row < rows;
         row += (int)get_num_groups(0) * LANES) {
        float a = in[3 * row], b = in[3 * row + 1], c = in[3 * row + 2];
        global float *to = out + 8 * row;
        float product = a * b;
        to[0] = product;
        to[1] = a + b;
        to[2] = fma(a, b, c);
        to[3] = a * b + c; /* two roundings, or the compiler contracts */
        to[4] = 1.0f / a;
        to[5] = sqrt(a);
        to[6] = soft_rcp(a);
        to[7] = soft_sqrt(a);
    }
}
