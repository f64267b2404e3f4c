// The batch of one run, read from a flat list of integers (one list is far quicker to hand over from Python
// than nested structures). The list, in order:
//
//   requests, first layer, last layer, number of taps, the taps
//   for each request:
//     start, nodes, next position, address of embeddings (float32 [nodes, hidden]) or 0
//     number of spans; for each: address, capacity, used rows, first position, address of positions or 0
//     (int32 [layers, stride]), their stride
//     number of spans that another decoder lends; for each: address of its last layer, capacity, used rows
//     parents of all start + nodes scratch rows
//     number of scratch rows up to which the nodes look, 0 if each looks up to itself; these rows
//     tokens of the nodes
//     number of wanted nodes or -1 for all, the wanted nodes
#pragma once

#include <cstdint>
#include <vector>

#include "abi.h"

namespace ventris {

struct Span {
  uint8_t* data;  // [layers, 2, kv_heads, capacity, head_dim]
  int64_t capacity;
  int64_t used;
  int64_t first_position;
  const int32_t* positions;  // null when they are consecutive
  int64_t positions_stride;
};

// One request's part of a batch. The last span is the one that holds the scratch rows, behind its used rows.
struct Request {
  int64_t start;
  int64_t nodes;
  int64_t first_node;  // index of its first new node in the flat batch
  int64_t committed;   // rows of all spans
  int64_t next_position;
  const float* embeddings;
  std::vector<Span> spans;
  std::vector<Span> lent;  // rows of one layer of another decoder, all of which every node looks at
  int64_t lent_rows;
  std::vector<int64_t> tokens;
  std::vector<int32_t> parents;
  std::vector<int32_t> depths;  // of all scratch rows, 0 for one that follows the last committed row
  std::vector<int32_t> sees;    // of the nodes: the scratch row that is seen with its ancestors; empty: the node

  int64_t position(int64_t scratch_row) const { return next_position + depths[scratch_row]; }
  int32_t seen_from(int32_t scratch_row) const { return sees.empty() ? scratch_row : sees[scratch_row - start]; }
};

struct Call {
  int64_t first_layer;
  int64_t last_layer;
  int64_t nodes = 0;
  std::vector<int64_t> taps;
  std::vector<Request> requests;
  std::vector<int64_t> wanted;  // flat indices of the nodes whose logits are wanted
};

// Read and check a call.
VentrisStatus read_call(const int64_t* from, const VentrisModel& model, Call& call);

}  // namespace ventris
