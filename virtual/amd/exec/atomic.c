/* Atomics, in global memory and in LDS. */
#include "lanes.h"

bool VA_NAME(bind_atomic)(struct va_insn *insn);

enum operation {
    SWAP,
    CMPSWAP,
    ADD,
    SUB,
    RSUB,
    SMIN,
    UMIN,
    SMAX,
    UMAX,
    AND,
    OR,
    XOR,
    INC,
    DEC,
    MSKOR,
    ADD_F,
    MIN_F,
    MAX_F,
    PK_F16,
    PK_BF16,
    CMPSWAP_F,
    WRAP,
    SWAP_MARKED,
    UNKNOWN
};

static uint32_t bf16_bits(float f)
{
    uint32_t u = bits_of(f);
    return f != f ? u >> 16 | 0x40 : (u + 0x7fff + (u >> 16 & 1)) >> 16;
}

/* What whole numbers of one size, S with a sign, become. */
#define INTEGER_CASES(S)                                                                           \
    case SWAP:                                                                                     \
        return v;                                                                                  \
    case CMPSWAP:                                                                                  \
        return old == other ? v : old;                                                             \
    case ADD:                                                                                      \
        return old + v;                                                                            \
    case SUB:                                                                                      \
        return old - v;                                                                            \
    case RSUB:                                                                                     \
        return v - old;                                                                            \
    case SMIN:                                                                                     \
        return (S)old < (S)v ? old : v;                                                            \
    case UMIN:                                                                                     \
        return old < v ? old : v;                                                                  \
    case SMAX:                                                                                     \
        return (S)old > (S)v ? old : v;                                                            \
    case UMAX:                                                                                     \
        return old > v ? old : v;                                                                  \
    case AND:                                                                                      \
        return old & v;                                                                            \
    case OR:                                                                                       \
        return old | v;                                                                            \
    case XOR:                                                                                      \
        return old ^ v;                                                                            \
    case INC:                                                                                      \
        return old >= v ? 0 : old + 1;                                                             \
    case DEC:                                                                                      \
        return old == 0 || old > v ? v : old - 1;                                                  \
    case MSKOR:                                                                                    \
        return (old & ~v) | other

static uint64_t combine32(enum operation op, uint32_t old, uint32_t v, uint32_t other)
{
    switch (op) {
        INTEGER_CASES(int32_t);
    case CMPSWAP_F:
        return float_of(old) == float_of(other) ? v : old;
    case ADD_F:
        return bits_of(float_of(old) + float_of(v));
    case MIN_F:
        return bits_of(minimum(float_of(old), float_of(v), true));
    case MAX_F:
        return bits_of(maximum(float_of(old), float_of(v), true));
    case PK_F16:
        return half_bits(half_value(old & 0xffff) + half_value(v & 0xffff)) |
               half_bits(half_value(old >> 16) + half_value(v >> 16)) << 16;
    case WRAP:
        return old >= v ? old - v : old + other;
    case SWAP_MARKED:
        return v >> 31 ? v & 0x7fffffff : old;
    case PK_BF16:
        return bf16_bits(float_of(old << 16) + float_of(v << 16)) |
               bf16_bits(float_of(old & 0xffff0000) + float_of(v & 0xffff0000)) << 16;
    default:
        return old;
    }
}

static uint64_t combine64(enum operation op, uint64_t old, uint64_t v, uint64_t other)
{
    switch (op) {
        INTEGER_CASES(int64_t);
    case CMPSWAP_F:
        return double_of(old) == double_of(other) ? v : old;
    case ADD_F:
        return bits_of64(double_of(old) + double_of(v));
    case MIN_F:
        return bits_of64(minimum64(double_of(old), double_of(v), true));
    case MAX_F:
        return bits_of64(maximum64(double_of(old), double_of(v), true));
    default:
        return old;
    }
}

/* Does it at p and returns what was there. */
static uint64_t change(enum operation op, unsigned bytes, void *p, uint64_t v, uint64_t other)
{
    if (bytes == 4) {
        uint32_t old = __atomic_load_n((uint32_t *)p, __ATOMIC_SEQ_CST), to;
        do
            to = (uint32_t)combine32(op, old, (uint32_t)v, (uint32_t)other);
        while (!__atomic_compare_exchange_n((uint32_t *)p, &old, to, false, __ATOMIC_SEQ_CST,
                                            __ATOMIC_SEQ_CST));
        return old;
    }
    uint64_t old = __atomic_load_n((uint64_t *)p, __ATOMIC_SEQ_CST), to;
    do
        to = combine64(op, old, v, other);
    while (!__atomic_compare_exchange_n((uint64_t *)p, &old, to, false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST));
    return old;
}

