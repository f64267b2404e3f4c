#include "decoder.h"

#include <algorithm>
#include <numeric>

#include "products.h"

namespace ventris {
namespace {

// Panels of a unit of the gated product: two of the gate and two of the up projection give 32 outputs.
constexpr int64_t kPanelsPerUnit = 4;

void prefetch_row(const float* row, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) prefetch(row + i);
}

// Rotary embedding of one head in place: pairs (i, i + half) turn by the angle of the position.
void rotate(const VentrisRope& rope, int64_t position, int64_t rotary_dim, float* head) {
  const int64_t half = rotary_dim / 2;
  const float* __restrict cosines = rope.cosines + position * half;
  const float* __restrict sines = rope.sines + position * half;
  float* __restrict left = head;
  float* __restrict right = head + half;
  for (int64_t i = 0; i < half; ++i) {
    float first = left[i], second = right[i];
    left[i] = first * cosines[i] - second * sines[i];
    right[i] = second * cosines[i] + first * sines[i];
  }
}

void put_words(bool bfloat, const float* values, int64_t count, uint32_t* to) {
  if (!bfloat) {
    std::memcpy(to, values, count * 4);
    return;
  }
  uint16_t* halves = (uint16_t*)to;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    Shorts rounded = to_bfloat(load(values + i));
    std::memcpy(halves + i, &rounded, sizeof rounded);
  }
  for (; i < count; ++i) halves[i] = to_bfloat(values[i]);
}

// A query head ready for attention: normed, rotated and scaled, in place.
void prepare_query(const VentrisModel& sizes, const Layer& layer, const VentrisRope* ropes, int64_t position,
                   float* head) {
  if (layer.sizes.query_norm)
    rms_norm(head, layer.sizes.query_norm, sizes.norm_epsilon, sizes.head_dim, head);
  rotate(ropes[layer.sizes.rope_table], position, sizes.rotary_dim, head);
  for (int64_t i = 0; i < sizes.head_dim; ++i) head[i] *= sizes.query_scale;
}

// The nodes of a tile in so many tiles of about the same size; some are empty where there are fewer nodes.
std::vector<NodeTile> cut(const NodeTile& tile, int64_t parts) {
  std::vector<NodeTile> tiles(parts, tile);
  const int64_t nodes = tile.last - tile.first;
  for (int64_t part = 0; part < parts; ++part) {
    tiles[part].first = tile.first + (int32_t)(nodes * part / parts);
    tiles[part].last = tile.first + (int32_t)(nodes * (part + 1) / parts);
  }
  return tiles;
}

}  // namespace

Layer::Layer(const VentrisLayer& packed)
    : query_key_value(packed.query_key_value),
      output(packed.output),
      gate_up(packed.gate_up),
      down(packed.down),
      cross_query(packed.cross_query),
      cross_output(packed.cross_output),
      sizes(packed) {}

Decoder::Decoder(const VentrisModel& packed)
    : sizes(packed),
      layers(packed.layers, packed.layers + packed.layer_count),
      embedding(packed.embedding),
      head(packed.head) {}

