/* rules.c: the table of op cases: what sizes, variants and values each op is tested with. */
#include "case.h"

static bool rope_even(struct conf_case *c)
{
    c->dim['R'] += c->dim['R'] % 2;
    return true;
}

/* A paged cache with a few pages more than its sequences use. */
static bool cache(struct conf_case *c)
{
    rope_even(c);
    c->dim['K'] = c->dim['L'] + c->dim['R'];
    c->dim['G'] = c->dim['Q'] * c->dim['M'] + 2;
    return true;
}

/* Segments F - 1, F - 1 + N and so on, S of them. */
static bool part(struct conf_case *c)
{
    c->dim['W'] = c->dim['L'] + 2;
    return cache(c);
}

/* Segments of N parts, S of each. */
static bool parts(struct conf_case *c)
{
    c->dim['W'] = c->dim['L'] + 2;
    c->dim['U'] = c->dim['T'] ? c->dim['N'] * c->dim['T'] : 1;
    return true;
}

/* As many rows at most as the cache has places: no two rows write one. */
static bool cache_rows(struct conf_case *c)
{
    int64_t places = c->dim['Q'] * c->dim['M'] * c->dim['P'];
    cache(c);
    c->dim['X'] = c->dim['M'] * c->dim['P'];
    return c->dim['T'] <= places;
}

/* H heads of F rows, C of them used. */
static bool heads(struct conf_case *c)
{
    if (c->dim['C'] > c->dim['F'])
        c->dim['C'] = c->dim['F'];
    c->dim['A'] = c->dim['H'] * c->dim['F'];
    c->dim['M'] = c->variant ? c->dim['B'] : c->dim['C'];
    c->dim['N'] = c->variant ? c->dim['C'] : c->dim['B'];
    return true;
}

/* N "nope" rows and U more a head. */
static bool query(struct conf_case *c)
{
    rope_even(c);
    c->dim['K'] = c->dim['L'] + c->dim['R'];
    c->dim['F'] = c->dim['N'] + c->dim['R'];
    c->dim['A'] = c->dim['H'] * (c->dim['N'] + c->dim['U']);
    return true;
}

static bool pair(struct conf_case *c)
{
    if (!c->variant)
        c->dim['U'] = 1;
    return true;
}

static bool cache_and_query(struct conf_case *c)
{
    return cache_rows(c) && query(c);
}

/* G groups of which W are chosen; ignored by variants without groups. */
static bool router(struct conf_case *c)
{
    while (c->dim['E'] % c->dim['G'])
        c->dim['G']--;
    if (c->dim['W'] > c->dim['G'])
        c->dim['W'] = c->dim['G'];
    int64_t candidates = c->dim['E'] / c->dim['G'] * c->dim['W'];
    if (c->dim['J'] > candidates)
        c->dim['J'] = candidates;
    return true;
}

/* S experts here of E; the same where no map says so. */
static bool experts(struct conf_case *c)
{
    bool mapped = c->variant >= 2;
    if (!mapped || c->dim['E'] < c->dim['S'])
        c->dim['E'] = c->dim['S'];
    return true;
}

static bool combine(struct conf_case *c)
{
    if (c->dim['S'] > c->dim['E'])
        c->dim['S'] = c->dim['E'];
    return true;
}

static const char *const plain[] = {"plain", NULL};
static const char *const with_bad[] = {"plain", "bad", NULL};
static const char *const norms[] = {"plain", "residual", NULL};
static const char *const pairs[] = {"plain", "pair", NULL};
static const char *const writes[] = {"plain", "padding", "bad", NULL};
static const char *const directions[] = {"rows", "transposed", NULL};
static const char *const routers[] = {"sigmoid",      "sigmoid-bias",       "sigmoid-bias-groups",
                                      "softmax",      "softmax-groups",     "softmax-norm",
                                      "sigmoid-norm", "sigmoid-groups-all", NULL};
static const char *const banks[] = {"plain", "one", "map", "absent", "bad", NULL};
static const char *const combines[] = {"plain", "shared", "experts", "absent", "bad", NULL};
static const char *const samplers[] = {"greedy", "temperature", "top-k", "top-p", "all", NULL};
static const char *const ranks[] = {"rank1", "rank2", "rank4", "transposed", NULL};

#define V(name) (1u << VALUES_##name)
#define NUMBERS (V(RANDOM) | V(INTS) | V(SPECIAL) | V(TINY) | V(WIDE))

static const char *const real_linear[] = {"T3.O576.I2048",   "T1.O1536.I7168",   "T1.O24576.I1536",
                                          "T2.O7168.I16384", "T1.O18432.I7168",  "T1.O3072.I2048",
                                          "T1.O576.I7168",   "T1.O10944.I2048",  "T1.O2048.I10944",
                                          "T1.O2048.I11264", "T1.O102400.I2048", NULL};