static uint64_t data_of(struct va_wave *w, uint32_t code, int l, unsigned bytes)
{
    const uint32_t *r = va_row(w, code);
    return bytes == 4 ? r[l] : r[l] | (uint64_t)r[l + VA_LANES] << 32;
}

/* false: the lane does nothing. */
static bool address_of(struct va_wave *w, const struct va_insn *i, int l, unsigned bytes,
                       uint64_t *at)
{
    if (i->encoding == VA_MUBUF)
        return va_buffer_address(w, i, l, bytes, at);
    const uint32_t *v = va_row(w, i->a);
    *at = i->c != VA_NONE ? w->s64[i->c / 2] + v[l] : v[l] | (uint64_t)v[l + VA_LANES] << 32;
    *at += (uint64_t)(int64_t)i->offset;
    return true;
}

/* For race.c: the lanes that change global memory. */
static void follow(struct va_wave *w, const struct va_insn *i, uint64_t lanes, unsigned bytes)
{
    uint64_t at[VA_LANES], mask = 0;
    for (uint64_t m = lanes; m; m &= m - 1) {
        int l = __builtin_ctzll(m);
        bool is = address_of(w, i, l, bytes, &at[l]);
        if (i->encoding == VA_FLAT)
            is &= at[l] >> 32 != VA_SHARED_BASE >> 32 && at[l] >> 32 != VA_PRIVATE_BASE >> 32;
        mask |= (uint64_t)is << l;
    }
    if (mask)
        va_race_access(w, i, at, mask, bytes, 2);
}

/* The address of lane l, or NULL if it does nothing. */
static void *place(struct va_wave *w, const struct va_insn *i, int l, unsigned bytes)
{
    uint64_t at;
    if (!address_of(w, i, l, bytes, &at))
        return NULL;
    if (i->encoding == VA_FLAT && at >> 32 == VA_SHARED_BASE >> 32) {
        uint32_t in = (uint32_t)at;
        if ((uint64_t)in + bytes > w->group->lds_bytes || in & (bytes - 1))
            va_fault(w, VA_ILLEGAL_ADDRESS, "lds-out-of-bounds", l, in, bytes,
                     "atomic of %u bytes at %u of LDS: the workgroup has %u", bytes, in,
                     w->group->lds_bytes);
        va_lds_check(w, in, bytes, 2, l);
        return w->group->lds + in;
    }
    if (i->encoding == VA_FLAT && at >> 32 == VA_PRIVATE_BASE >> 32) {
        uint32_t in = (uint32_t)at;
        if (bytes == 8 || in & 3 || (uint64_t)in + bytes > w->scratch_bytes)
            va_fault(w, VA_STACK, "scratch", l, in, bytes, "atomic of %u bytes at %u of scratch",
                     bytes, in);
        return w->scratch + ((in >> 2) * VA_LANES + (uint32_t)l) * 4ull;
    }
    if (w->launch->count)
        va_touch(w->launch, at, bytes);
    return va_global(w, at, bytes, 2, l);
}

static uint32_t (*results(struct va_wave *w, const struct va_insn *i, bool vm, bool lgkm,
                          bool returns, unsigned width))[VA_LANES]
{
    if (!w->queue)
        return returns ? (uint32_t(*)[VA_LANES])va_row(w, i->encoding == VA_MUBUF ? i->d : i->d)
                       : NULL;
    struct va_pending *p =
        va_defer(w, i, vm, lgkm, false, returns ? i->d : VA_NONE, returns ? width : 0);
    if (returns)
        memcpy(p->data, va_row(w, i->d), width * sizeof p->data[0]);
    return returns ? p->data : NULL;
}

static void put_result(uint32_t (*d)[VA_LANES], int l, unsigned bytes, uint64_t old)
{
    if (!d)
        return;
    d[0][l] = (uint32_t)old;
    if (bytes == 8)
        d[1][l] = (uint32_t)(old >> 32);
}