Run::Run(std::shared_ptr<Decoder> decoder, Call call, const VentrisBuffers& buffers)
    : Job((int)decoder->sizes.threads),
      decoder_(std::move(decoder)),
      call_(std::move(call)),
      buffers_(buffers),
      sizes_(decoder_->sizes),
      hidden_(decoder_->hidden.reserve(call_.nodes * decoder_->sizes.hidden_size)) {
  Decoder& memory = *decoder_;
  const int64_t nodes = call_.nodes, width = sizes_.heads * sizes_.head_dim;
  int64_t inputs = memory.head.activation_bytes(std::max<int64_t>(nodes, 1));
  if (!memory.layers.empty()) {
    const Layer& layer = memory.layers[0];
    inputs = std::max(inputs, layer.query_key_value.activation_bytes(nodes));
    inputs = std::max(inputs, layer.output.activation_bytes(nodes));
    inputs = std::max(inputs, layer.gate_up.activation_bytes(nodes));
    inputs = std::max(inputs, layer.cross_query.activation_bytes(nodes));
    inputs = std::max(inputs, layer.cross_output.activation_bytes(nodes));
    memory.gated.reserve(layer.down.activation_bytes(nodes));
  }
  memory.inputs.reserve(inputs);
  memory.branch.reserve(nodes * sizes_.hidden_size);
  memory.projected.reserve(nodes * (width + 2 * sizes_.kv_heads * sizes_.head_dim));
  memory.queries.reserve(nodes * sizes_.heads * std::max(row_words(sizes_), lent_words(sizes_)));
  memory.attended.reserve(nodes * width);
  for (int i = 0; i < threads(); ++i) memory.rows[i].reserve(std::max(2 * sizes_.hidden_size, width));

  request_of_.reserve(nodes);
  for (size_t i = 0; i < call_.requests.size(); ++i)
    request_of_.insert(request_of_.end(), call_.requests[i].nodes, (int32_t)i);
  cut_tiles();
}

// Large tiles read the keys less often, so only those that would leave threads without work at the end are cut
// again. Every thread begins with an equal share of the list.
void Run::cut_tiles() {
  std::vector<NodeTile> whole, parts;
  for (size_t i = 0; i < call_.requests.size(); ++i) {
    const Request& request = call_.requests[i];
    const NodeTile all{(int32_t)i, 0, (int32_t)request.start, (int32_t)(request.start + request.nodes)};
    for (const NodeTile& tile : cut(all, (request.nodes + kTileNodes - 1) / kTileNodes))
      for (int32_t head = 0; head < sizes_.kv_heads; ++head) whole.push_back({tile.request, head, tile.first, tile.last});
  }
  const int64_t workers = threads(), left = (int64_t)whole.size() % workers;
  for (; (int64_t)whole.size() % workers; whole.pop_back())
    for (const NodeTile& tile : cut(whole.back(), workers / std::gcd(left, workers))) parts.push_back(tile);
  for (int64_t worker = 0; worker < workers; ++worker)
    for (const auto* list : {&whole, &parts}) {
      const int64_t share = (int64_t)list->size() / workers;
      tiles_.insert(tiles_.end(), list->begin() + worker * share, list->begin() + (worker + 1) * share);
    }
}

void Run::work(Worker& worker) {
  begin(worker);
  for (int64_t index = call_.first_layer; index < call_.last_layer; ++index) {
    tap(worker, index);
    attention_block(worker, decoder_->layers[index], index);
    if (decoder_->layers[index].sizes.cross_norm) cross_attention_block(worker, decoder_->layers[index]);
    feed_forward_block(worker, decoder_->layers[index]);
  }
  tap(worker, call_.last_layer);
  finish(worker);
  if (buffers_.logits) apply_head(worker);
}

void Run::begin(Worker& worker) {
  worker.section(call_.nodes, call_.nodes, [&](int64_t begin, int64_t end) {
    const int64_t width = sizes_.hidden_size;
    if (buffers_.hidden_in) {
      std::copy(buffers_.hidden_in + begin * width, buffers_.hidden_in + end * width, hidden_ + begin * width);
      return;
    }
    for (int64_t node = begin; node < end; ++node) embed(node, hidden_ + node * width);
  });
}

void Run::embed(int64_t node, float* to) const {
  const Request& request = call_.requests[request_of_[node]];
  const int64_t width = sizes_.hidden_size, within = node - request.first_node;
  if (request.embeddings) {
    std::copy_n(request.embeddings + within * width, width, to);
    return;
  }
  embed_token(node, to);
}

void Run::embed_token(int64_t node, float* to) const {
  const Request& request = call_.requests[request_of_[node]];
  const int64_t width = sizes_.hidden_size;
  decoder_->embedding.read_row(request.tokens[node - request.first_node], to);
  for (int64_t i = 0; i < width; ++i) to[i] *= sizes_.embedding_scale;
}

