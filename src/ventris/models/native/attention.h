// Attention of a few neighbouring nodes of one request over one key/value head.
//
// A query's visible keys, in path order, are: the committed rows inside its window, its ancestors among the
// scratch rows from the top down, and itself; or, in place of itself, another scratch row up to which it looks,
// with the ancestors of that one. Each score is computed alone; the softmax runs over the visible scores laid
// side by side, in an order that depends on their count only; the values are added in path order. So the result
// of a node does not depend on which other nodes there are, on how the rows are spread over spans, or on whether
// a row is committed or scratch.
#pragma once

#include <cstdint>
#include <vector>

#include "abi.h"
#include "buffer.h"
#include "call.h"
#include "simd.h"

namespace ventris {

// Neighbouring nodes of a request that read the keys of one head together: scratch rows `first .. last - 1`.
struct NodeTile {
  int32_t request;
  int32_t kv_head;
  int32_t first;
  int32_t last;
};

// Words (32 bits) of one query or key row: a pair of bfloat16 numbers, or one float32 number, in each.
inline int64_t row_words(const VentrisModel& model) {
  return model.bfloat_cache ? model.head_dim / 2 : model.head_dim;
}

// The same of a row that another decoder lends.
inline int64_t lent_words(const VentrisModel& model) {
  return model.bfloat_lent ? model.head_dim / 2 : model.head_dim;
}

// Buffers of one thread.
struct AttentionScratch {
  Buffer<float> scores;
  Buffer<float> outputs;
  Buffer<int32_t> ancestors;
  Buffer<uint32_t> keys;
};

// Attend with the queries of `tile`.
//
// queries: words [flat node, heads, row_words], already scaled; out: float32 [flat node, heads * head_dim].
void attend(const VentrisModel& model, const Request& request, const NodeTile& tile, int64_t layer, int64_t window,
            const uint32_t* queries, AttentionScratch& scratch, float* out);

// The same over all rows that another decoder lends to the request, and nothing else; zeros where there are none.
//
// queries: words [flat node, heads, lent_words], already scaled.
void attend_across(const VentrisModel& model, const Request& request, const NodeTile& tile,
                   const uint32_t* queries, AttentionScratch& scratch, float* out);

}  // namespace ventris
