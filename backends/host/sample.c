/*
 * sample.c: argmax and sampling, numerics rule 10. Sums are integers, so no order matters but the
 * one the rule names: descending weight, lowest id among equals.
 */
#include "kernels.h"
#include "numerics.h"

void K(argmax)(const struct host_run *run, const mh_op *op)
{
    const mh_op_argmax *o = (const void *)op;
    (void)run;
    for (int64_t t = 0; t < o->logits.shape[0]; t++)
        *(int32_t *)address(&o->y, t) = K(argmax_row)(row1(&o->logits, t), o->logits.shape[1]);
}

/* Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011): two words of the block of (counter, 0). */
static uint64_t philox(uint64_t seed, uint64_t counter)
{
    uint32_t x[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), 0, 0};
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53 * x[0], b = (uint64_t)0xCD9E8D57 * x[2];
        uint32_t y0 = (uint32_t)(b >> 32) ^ x[1] ^ k0, y2 = (uint32_t)(a >> 32) ^ x[3] ^ k1;
        x[0] = y0, x[1] = (uint32_t)b, x[2] = y2, x[3] = (uint32_t)a;
        k0 += 0x9E3779B9, k1 += 0xBB67AE85;
    }
    return x[0] | (uint64_t)x[1] << 32;
}

static uint64_t mulhi64(uint64_t a, uint64_t b)
{
    uint64_t low = (uint32_t)a * (b >> 32), high = (a >> 32) * (b >> 32);
    uint64_t middle = (a >> 32) * (uint32_t)b + ((uint64_t)(uint32_t)a * (uint32_t)b >> 32);
    return high + (low >> 32) + ((middle + (uint32_t)low) >> 32);
}

/* ---- a heap of weight << 32 | ~id: its top is the next token in the rule's order ---- */

static void sink(uint64_t *heap, int64_t count, int64_t at)
{
    uint64_t value = heap[at];
    for (;;) {
        int64_t child = 2 * at + 1;
        if (child >= count)
            break;
        if (child + 1 < count && heap[child + 1] > heap[child])
            child++;
        if (heap[child] <= value)
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = value;
}

/* The largest of `left` values moves behind the others: the popped ones lie in order from the end.
 */
static uint64_t pop(uint64_t *heap, int64_t *left)
{
    uint64_t top = heap[0];
    --*left;
    heap[0] = heap[*left];
    heap[*left] = top;
    sink(heap, *left, 0);
    return top;
}

static uint64_t weight_of(uint64_t entry)
{
    return entry >> 32;
}

/* Weights that are not zero; their number and sum. */
static int64_t gather(const float *logits, int64_t count, float temperature, uint64_t *heap,
                      uint64_t *total)
{
    float r = rcp(temperature), most = -INFINITY;
    int64_t used = 0;
    for (int64_t i = 0; i < count; i++) {
        float s = logits[i] * r;
        most = s > most ? s : most;
    }
    *total = 0;
    for (int64_t i = 0; i < count; i++) {
        float s = logits[i] * r;
        float p = exp_exact(s - most) * 0x1p30f;
        uint32_t weight = p == p ? (uint32_t)p : 0;
        if (weight) {
            heap[used++] = (uint64_t)weight << 32 | (uint32_t) ~(uint32_t)i;
            *total += weight;
        }
    }
    for (int64_t i = used / 2; i-- > 0;)
        sink(heap, used, i);
    return used;
}

static int32_t sample(const float *logits, int64_t count, const mh_sampling *p, uint64_t *heap)
{
    uint64_t total, sum = 0;
    if (!(p->temperature > 0))
        return K(argmax_row)(logits, count);
    int64_t all = gather(logits, count, p->temperature, heap, &total), left = all;
    if (!all) /* nothing but NaN and infinities */
        return K(argmax_row)(logits, count);
    bool top_k = p->top_k && p->top_k < all;
    if (top_k) {
        total = 0;
        while (all - left < p->top_k)
            total += weight_of(pop(heap, &left));
    }
    int64_t kept = top_k ? p->top_k : all;
    if (p->top_p < 65536) {
        int64_t n = 0;
        do { /* at least one token stays */
            if (all - left == n)
                pop(heap, &left);
            sum += weight_of(heap[all - ++n]);
        } while (n < kept && sum * 65536 < (uint64_t)p->top_p * total);
        kept = n;
        total = sum;
    }
    uint64_t target = mulhi64(philox(p->seed, p->counter), total);
    sum = 0;
    for (int64_t n = 0; n < kept; n++) {
        if (all - left == n)
            pop(heap, &left);
        sum += weight_of(heap[all - 1 - n]);
        if (sum > target)
            return (int32_t) ~(uint32_t)heap[all - 1 - n];
    }
    return (int32_t) ~(uint32_t)heap[all - kept];
}

void K(sample)(const struct host_run *run, const mh_op *op)
{
    const mh_op_sample *o = (const void *)op;
    for (int64_t t = 0; t < o->logits.shape[0]; t++)
        *(int32_t *)address(&o->y, t) =
            sample(row1(&o->logits, t), o->logits.shape[1], address(&o->params, t),
                   (uint64_t *)(void *)run->scratch);
}