void Run::tap(Worker& worker, int64_t layer) {
  for (size_t i = 0; i < call_.taps.size(); ++i) {
    if (call_.taps[i] != layer) continue;
    const int64_t width = sizes_.hidden_size;
    float* to = buffers_.taps + (int64_t)i * call_.nodes * width;
    worker.section(call_.nodes, call_.nodes, [&](int64_t begin, int64_t end) {
      std::copy(hidden_ + begin * width, hidden_ + end * width, to + begin * width);
    });
  }
}

void Run::finish(Worker& worker) {
  if (!buffers_.hidden_out) return;
  const int64_t width = sizes_.hidden_size;
  worker.section(call_.nodes, call_.nodes, [&](int64_t begin, int64_t end) {
    std::copy(hidden_ + begin * width, hidden_ + end * width, buffers_.hidden_out + begin * width);
  });
}

void Run::attention_block(Worker& worker, const Layer& layer, int64_t index) {
  Decoder& memory = *decoder_;
  const int64_t nodes = call_.nodes, kv_heads = sizes_.kv_heads;
  put_normed(worker, layer.sizes.input_norm, layer.query_key_value, layer.sizes.token_norm);
  const Matrix& projection = layer.query_key_value;
  float* projected = memory.projected.data();
  multiply_into(worker, projection, memory.inputs.data(), nodes, projected);
  worker.section(nodes * kv_heads, nodes * kv_heads, [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit)
      rotate_and_store(layer, index, unit / kv_heads, unit % kv_heads);
  });
  mix_in(worker, layer.output, layer.sizes.attention_output_norm, [&](const NodeTile& tile) {
    attend(sizes_, call_.requests[tile.request], tile, index, layer.sizes.window, memory.queries.data(),
           memory.attention[worker.index()], memory.attended.data());
  });
}

// Attention to what another decoder lends: queries alone are made here, and nothing is stored.
void Run::cross_attention_block(Worker& worker, const Layer& layer) {
  Decoder& memory = *decoder_;
  const int64_t nodes = call_.nodes, heads = sizes_.heads;
  put_normed(worker, layer.sizes.cross_norm, layer.cross_query);
  float* projected = memory.projected.data();
  multiply_into(worker, layer.cross_query, memory.inputs.data(), nodes, projected);
  worker.section(nodes * heads, nodes * heads, [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit)
      put_query(layer, unit / heads, unit % heads, sizes_.bfloat_lent, projected + unit * sizes_.head_dim);
  });
  mix_in(worker, layer.cross_output, nullptr, [&](const NodeTile& tile) {
    attend_across(sizes_, call_.requests[tile.request], tile, memory.queries.data(),
                  memory.attention[worker.index()], memory.attended.data());
  });
}

// A rotated and scaled query head, in the words that attention reads.
void Run::put_query(const Layer& layer, int64_t node, int64_t head, bool bfloat, float* row) {
  const Request& request = call_.requests[request_of_[node]];
  const int64_t position = request.position(request.start + node - request.first_node);
  const int64_t words = bfloat ? sizes_.head_dim / 2 : sizes_.head_dim;
  prepare_query(sizes_, layer, buffers_.ropes, position, row);
  put_words(bfloat, row, sizes_.head_dim, decoder_->queries.data() + (node * sizes_.heads + head) * words);
}

// Attend tile by tile, project what came out, and add it to the hidden rows.
template <class Attend>
void Run::mix_in(Worker& worker, const Matrix& output, const float* norm, Attend&& attend_tile) {
  Decoder& memory = *decoder_;
  const int64_t nodes = call_.nodes, width = sizes_.heads * sizes_.head_dim;
  worker.section((int64_t)tiles_.size(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit)
      if (tiles_[unit].first < tiles_[unit].last) attend_tile(tiles_[unit]);
  });
  worker.section(nodes, nodes, [&](int64_t begin, int64_t end) {
    for (int64_t node = begin; node < end; ++node) {
      const float* row = memory.attended.data() + node * width;
      if (node + 1 < end) prefetch_row(row + width, width);
      output.put_activations(memory.inputs.data(), node, 0, row, width);
    }
  });
  add_output(worker, output, memory.inputs.data(), norm);
}

