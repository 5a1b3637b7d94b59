/* config_math.c: what follows from a config: scales, frequencies, sizes. */
#include <moehal-model/config.h>

#include <math.h>

int mh_config_is_moe(const mh_config *c, int64_t layer)
{
    return c->n_routed_experts && layer >= c->first_k_dense_replace &&
           layer % c->moe_layer_freq == 0;
}

static double get_mscale(double scale, double mscale)
{
    return scale <= 1 ? 1 : 0.1 * mscale * log(scale) + 1;
}

double mh_config_softmax_scale(const mh_config *c)
{
    double scale = 1 / sqrt((double)(c->qk_nope_head_dim + c->qk_rope_head_dim));
    if (c->rope_yarn && c->rope_mscale_all_dim != 0) {
        double m = get_mscale(c->rope_factor, c->rope_mscale_all_dim);
        scale = scale * m * m;
    }
    return scale;
}

double mh_config_rope_amplitude(const mh_config *c)
{
    if (!c->rope_yarn)
        return 1;
    return get_mscale(c->rope_factor, c->rope_mscale) /
           get_mscale(c->rope_factor, c->rope_mscale_all_dim);
}

/* The dimension that turns `rotations` times over the original context. */
static double yarn_dim(const mh_config *c, double rotations)
{
    return (double)c->qk_rope_head_dim *
           log(c->rope_original_max / (rotations * 2 * 3.14159265358979323846)) /
           (2 * log(c->rope_theta));
}

void mh_config_rope_frequencies(const mh_config *c, double *inv)
{
    int64_t dims = c->qk_rope_head_dim;
    double low = 0, high = 0;
    if (c->rope_yarn) {
        low = fmax(floor(yarn_dim(c, c->rope_beta_fast)), 0);
        high = fmin(ceil(yarn_dim(c, c->rope_beta_slow)), (double)(dims - 1));
        if (low == high)
            high += 0.001;
    }
    for (int64_t i = 0; i < dims / 2; i++) {
        double f = pow(c->rope_theta, -2.0 * (double)i / (double)dims);
        inv[i] = f;
        if (!c->rope_yarn)
            continue;
        double ramp = fmin(fmax(((double)i - low) / (high - low), 0), 1);
        inv[i] = f * (1 - ramp) + f / c->rope_factor * ramp;
    }
}

mh_status mh_config_get_sizes(const mh_config *c, mh_config_sizes *out)
{
    if (!c || !out)
        return mh_fail(MH_INVALID_ARGUMENT, "mh_config_get_sizes: an argument is NULL");
    mh_config_sizes sizes = MH_INIT(mh_config_sizes);
    uint64_t D = (uint64_t)c->hidden_size, H = (uint64_t)c->num_attention_heads;
    uint64_t qk = (uint64_t)(c->qk_nope_head_dim + c->qk_rope_head_dim);
    uint64_t L = (uint64_t)c->kv_lora_rank, R = (uint64_t)c->qk_rope_head_dim;
    uint64_t N = (uint64_t)c->qk_nope_head_dim, V = (uint64_t)c->v_head_dim;
    uint64_t Q = (uint64_t)c->q_lora_rank, E = (uint64_t)c->n_routed_experts;
    uint64_t mla = Q ? Q * D + Q + H * qk * Q : H * qk * D;
    mla += (L + R) * D + L + H * (N + V) * L + D * H * V + 2 * D; /* with the layer's two norms */
    uint64_t expert = 3 * D * (uint64_t)c->moe_intermediate_size;
    uint64_t shared = expert * (uint64_t)c->n_shared_experts;
    uint64_t router = E * D + (c->scoring == MH_SCORING_SIGMOID ? E : 0);
    uint64_t embedding = (uint64_t)c->vocab_size * D;
    sizes.parameters = 2 * embedding + D;
    sizes.active = embedding + D;
    sizes.latent_elements = (uint64_t)c->num_hidden_layers * (L + R);
    for (int64_t i = 0; i < c->num_hidden_layers; i++) {
        uint64_t dense = 3 * D * (uint64_t)c->intermediate_size;
        int moe = mh_config_is_moe(c, i);
        sizes.parameters += mla + (moe ? router + shared + E * expert : dense);
        sizes.active +=
            mla + (moe ? router + shared + (uint64_t)c->num_experts_per_tok * expert : dense);
    }
    return mh_struct_out(out, &sizes, sizeof(sizes));
}