static void run_global(struct va_wave *w, const struct va_insn *i)
{
    enum operation op = i->kinds[2];
    unsigned bytes = i->kinds[3], n = bytes / 4;
    bool returns = va_sc0(i), exchange = op == CMPSWAP;
    uint32_t data = i->encoding == VA_MUBUF ? i->d : i->b;
    uint64_t mask = va_exec(w), v[VA_LANES], other[VA_LANES] = {0};
    if (!mask)
        return;
    if (i->encoding == VA_MUBUF)
        va_check_buffer(w, i);
    for (uint64_t m = mask; m; m &= m - 1) {
        int l = __builtin_ctzll(m);
        v[l] = data_of(w, data, l, bytes);
        if (exchange)
            other[l] = data_of(w, data + n, l, bytes);
    }
    if (w->group->race)
        follow(w, i, mask, bytes);
    uint32_t(*d)[VA_LANES] = results(w, i, true, i->encoding == VA_FLAT, returns, n);
    struct va_pc_count *c = &w->counts[i - w->insns];
    for (uint64_t m = mask; m; m &= m - 1) {
        int l = __builtin_ctzll(m);
        void *p = place(w, i, l, bytes);
        put_result(d, l, bytes, p ? change(op, bytes, p, v[l], other[l]) : 0);
        c->bytes += bytes;
        c->segments64++;
        c->segments128++;
    }
    uint64_t lanes = (uint64_t)__builtin_popcountll(mask);
    c->ideal64 += (lanes * bytes + 63) / 64;
    w->worker->atomics += lanes;
    w->worker->load_bytes += lanes * bytes;
    w->worker->store_bytes += lanes * bytes;
}

static void check_place(struct va_wave *w, uint32_t at, unsigned bytes, int l)
{
    if ((uint64_t)at + bytes > w->group->lds_bytes || at & (bytes - 1))
        va_fault(w, VA_ILLEGAL_ADDRESS, "lds-out-of-bounds", l, at, bytes,
                 "atomic of %u bytes at %u of LDS: the workgroup has %u", bytes, at,
                 w->group->lds_bytes);
    va_lds_check(w, at, bytes, 2, l);
}

static void count_lds(struct va_wave *w, const struct va_insn *i, unsigned bytes, uint64_t lanes)
{
    w->counts[i - w->insns].lds_bytes += bytes * lanes;
    w->counts[i - w->insns].lds_passes++;
    w->worker->lds_accesses++;
    w->worker->atomics += lanes;
}

static void run_lds(struct va_wave *w, const struct va_insn *i)
{
    enum operation op = i->kinds[2];
    unsigned bytes = i->kinds[3];
    bool returns = i->d != VA_NONE, swapped = op == CMPSWAP || op == CMPSWAP_F;
    uint64_t mask = va_exec(w), v[VA_LANES], other[VA_LANES] = {0};
    uint32_t at[VA_LANES];
    if (!mask)
        return;
    for (uint64_t m = mask; m; m &= m - 1) {
        int l = __builtin_ctzll(m);
        at[l] = va_row(w, i->a)[l] + (uint32_t)i->offset;
        v[l] = data_of(w, i->b, l, bytes);
        if (i->c != VA_NONE)
            other[l] = data_of(w, i->c, l, bytes);
        check_place(w, at[l], bytes, l);
    }
    uint32_t(*d)[VA_LANES] = results(w, i, false, true, returns, bytes / 4);
    for (uint64_t m = mask; m; m &= m - 1) {
        int l = __builtin_ctzll(m);
        uint64_t x = swapped ? other[l] : v[l], y = swapped ? v[l] : other[l];
        put_result(d, l, bytes, change(op, bytes, w->group->lds + at[l], x, y));
    }
    count_lds(w, i, bytes, (uint64_t)__builtin_popcountll(mask));
}

