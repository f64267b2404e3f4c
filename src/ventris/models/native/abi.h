// What Python hands over. The structures are mirrored, field by field, in abi.py.
#pragma once

#include <cstdint>

extern "C" {

// A packed matrix (see panels.h).
struct VentrisMatrix {
  const void* data;
  const float* bias;  // [rows] or null
  int64_t rows;
  int64_t columns;
  int64_t kind;
  int64_t activation_bits;  // 8 or 16, for weights in blocks
};

// Null pointers mark norms that a family does not have.
struct VentrisLayer {
  VentrisMatrix query_key_value;
  VentrisMatrix output;
  VentrisMatrix gate_up;  // panels of gate and up rows take turns
  VentrisMatrix down;
  VentrisMatrix cross_query;  // of the attention to lent rows; without data where a layer has none
  VentrisMatrix cross_output;
  const float* input_norm;
  const float* attention_output_norm;
  const float* feed_forward_norm;
  const float* feed_forward_output_norm;
  const float* query_norm;
  const float* key_norm;
  const float* token_norm;  // of the token's embedding, where attention reads it before the hidden row
  const float* cross_norm;
  int64_t window;      // sliding window in positions, 0 for none
  int64_t rope_table;  // which of the call's tables
};

struct VentrisModel {
  int64_t vocab_size;
  int64_t hidden_size;
  int64_t intermediate_size;
  int64_t layer_count;
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
  int64_t rotary_dim;
  int64_t context_length;
  int64_t activation;
  int64_t bfloat_cache;  // cache rows are bfloat16 rather than float32
  int64_t bfloat_lent;   // so are the rows that another decoder lends
  int64_t threads;
  float norm_epsilon;
  float query_scale;
  float attention_softcap;  // 0 for none
  float logit_softcap;      // 0 for none
  float embedding_scale;
  float reserved;
  const VentrisLayer* layers;
  const float* final_norm;
  VentrisMatrix embedding;
  VentrisMatrix head;
};

// Cosines and sines, float32 [positions, rotary_dim / 2] each.
struct VentrisRope {
  const float* cosines;
  const float* sines;
};

// Where a run reads and writes dense rows. Null where a stage is not wanted.
struct VentrisBuffers {
  const float* hidden_in;   // [nodes, hidden]; null: start from tokens or embeddings
  float* hidden_out;        // [nodes, hidden]
  float* taps;              // [taps, nodes, hidden]
  float* logits;            // [wanted nodes, vocab]
  VentrisRope ropes[2];
};

// One product of a row of them. form 0: W x. form 1, residual: x + silu(W_k x) for each of the rows / columns square
// matrices that W is made of, each giving a row of its own. form 2, halves: the first half of W x plus silu of the
// second.
struct VentrisStage {
  VentrisMatrix matrix;
  int64_t form;
};

struct VentrisStages {
  const VentrisStage* stages;
  int64_t count;
  const float* norm;  // of an RMS norm before the first stage, or null
  float norm_epsilon;
  float reserved;
  int64_t threads;
};

enum VentrisStatus { kOk = 0, kTokenOutOfRange = 1, kPositionOutOfRange = 2, kMalformedTree = 3, kNodeOutOfRange = 4 };

const char* ventris_kernel();
void* ventris_open(const VentrisModel* model);
void ventris_close(void* decoder);

// Run a batch; `call` is the flat description that call.h reads.
int64_t ventris_run(void* decoder, const int64_t* call, const VentrisBuffers* buffers);

// Final norm and vocabulary projection: [rows, hidden] -> [rows, vocab].
void ventris_head(void* decoder, const float* hidden, int64_t rows, float* logits);

// Rotated and scaled queries of one input row of a layer, float32 [heads, head_dim].
void ventris_queries(void* decoder, int64_t layer, int64_t position, const float* hidden, const VentrisRope* ropes,
                     float* queries);

// Products in a row: float32 [rows, columns of the first] -> [rows * copies, rows of the last].
void* ventris_open_stages(const VentrisStages* stages);
void ventris_close_stages(void* stages);
void ventris_run_stages(void* stages, const float* in, int64_t rows, float* out);

// The k largest numbers of a row in falling order (ties: the smaller index first); returns log(sum(exp(row))).
float ventris_top_k(const float* row, int64_t count, int64_t k, float* values, int64_t* indices);
}