// The queries of one key/value head and node become attention's queries, its key and value go to the cache.
void Run::rotate_and_store(const Layer& layer, int64_t index, int64_t node, int64_t kv_head) {
  const Request& request = call_.requests[request_of_[node]];
  const Span& span = request.spans.back();
  const int64_t scratch_row = request.start + node - request.first_node;
  const int64_t position = request.position(scratch_row), dim = sizes_.head_dim;
  const int64_t group = sizes_.heads / sizes_.kv_heads, words = row_words(sizes_);
  const bool bfloat = sizes_.bfloat_cache;
  float* row = decoder_->projected.data() + node * layer.query_key_value.rows();

  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
    put_query(layer, node, head, bfloat, row + head * dim);
  float* key = row + (sizes_.heads + kv_head) * dim;
  const float* value = key + sizes_.kv_heads * dim;
  if (layer.sizes.key_norm) rms_norm(key, layer.sizes.key_norm, sizes_.norm_epsilon, dim, key);
  rotate(buffers_.ropes[layer.sizes.rope_table], position, sizes_.rotary_dim, key);

  const int64_t row_bytes = words * 4, head_bytes = span.capacity * row_bytes;
  uint8_t* keys = span.data + (index * 2 * sizes_.kv_heads + kv_head) * head_bytes + (span.used + scratch_row) * row_bytes;
  put_words(bfloat, key, dim, (uint32_t*)keys);
  put_words(bfloat, value, dim, (uint32_t*)(keys + sizes_.kv_heads * head_bytes));
}

void Run::feed_forward_block(Worker& worker, const Layer& layer) {
  Decoder& memory = *decoder_;
  put_normed(worker, layer.sizes.feed_forward_norm, layer.gate_up);
  const int64_t nodes = call_.nodes, width = sizes_.intermediate_size;
  const auto activation = (Activation)sizes_.activation;
  // A unit is 32 outputs, so that their rounding to int8 for the down projection is the unit's own affair.
  const int64_t units = (width + kBlock - 1) / kBlock;
  worker.section(units, units, [&](int64_t begin, int64_t end) {
    float gate[kPassNodes][kPanelRows], up[kPassNodes][kPanelRows], gated[kPassNodes][kBlock];
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t outputs = std::min(kBlock, width - unit * kBlock);
      for (int64_t first = 0, count; first < nodes; first += count) {
        count = pass_nodes(nodes - first);
        for (int64_t part = 0; part * kPanelRows < outputs; ++part) {
          const int64_t panel = kPanelsPerUnit * unit + 2 * part;
          layer.gate_up.multiply(panel, memory.inputs.data(), first, (int)count, gate);
          layer.gate_up.multiply(panel + 1, memory.inputs.data(), first, (int)count, up);
          for (int node = 0; node < count; ++node)
            store(gated[node] + part * kPanelRows, activate(activation, load(gate[node])) * load(up[node]));
        }
        for (int node = 0; node < count; ++node)
          layer.down.put_activations(memory.gated.data(), first + node, unit * kBlock, gated[node], outputs);
      }
    }
  });
  add_output(worker, layer.down, memory.gated.data(), layer.sizes.feed_forward_output_norm);
}

// Multiply, norm the product where the family does, and add it to the hidden rows.
void Run::add_output(Worker& worker, const Matrix& matrix, const uint8_t* inputs, const float* norm) {
  const int64_t width = sizes_.hidden_size;
  float* const branch = decoder_->branch.data();
  multiply(worker, matrix, inputs, call_.nodes,
           [&](int64_t panel, int64_t first, int count, float (*sums)[kPanelRows]) {
             const int64_t rows = rows_in(matrix, panel);
             for (int node = 0; node < count; ++node) {
               const int64_t at = (first + node) * width + panel * kPanelRows;
               if (norm)
                 std::copy_n(sums[node], rows, branch + at);
               else
                 for (int64_t i = 0; i < rows; ++i) hidden_[at + i] += sums[node][i];
             }
           });
  if (!norm) return;
  worker.section(call_.nodes, call_.nodes, [&](int64_t begin, int64_t end) {
    for (int64_t node = begin; node < end; ++node) {
      float* row = branch + node * width;
      rms_norm(row, norm, sizes_.norm_epsilon, width, row);
      for (int64_t i = 0; i < width; ++i) hidden_[node * width + i] += row[i];
    }
  });
}