/* Two exchanges in one instruction: at two offsets, or of the halves of an aligned 64-bit word. */
static void run_lds2(struct va_wave *w, const struct va_insn *i)
{
    enum operation op = i->kinds[2];
    unsigned bytes = i->kinds[3], n = bytes / 4;
    unsigned scale = bytes * (strstr(va_rows[i->op].name, "st64") ? 64 : 1);
    uint64_t mask = va_exec(w), v[2][VA_LANES];
    uint32_t at[2][VA_LANES];
    if (!mask)
        return;
    for (uint64_t m = mask; m; m &= m - 1) {
        int l = __builtin_ctzll(m);
        uint32_t base = va_row(w, i->a)[l];
        for (unsigned k = 0; k < 2; k++) {
            bool marked = op == SWAP_MARKED;
            v[k][l] = data_of(w, marked ? i->b + k : k ? i->c : i->b, l, bytes);
            at[k][l] = marked ? ((base + (uint32_t)i->offset) & 0xfff8) + 4 * k
                              : base + ((uint32_t)i->offset >> 8 * k & 255) * scale;
            check_place(w, at[k][l], bytes, l);
        }
    }
    uint32_t(*d)[VA_LANES] = results(w, i, false, true, true, 2 * n);
    for (uint64_t m = mask; m; m &= m - 1) {
        int l = __builtin_ctzll(m);
        for (unsigned k = 0; k < 2; k++)
            put_result(d + k * n, l, bytes,
                       change(op, bytes, w->group->lds + at[k][l], v[k][l], 0));
    }
    count_lds(w, i, 2 * bytes, (uint64_t)__builtin_popcountll(mask));
}

/* The number of active lanes is added to a counter that M0 points at, or taken from it. */
static void run_lds_counter(struct va_wave *w, const struct va_insn *i)
{
    uint64_t mask = va_exec(w), lanes = (uint64_t)__builtin_popcountll(mask);
    uint32_t at = (w->s[VA_M0] & 0xffff) + (uint32_t)i->offset;
    if (!mask)
        return;
    check_place(w, at, 4, __builtin_ctzll(mask));
    uint32_t(*d)[VA_LANES] = results(w, i, false, true, true, 1);
    uint64_t old = change(i->kinds[2], 4, w->group->lds + at, lanes, 0);
    for (uint64_t m = mask; m; m &= m - 1)
        put_result(d, __builtin_ctzll(m), 4, old);
    count_lds(w, i, 4, 1);
}

static enum operation operation_of(const char *name)
{
    static const struct {
        const char *text;
        enum operation op;
    } known[] = {{"cmpswap", CMPSWAP},
                 {"cmpst_rtn_f", CMPSWAP_F},
                 {"cmpst_f", CMPSWAP_F},
                 {"cmpst", CMPSWAP},
                 {"pk_add_f16", PK_F16},
                 {"pk_add_rtn_f16", PK_F16},
                 {"pk_add_bf16", PK_BF16},
                 {"pk_add_rtn_bf16", PK_BF16},
                 {"add_f", ADD_F},
                 {"add_rtn_f", ADD_F},
                 {"min_f", MIN_F},
                 {"min_rtn_f", MIN_F},
                 {"max_f", MAX_F},
                 {"max_rtn_f", MAX_F},
                 {"swap", SWAP},
                 {"wrxchg", SWAP},
                 {"wrap", WRAP},
                 {"condxchg", SWAP_MARKED},
                 {"append", ADD},
                 {"consume", SUB},
                 {"rsub", RSUB},
                 {"add", ADD},
                 {"sub", SUB},
                 {"smin", SMIN},
                 {"umin", UMIN},
                 {"smax", SMAX},
                 {"umax", UMAX},
                 {"min_i", SMIN},
                 {"min_rtn_i", SMIN},
                 {"min_u", UMIN},
                 {"min_rtn_u", UMIN},
                 {"max_i", SMAX},
                 {"max_rtn_i", SMAX},
                 {"max_u", UMAX},
                 {"max_rtn_u", UMAX},
                 {"mskor", MSKOR},
                 {"_and", AND},
                 {"xor", XOR},
                 {"_or", OR},
                 {"inc", INC},
                 {"dec", DEC}};
    for (size_t k = 0; k < sizeof known / sizeof known[0]; k++)
        if (strstr(name, known[k].text))
            return known[k].op;
    return UNKNOWN;
}

bool VA_NAME(bind_atomic)(struct va_insn *i)
{
    const char *n = va_rows[i->op].name;
    enum operation op = operation_of(n);
    bool two = strstr(n, "wrxchg2") || op == SWAP_MARKED;
    bool counter = i->op == VA_DS_ds_append || i->op == VA_DS_ds_consume;
    if (op == UNKNOWN)
        return false;
    i->kinds[2] = (uint8_t)op;
    i->kinds[3] = op == SWAP_MARKED                                      ? 4
                  : strstr(n, "_x2") || !strcmp(n + strlen(n) - 2, "64") ? 8
                                                                         : 4;
    i->run = i->encoding != VA_DS ? run_global
             : two                ? run_lds2
             : counter            ? run_lds_counter
                                  : run_lds;
    return true;
}
