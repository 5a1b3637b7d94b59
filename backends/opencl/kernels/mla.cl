/*
 * mla.cl: rope, kv_write and mla_kv: what lies around attention. Numerics rules 1, 6 and 7.
 * Groups: rows (tokens). Local memory: 256 bytes. The cache's dtype is an argument; page and row
 * strides of its view are in elements.
 */

/* A row of the paged cache. */
typedef struct {
    long at;   /* element */
    int found; /* 1; 0: there is no such row; -1: padding */
} cache_place;

/* Where (slot, position) lies. The load's place is inside the table whatever they are, and comes
 * before every condition: Intel's CPU compiler moves loads out of conditions. */
APART cache_place find_row(const long4 cache_view, const long pages, const long page_size,
                           global const int *table, const long4 table_view, const long slots,
                           const long slot_pages, int slot, int position)
{
    long row = clamp((long)slot, 0l, slots - 1), column = position / page_size;
    int page = table[table_view.s0 + row * table_view.s1 +
                     clamp(column, 0l, slot_pages - 1) * table_view.s2];
    int there = slot >= 0 && slot < slots && position >= 0 && column < slot_pages && page >= 0 &&
                page < pages;
    cache_place p = {0, slot == -1 ? -1 : there};
    if (there)
        p.at = cache_view.s0 + page * cache_view.s1 + position % page_size * cache_view.s2;
    return p;
}

#define CACHE                                                                                      \
    global uchar *cache, const long4 cache_view, const int is_bf16, const long pages,              \
        const long page_size, TENSOR(const int, table), const long slots, const long slot_pages

void store(global uchar *cache, int is_bf16, long at, float value)
{
    if (is_bf16)
        ((global ushort *)cache)[at] = to_bf16(value);
    else
        ((global float *)cache)[at] = value;
}

APART void store_row(global uchar *cache, int is_bf16, long at, global const float *from,
                     long count)
{
    for (long i = LANE; i < count; i += LANES)
        store(cache, is_bf16, at + i, from[i]);
}

/* Rule 7: one pair. */
float2 rotate_pair(float2 x, float c, float s)
{
    float a = x.y * s, b = x.y * c;
    return (float2)(fma(x.x, c, -a), fma(x.x, s, b));
}

KERNEL void rope(TENSOR(float, y), TENSOR(const float, x), TENSOR(const float, angles),
                 TENSOR(const int, positions), global uint *fault, const long fault_at,
                 const long heads, const long size, const long rows)
{
    long t = get_group_id(0), half_size = size / 2;
    int position = *ROW1(positions, t);
    if (position < 0 || position >= rows) {
        raise_fault(fault + fault_at);
        return;
    }
    global const float *cosines = ROW1(angles, position), *sines = cosines + half_size;
    for (long i = LANE; i < heads * half_size; i += LANES) {
        long h = i / half_size, pair = i % half_size;
        global const float *from = ROW2(x, t, h) + 2 * pair;
        global float *to = ROW2(y, t, h) + 2 * pair;
        float2 turned = rotate_pair((float2)(from[0], from[1]), cosines[pair], sines[pair]);
        to[0] = turned.x;
        to[1] = turned.y;
    }
}

KERNEL void kv_write(CACHE, TENSOR(const float, latent), TENSOR(const float, rotary),
                     TENSOR(const int, positions), TENSOR(const int, owners), global uint *fault,
                     const long fault_at, const long latent_size, const long rotary_size)
{
    long t = get_group_id(0);
    int position = *ROW1(positions, t);
    cache_place place = find_row(cache_view, pages, page_size, table, table_view, slots, slot_pages,
                                 *ROW1(owners, t), position);
    if (place.found == 0)
        raise_fault(fault + fault_at);
    if (place.found != 1)
        return;
    store_row(cache, is_bf16, place.at, ROW1(latent, t), latent_size);
    store_row(cache, is_bf16, place.at + latent_size, ROW1(rotary, t), rotary_size);
}

/* The latent times r times its weight. */
APART void store_scaled(global uchar *cache, int is_bf16, long at, global const float *from,
                        float r, global const float *weight, long count)
{
    for (long i = LANE; i < count; i += LANES) {
        float scaled = from[i] * r;
        store(cache, is_bf16, at + i, scaled * weight[i]);
    }
}

APART void store_rotated(global uchar *cache, int is_bf16, long at, global const float *from,
                         global const float *cosines, long half_size)
{
    global const float *sines = cosines + half_size;
    for (long i = LANE; i < half_size; i += LANES) {
        float2 turned = rotate_pair((float2)(from[2 * i], from[2 * i + 1]), cosines[i], sines[i]);
        store(cache, is_bf16, at + 2 * i, turned.x);
        store(cache, is_bf16, at + 2 * i + 1, turned.y);
    }
}

KERNEL void mla_kv(CACHE, TENSOR(const float, kv), TENSOR(const float, norm),
                   TENSOR(const float, angles), TENSOR(const int, positions),
                   TENSOR(const int, owners), global uint *fault, const long fault_at,
                   const long latent_size, const long rotary_size, const long rows,
                   const float inverse, const float eps)
{
    local float stripes[STRIPES];
    long t = get_group_id(0);
    int position = *ROW1(positions, t);
    cache_place place = find_row(cache_view, pages, page_size, table, table_view, slots, slot_pages,
                                 *ROW1(owners, t), position);
    if (position < 0 || position >= rows)
        place.found = 0;
    if (place.found == 0)
        raise_fault(fault + fault_at);
    if (place.found != 1)
        return;
    global const float *from = ROW1(kv, t), *weight = ROW1(norm, 0);
    float mean = group_dot(from, from, latent_size, stripes) * inverse;
    float r = RCP(SQRT(mean + eps));
    store_scaled(cache, is_bf16, place.at, from, r, weight, latent_size);
    store_rotated(cache, is_bf16, place.at + latent_size, from + latent_size,
                  ROW1(angles, position), rotary_size / 2);
}