// Norm the hidden rows into the activations of the product that comes next; with a token norm, each behind the
// embedding of its token.
void Run::put_normed(Worker& worker, const float* norm, const Matrix& next, const float* token_norm) {
  const int64_t width = sizes_.hidden_size;
  worker.section(call_.nodes, call_.nodes, [&](int64_t begin, int64_t end) {
    float* row = decoder_->rows[worker.index()].data();
    float* const behind = token_norm ? row + width : row;
    for (int64_t node = begin; node < end; ++node) {
      // Half of a row was written by other processors; ask for the next one while this one is computed.
      if (node + 1 < end) prefetch_row(hidden_ + (node + 1) * width, width);
      if (token_norm) {
        embed_token(node, row);
        rms_norm(row, token_norm, sizes_.norm_epsilon, width, row);
      }
      rms_norm(hidden_ + node * width, norm, sizes_.norm_epsilon, width, behind);
      next.put_activations(decoder_->inputs.data(), node, 0, row, next.columns());
    }
  });
}

void Run::apply_head(Worker& worker) {
  Decoder& memory = *decoder_;
  const int64_t width = sizes_.hidden_size, vocab = memory.head.rows(), wanted = (int64_t)call_.wanted.size();
  worker.section(wanted, wanted, [&](int64_t begin, int64_t end) {
    float* row = memory.rows[worker.index()].data();
    for (int64_t i = begin; i < end; ++i) {
      rms_norm(hidden_ + call_.wanted[i] * width, sizes_.final_norm, sizes_.norm_epsilon, width, row);
      memory.head.put_activations(memory.inputs.data(), i, 0, row, width);
    }
  });
  multiply(worker, memory.head, memory.inputs.data(), wanted,
           [&](int64_t panel, int64_t first, int count, float (*sums)[kPanelRows]) {
             const int64_t rows = rows_in(memory.head, panel);
             for (int node = 0; node < count; ++node) {
               if (sizes_.logit_softcap > 0.0f)
                 store(sums[node], soft_cap(load(sums[node]), sizes_.logit_softcap));
               std::copy_n(sums[node], rows, buffers_.logits + (first + node) * vocab + panel * kPanelRows);
             }
           });
}

void compute_queries(Decoder& decoder, int64_t index, int64_t position, const float* hidden, const VentrisRope* ropes,
                     float* queries) {
  const VentrisModel& sizes = decoder.sizes;
  const Layer& layer = decoder.layers[index];
  const Matrix& matrix = layer.query_key_value;
  const int64_t width = sizes.heads * sizes.head_dim;
  float* row = decoder.rows[0].reserve(std::max(sizes.hidden_size, width));
  uint8_t* inputs = decoder.inputs.reserve(matrix.activation_bytes(1));
  rms_norm(hidden, layer.sizes.input_norm, sizes.norm_epsilon, sizes.hidden_size, row);
  matrix.put_activations(inputs, 0, 0, row, sizes.hidden_size);
  for (int64_t first = 0; first < width; first += kPanelRows) {
    float sums[1][kPanelRows];
    matrix.multiply(first / kPanelRows, inputs, 0, 1, sums);
    std::copy_n(sums[0], std::min(kPanelRows, width - first), queries + first);
  }
  for (int64_t head = 0; head < sizes.heads; ++head)
    prepare_query(sizes, layer, ropes, position, queries + head * sizes.head_dim);
}

}  // namespace ventris
