/* bench_weights.c: bytes and operations of a step, counted over the tensors of the checkpoint. */
#include <math.h>
#include <string.h>

#include "bench.h"

/* The layer of "model.layers.3.mlp..."; -1 for other tensors. */
static int64_t layer_of(const char *name)
{
    long long layer;
    return sscanf(name, "model.layers.%lld.", &layer) == 1 ? layer : -1;
}

void bench_weights(const mh_checkpoint *checkpoint, struct bench_weights *out)
{
    const mh_config *c = mh_checkpoint_config(checkpoint);
    mh_checkpoint_tensor t = MH_INIT(mh_checkpoint_tensor);
    *out = (struct bench_weights){0};
    for (uint64_t i = 0; !mh_checkpoint_at(checkpoint, i, &t); i++) {
        double bytes = (double)t.bytes, elements = 0;
        bool scale = strstr(t.name, "_scale_inv") != NULL;
        if (layer_of(t.name) >= c->num_hidden_layers || strstr(t.name, "rotary_emb"))
            continue; /* multi-token prediction, and tables that nobody reads */
        if (t.rank == 2 && !scale)
            elements = (double)t.shape[0] * (double)t.shape[1];
        if (!strcmp(t.name, "model.embed_tokens.weight")) {
            out->row_bytes = bytes / (double)t.shape[0];
        } else if (!strcmp(t.name, "lm_head.weight")) {
            out->head_bytes += bytes;
            out->head_elements += elements;
        } else if (strstr(t.name, ".mlp.experts.")) {
            out->expert_bytes += bytes;
            out->expert_elements += elements;
        } else {
            out->always_bytes += bytes;
            out->always_elements += elements;
        }
    }
}

double bench_expected_experts(const mh_config *c, double rows)
{
    double all = (double)c->n_routed_experts, k = (double)c->num_experts_per_tok;
    return all > 0 ? all * (1 - pow(1 - k / all, rows)) : 0;
}

static double part(const mh_config *c, double experts)
{
    return c->n_routed_experts ? experts / (double)c->n_routed_experts : 0;
}

double bench_step_bytes(const struct bench_weights *w, const mh_config *c, double rows,
                        double experts)
{
    return w->always_bytes + w->head_bytes + rows * w->row_bytes +
           w->expert_bytes * part(c, experts);
}

double bench_prefill_flop(const struct bench_weights *w, const mh_config *c, double tokens)
{
    double a_token =
        w->always_elements + w->expert_elements * part(c, (double)c->num_experts_per_tok);
    return 2 * (a_token * tokens + w->head_elements);
}

double bench_attention_flop(const mh_config *c, double tokens)
{
    double keys = tokens * (tokens + 1) / 2;
    double a_key = (double)(2 * c->kv_lora_rank + c->qk_rope_head_dim);
    return 2 * keys * a_key * (double)(c->num_attention_heads * c->num_hidden_layers);
}
