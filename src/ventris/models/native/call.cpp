#include "call.h"

namespace ventris {
namespace {

void read_spans(const int64_t*& from, Request& request) {
  request.spans.resize(*from++);
  request.committed = 0;
  for (Span& span : request.spans) {
    span.data = (uint8_t*)*from++;
    span.capacity = *from++;
    span.used = *from++;
    span.first_position = *from++;
    span.positions = (const int32_t*)*from++;
    span.positions_stride = *from++;
    request.committed += span.used;
  }
}

void read_lent(const int64_t*& from, Request& request) {
  request.lent.resize(*from++);
  request.lent_rows = 0;
  for (Span& span : request.lent) {
    span = {};
    span.data = (uint8_t*)*from++;
    span.capacity = *from++;
    span.used = *from++;
    request.lent_rows += span.used;
  }
}

VentrisStatus read_tree(const int64_t*& from, int64_t context_length, Request& request) {
  int64_t rows = request.start + request.nodes;
  request.parents.resize(rows);
  request.depths.resize(rows);
  for (int64_t row = 0; row < rows; ++row) {
    int64_t parent = *from++;
    if (parent < -1 || parent >= row) return kMalformedTree;
    request.parents[row] = (int32_t)parent;
    request.depths[row] = parent < 0 ? 0 : request.depths[parent] + 1;
    if (row >= request.start && request.position(row) >= context_length) return kPositionOutOfRange;
  }
  request.sees.resize(*from++);
  for (int32_t& row : request.sees) {
    if (*from < 0 || *from >= rows) return kMalformedTree;
    row = (int32_t)*from++;
  }
  return kOk;
}

VentrisStatus read_request(const int64_t*& from, const VentrisModel& model, Call& call, Request& request) {
  request.start = *from++;
  request.nodes = *from++;
  request.next_position = *from++;
  request.embeddings = (const float*)*from++;
  request.first_node = call.nodes;
  read_spans(from, request);
  read_lent(from, request);
  if (VentrisStatus status = read_tree(from, model.context_length, request)) return status;
  request.tokens.assign(from, from + request.nodes);
  from += request.nodes;
  const bool read_tokens = !request.embeddings || (model.layer_count && model.layers[0].token_norm);
  if (read_tokens)
    for (int64_t token : request.tokens)
      if (token < 0 || token >= model.vocab_size) return kTokenOutOfRange;
  int64_t wanted = *from++;
  if (wanted < 0)
    for (int64_t node = 0; node < request.nodes; ++node) call.wanted.push_back(call.nodes + node);
  else
    for (int64_t i = 0; i < wanted; ++i, ++from) {
      if (*from < 0 || *from >= request.nodes) return kNodeOutOfRange;
      call.wanted.push_back(call.nodes + *from);
    }
  call.nodes += request.nodes;
  return kOk;
}

}  // namespace

VentrisStatus read_call(const int64_t* from, const VentrisModel& model, Call& call) {
  call.requests.resize(*from++);
  call.first_layer = *from++;
  call.last_layer = *from++;
  call.taps.resize(*from++);
  for (int64_t& tap : call.taps) tap = *from++;
  for (Request& request : call.requests)
    if (VentrisStatus status = read_request(from, model, call, request)) return status;
  return kOk;
}

}  // namespace ventris