static const char *const real_gated[] = {"T1.N2816.I2048",  "T2.N2048.I7168",  "T1.N10944.I2048",
                                         "T1.N18432.I7168", "T1.N11264.I2048", NULL};
static const char *const real_heads[] = {"T1.H16.B512.C128.F256", "T2.H128.B512.C128.F256", NULL};
static const char *const real_router[] = {"T3.E256.J8.G8.W4", "T3.E64.J6.G1.W1", "T2.E160.J6.G8.W3",
                                          NULL};
static const char *const real_router_linear[] = {"T2.E64.I2048.J6.G1.W1", "T2.E256.I7168.J8.G8.W4",
                                                 "T1.E160.I5120.J6.G8.W3", NULL};
static const char *const real_up[] = {"T1.J6.D2048.I1408.S6.E64", "T2.J6.D2048.I1408.S64.E64",
                                      "T1.J8.D7168.I2048.S8.E256", NULL};
static const char *const real_norm_linear[] = {"T1.O3072.U576.I2048", "T1.O1536.U576.I7168",
                                               "T1.O24576.U1.I1536", NULL};
static const char *const real_qkv[] = {"T1.H16.L512.R64.P64.Q1.M2.N128.U128",
                                       "T2.H128.L512.R64.P64.Q2.M2.N128.U128", NULL};
static const char *const real_moe[] = {"T1.J6.D2048.I1408.N2816.S6.E64",
                                       "T1.J8.D7168.I2048.N2048.S8.E256", NULL};
static const char *const real_attention[] = {"T1.H16.L512.R64.P64.Q1.M5",
                                             "T2.H128.L512.R64.P64.Q2.M2", NULL};
static const char *const real_part[] = {"T1.H16.L512.R64.P64.Q1.M9.S2.F2.N2",
                                        "T2.H128.L512.R64.P64.Q2.M2.S1.F1.N4", NULL};
static const char *const real_parts[] = {"T1.H16.L512.S3.N4", "T2.H128.L512.S1.N8", NULL};
static const char *const real_rows[] = {"T3.L512.R64.P64.Q2.M2", NULL};
static const char *const real_query[] = {"T1.H16.L512.N128.R64.U128.X96",
                                         "T1.H128.L512.N128.R64.U128.X96", NULL};
static const char *const real_norm[] = {"T2.D7168", "T3.D2048", "T2.D1536", "T3.D512", NULL};
static const char *const real_vocabulary[] = {"T1.V129280", "T2.V102400", "T1.V163840", NULL};
static const char *const real_width[] = {"T2.N18432", "T3.N10944", NULL};
static const char *const real_combine[] = {"T2.J8.D7168.S8.E256", "T3.J6.D2048.S64.E64", NULL};
static const char *const real_embed[] = {"T3.D2048.V102400", NULL};
static const char *const real_rope[] = {"T2.H128.R64.X200", "T3.H1.R64.X200", NULL};

