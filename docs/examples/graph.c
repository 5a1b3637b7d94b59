/* graph.c: ops recorded once, launched for one step block after another. */
#include <stdio.h>

#include <moehal/moehal.h>

enum { ROWS = 4, VOCABULARY = 16, WIDTH = 8 };

static mh_status make_table(mh_device *device, mh_weight **out)
{
    float values[VOCABULARY][WIDTH];
    for (int v = 0; v < VOCABULARY; v++)
        for (int d = 0; d < WIDTH; d++)
            values[v][d] = (float)(v == 2 * d); /* token 2 d is the d-th unit vector */
    mh_weight_params params = MH_INIT(mh_weight_params);
    mh_weight_piece piece = MH_INIT(mh_weight_piece);
    params.format = MH_FORMAT_F32, params.experts = 1;
    params.out = VOCABULARY, params.in = WIDTH;
    piece.expert_count = 1, piece.row_count = VOCABULARY, piece.plane[0] = values;
    mh_status status = mh_weight_create(device, &params, out);
    if (!status)
        status = mh_weight_write(*out, &piece);
    return status ? status : mh_weight_seal(*out);
}

int main(void)
{
    const int64_t shape[] = {ROWS, WIDTH};
    mh_runtime *runtime = NULL;
    mh_device *device = NULL;
    mh_stream *stream = NULL;
    mh_graph *graph = NULL;
    mh_step *step = NULL;
    mh_weight *table = NULL;
    mh_buffer *memory = NULL;
    mh_step_params params = MH_INIT(mh_step_params);
    params.rows = ROWS, params.slots = 1, params.pages = 1;

    int ok = !mh_runtime_create(NULL, &runtime) &&
             !mh_device_open(runtime, "host", NULL, &device) &&
             !mh_stream_create(device, &stream) && !mh_step_create(device, &params, &step) &&
             !mh_buffer_create(device, sizeof(float) * ROWS * WIDTH, MH_BUFFER_DEVICE, &memory) &&
             !make_table(device, &table) && !mh_graph_create(device, &graph);

    mh_op_embed embed = MH_OP_INIT(embed, EMBED);
    embed.y = mh_tensor_make(memory, 0, MH_F32, 2, shape);
    embed.tokens = mh_step_tensor(step, MH_STEP_TOKENS);
    embed.table = table, embed.fault = mh_step_tensor(step, MH_STEP_FAULT);
    mh_op_argmax argmax = MH_OP_INIT(argmax, ARGMAX);
    argmax.y = mh_step_tensor(step, MH_STEP_NEXT), argmax.logits = embed.y;
    ok = ok && !mh_encode(mh_graph_encoder(graph), &embed.base) &&
         !mh_encode(mh_graph_encoder(graph), &argmax.base) && !mh_graph_seal(graph);
    mh_weight_release(table); /* the graph keeps what it names */

    for (int32_t launch = 0; ok && launch < 3; launch++) {
        int32_t *tokens = mh_step_input(step, MH_STEP_TOKENS), next[ROWS] = {0};
        for (int32_t i = 0; i < ROWS; i++)
            tokens[i] = 2 * (launch + i);
        ok = !mh_step_write(step, stream) && !mh_graph_launch(graph, stream) &&
             !mh_step_read(step, stream, next, ROWS);
        for (int32_t i = 0; ok && i < ROWS; i++)
            ok = next[i] == launch + i;
    }
    puts(ok ? "three launches of one graph" : mh_last_message());

    mh_graph_release(graph);
    mh_step_release(step);
    mh_buffer_release(memory);
    mh_stream_release(stream);
    mh_device_release(device);
    mh_runtime_release(runtime);
    return !ok;
}
