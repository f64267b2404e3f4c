// A decoder-only transformer over packed weights, and one run of a batch through some of its layers.
#pragma once

#include <memory>
#include <vector>

#include "abi.h"
#include "attention.h"
#include "buffer.h"
#include "call.h"
#include "panels.h"
#include "pool.h"
#include "vector_math.h"

namespace ventris {

struct Layer {
  explicit Layer(const VentrisLayer& packed);

  Matrix query_key_value;
  Matrix output;
  Matrix gate_up;
  Matrix down;
  Matrix cross_query;
  Matrix cross_output;
  VentrisLayer sizes;  // norms, window and rope table
};

// The weights and the working memory of one model. The memory serves one run at a time.
struct Decoder {
  explicit Decoder(const VentrisModel& packed);

  VentrisModel sizes;
  std::vector<Layer> layers;
  Matrix embedding;
  Matrix head;

  Buffer<float> hidden;      // [nodes, hidden]
  Buffer<float> branch;      // [nodes, hidden]: a block's output before its norm
  Buffer<float> projected;   // [nodes, queries + keys + values]
  Buffer<uint32_t> queries;  // [nodes, heads, row_words or lent_words]
  Buffer<float> attended;    // [nodes, heads * head_dim]
  Buffer<uint8_t> inputs;    // activations of the product that comes next
  Buffer<uint8_t> gated;     // activations of the down projection
  AttentionScratch attention[kMaxThreads];
  Buffer<float> rows[kMaxThreads];  // one normed row
};

// The program of a run: embed, layers, head, each only where it is asked for.
class Run : public Job {
 public:
  Run(std::shared_ptr<Decoder> decoder, Call call, const VentrisBuffers& buffers);

  void work(Worker& worker) override;

 private:
  void cut_tiles();
  void begin(Worker& worker);
  void tap(Worker& worker, int64_t layer);
  void attention_block(Worker& worker, const Layer& layer, int64_t index);
  void cross_attention_block(Worker& worker, const Layer& layer);
  void feed_forward_block(Worker& worker, const Layer& layer);
  void apply_head(Worker& worker);
  void finish(Worker& worker);

  void embed(int64_t node, float* to) const;
  void embed_token(int64_t node, float* to) const;
  void rotate_and_store(const Layer& layer, int64_t index, int64_t node, int64_t kv_head);
  void put_query(const Layer& layer, int64_t node, int64_t head, bool bfloat, float* row);
  template <class Attend>
  void mix_in(Worker& worker, const Matrix& output, const float* norm, Attend&& attend_tile);
  void add_output(Worker& worker, const Matrix& matrix, const uint8_t* inputs, const float* norm);
  void put_normed(Worker& worker, const float* norm, const Matrix& next, const float* token_norm = nullptr);

  const std::shared_ptr<Decoder> decoder_;
  const Call call_;
  const VentrisBuffers buffers_;
  const VentrisModel& sizes_;
  float* const hidden_;
  std::vector<NodeTile> tiles_;
  std::vector<int32_t> request_of_;  // request of each flat node
};

// Rotated and scaled queries of one input row of a layer, float32 [heads, head_dim].
void compute_queries(Decoder& decoder, int64_t layer, int64_t position, const float* hidden, const VentrisRope* ropes,
                     float* queries);

}  // namespace ventris