const struct op_rule conf_rules[] = {
    {MH_OP_EMBED, "TDV", with_bad, "T:rows D:any V:any", real_embed, V(RANDOM) | V(SPECIAL), NULL,
     NULL},
    {MH_OP_RMSNORM, "TD", norms, "T:rows D:deep", real_norm, NUMBERS, "y=x,sum=residual", NULL},
    {MH_OP_LINEAR, "TOI", plain, "T:rows O:any I:deep", real_linear, NUMBERS, NULL, NULL},
    {MH_OP_LINEAR_ADD, "TOI", plain, "T:rows O:any I:deep", real_linear, NUMBERS, "y=residual",
     NULL},
    {MH_OP_LINEAR_SWIGLU, "TNI", plain, "T:rows N:any I:deep", real_gated, NUMBERS, NULL, NULL},
    {MH_OP_SWIGLU, "TN", plain, "T:rows N:any", real_width, NUMBERS | V(TIES), "y=gate", NULL},
    {MH_OP_ADD, "TN", plain, "T:rows N:any", real_width, NUMBERS, "y=b", NULL},
    {MH_OP_ROPE, "THRX", with_bad, "T:rows H:few R:even X:any", real_rope, NUMBERS, "y=x",
     rope_even},
    {MH_OP_KV_WRITE, "TLRPQM", writes, "T:rows L:any R:even P:page Q:few M:few", real_rows,
     V(RANDOM) | V(SPECIAL) | V(TINY) | V(TIES), NULL, cache_rows},
    {MH_OP_MLA_KV, "TLRPQM", writes, "T:rows L:any R:even P:page Q:few M:few", real_rows, NUMBERS,
     NULL, cache_rows},
    {MH_OP_ATTENTION, "THLRPQM", writes, "T:short H:few L:any R:even P:page Q:few M:pages",
     real_attention, V(RANDOM) | V(INTS) | V(SPECIAL) | V(TINY) | V(WIDE), NULL, cache},
    {MH_OP_ATTENTION_PART, "THLRPQMSFN", writes,
     "T:short H:few L:any R:even P:page Q:few M:pages S:groups F:part N:part", real_part,
     V(RANDOM) | V(INTS) | V(SPECIAL) | V(TINY) | V(WIDE), NULL, part},
    {MH_OP_ATTENTION_MERGE, "THLSN", with_bad, "T:short H:few L:any S:groups N:groups", real_parts,
     V(RANDOM) | V(INTS) | V(SPECIAL) | V(TINY) | V(WIDE), NULL, parts},
    {MH_OP_HEAD_LINEAR, "THBCF", directions, "T:rows H:few B:deep C:any F:any", real_heads, NUMBERS,
     NULL, heads},
    {MH_OP_MLA_QUERY, "THLNRUX", with_bad, "T:rows H:few L:any N:any R:even U:few X:any",
     real_query, NUMBERS, NULL, query},
    {MH_OP_ROUTER, "TEJGW", routers, "T:rows E:any J:few G:groups W:few", real_router,
     V(RANDOM) | V(SPECIAL) | V(WIDE) | V(TIES) | V(INTS), NULL, router},
    {MH_OP_ROUTER_LINEAR, "TEIJGW", routers, "T:rows E:any I:deep J:few G:groups W:few",
     real_router_linear, V(RANDOM) | V(INTS) | V(TINY), NULL, router},
    {MH_OP_EXPERTS_GATE_UP, "TJDISE", banks, "T:rows J:few D:deep I:any S:few E:few", real_up,
     NUMBERS, NULL, experts},
    {MH_OP_EXPERTS_DOWN, "TJDISE", banks, "T:rows J:few D:any I:deep S:few E:few", real_up, NUMBERS,
     NULL, experts},
    {MH_OP_EXPERTS_DOWN_COMBINE, "TJDISE", banks, "T:rows J:few D:any I:deep S:few E:few", real_up,
     NUMBERS, "y=h", experts},
    {MH_OP_COMBINE, "TJDSE", combines, "T:rows J:few D:any S:few E:few", real_combine, NUMBERS,
     "y=h", combine},
    {MH_OP_NORM_LINEAR, "TOUI", pairs, "T:rows O:any U:any I:deep", real_norm_linear, NUMBERS, NULL,
     pair},
    {MH_OP_MLA_QKV, "THLRPQMNU", writes, "T:rows H:few L:any R:even P:page Q:few M:few N:any U:few",
     real_qkv, NUMBERS, NULL, cache_and_query},
    {MH_OP_NORM_ROUTER, "TEIJGW", routers, "T:rows E:any I:deep J:few G:groups W:few",
     real_router_linear, V(RANDOM) | V(TINY), NULL, router},
    {MH_OP_MOE_GATE_UP, "TJDINSE", banks, "T:rows J:few D:deep I:any N:any S:few E:few", real_moe,
     NUMBERS, NULL, experts},
    {MH_OP_MOE_DOWN_COMBINE, "TJDINSE", banks, "T:rows J:few D:any I:deep N:deep S:few E:few",
     real_moe, NUMBERS, "y=h", experts},
    {MH_OP_ARGMAX, "TV", plain, "T:rows V:any", real_vocabulary,
     V(RANDOM) | V(SPECIAL) | V(TIES) | V(TINY) | V(INTS), NULL, NULL},
    {MH_OP_SAMPLE, "TV", samplers, "T:rows V:any", real_vocabulary,
     V(RANDOM) | V(SPECIAL) | V(TIES) | V(INTS) | V(WIDE), NULL, NULL},
    {MH_OP_COPY, "ABCD", ranks, "A:few B:any C:few D:any", NULL, V(SPECIAL), NULL, NULL},
    {MH_OP_CAST, "ABCD", ranks, "A:few B:any C:few D:any", NULL,
     V(RANDOM) | V(SPECIAL) | V(WIDE) | V(TIES), NULL, NULL},
    {MH_OP_FILL, "ABCD", ranks, "A:few B:any C:few D:any", NULL, V(RANDOM) | V(SPECIAL), NULL,
     NULL},
};

const uint32_t conf_rule_count = sizeof(conf_rules) / sizeof(conf_rules[0]);

const struct op_rule *conf_rule(mh_op_id op)
{
    for (uint32_t i = 0; i < conf_rule_count; i++)
        if (conf_rules[i].op == op)
            return &conf_rules[i];
    return NULL;
}
