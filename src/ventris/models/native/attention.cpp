#include "attention.h"

#include <algorithm>
#include <limits>

#include "vector_math.h"

namespace ventris {
namespace {

constexpr int kQueriesAtOnce = 4;
// Value rows that are added to all queries before the next ones are touched, so that they stay in the cache.
constexpr int64_t kValueRows = 128;

struct BFloat {
  using Element = uint16_t;
  static constexpr int64_t kPerWord = 2;
  static Floats multiply(Floats sum, Words keys, uint32_t query) { return dot_pairs(sum, keys, query); }
  static Floats load_values(const Element* from) { return load_bfloat(from); }
};

struct Float {
  using Element = float;
  static constexpr int64_t kPerWord = 1;
  static Floats multiply(Floats sum, Words keys, uint32_t query) {
    return multiply_add(as_floats(keys), as_floats(splat_word(query)), sum);
  }
  static Floats load_values(const Element* from) { return load(from); }
};

// A run of rows with consecutive addresses.
template <class Element>
struct Stretch {
  const Element* keys;
  const Element* values;
  int64_t rows;
};

// The committed rows from number `skip` on, and the first `scratch` scratch rows.
template <class Element>
std::vector<Stretch<Element>> stretches(const VentrisModel& model, const std::vector<Span>& spans, int64_t layer,
                                        int64_t kv_head, int64_t skip, int64_t scratch) {
  std::vector<Stretch<Element>> parts;
  for (size_t i = 0; i < spans.size(); ++i) {
    const Span& span = spans[i];
    int64_t rows = span.used + (i + 1 == spans.size() ? scratch : 0);
    int64_t skipped = std::min(skip, rows);
    skip -= skipped;
    if (skipped == rows) continue;
    const Element* data = (const Element*)span.data;
    int64_t head_size = span.capacity * model.head_dim;
    const Element* keys = data + (layer * 2 * model.kv_heads + kv_head) * head_size + skipped * model.head_dim;
    parts.push_back({keys, keys + model.kv_heads * head_size, rows - skipped});
  }
  return parts;
}

// Committed rows whose position is below `lowest`. Positions rise along the cache.
int64_t rows_below(const Request& request, int64_t layer, int64_t lowest) {
  int64_t count = 0;
  for (const Span& span : request.spans) {
    if (span.positions) {
      const int32_t* positions = span.positions + layer * span.positions_stride;
      count += std::lower_bound(positions, positions + span.used, lowest) - positions;
    } else {
      count += std::clamp(lowest - span.first_position, (int64_t)0, span.used);
    }
  }
  return count;
}

// Sixteen key rows as columns, keys[word][row]; full rows of words `first .. first + 15`.
void gather_square(const uint32_t* rows, int64_t words, uint32_t* keys) {
  Words row[kLanes], column[kLanes];
  VENTRIS_UNROLL
  for (int i = 0; i < kLanes; ++i) row[i] = load_words(rows + i * words);
  transpose(row, column);
  VENTRIS_UNROLL
  for (int i = 0; i < kLanes; ++i) std::memcpy(keys + i * kLanes, &column[i], sizeof(Words));
}

// Up to sixteen key rows as columns, keys[word][row]. Columns past `count` hold anything.
void gather_keys(const void* from, int64_t count, int64_t words, uint32_t* keys) {
  const uint32_t* rows = (const uint32_t*)from;
  int64_t first = 0;
  if (count == kLanes)
    for (; first + kLanes <= words; first += kLanes) gather_square(rows + first, words, keys + first * kLanes);
  for (int64_t row = 0; row < count; ++row)
    for (int64_t word = first; word < words; ++word) keys[word * kLanes + row] = rows[row * words + word];
}

// Ask for sixteen rows of `dim` elements.
template <class Element>
void prefetch_rows(const Element* rows, int64_t dim) {
  const char* from = (const char*)rows;
  for (int64_t offset = 0; offset < kLanes * dim * (int64_t)sizeof(Element); offset += 64) prefetch(from + offset);
}

template <class Format, int Q>
void score(const uint32_t* keys, int64_t words, const uint32_t* const* queries, float* const* out) {
  Floats even[Q] = {}, odd[Q] = {};
  int64_t word = 0;
  for (; word + 1 < words; word += 2) {
    Words first = load_words(keys + word * kLanes), second = load_words(keys + (word + 1) * kLanes);
    VENTRIS_UNROLL
    for (int q = 0; q < Q; ++q) even[q] = Format::multiply(even[q], first, queries[q][word]);
    VENTRIS_UNROLL
    for (int q = 0; q < Q; ++q) odd[q] = Format::multiply(odd[q], second, queries[q][word + 1]);
  }
  if (word < words)
    VENTRIS_UNROLL
    for (int q = 0; q < Q; ++q)
      even[q] = Format::multiply(even[q], load_words(keys + word * kLanes), queries[q][word]);
  VENTRIS_UNROLL
  for (int q = 0; q < Q; ++q) store(out[q], even[q] + odd[q]);
}

// Softmax in place over `count` scores; the 16 numbers behind them are overwritten. Returns the sum of the
// exponentials, by which the caller divides.
float exponentials(float* scores, int64_t count, float cap) {
  store(scores + count, splat(-std::numeric_limits<float>::infinity()));
  Floats largest = splat(-std::numeric_limits<float>::infinity());
  for (int64_t i = 0; i < count; i += kLanes) {
    Floats value = load(scores + i);
    if (cap > 0.0f) {
      value = i + kLanes <= count ? soft_cap(value, cap) : value;
      for (int64_t lane = 0; i + kLanes > count && i + lane < count; ++lane)
        value[lane] = soft_cap(splat(value[lane]), cap)[0];
      store(scores + i, value);
    }
    largest = maximum(largest, value);
  }
  Floats top = splat(largest_lane(largest)), sum{};
  for (int64_t i = 0; i < count; i += kLanes) {
    Floats value = exponential(load(scores + i) - top);
    store(scores + i, value);
    sum += value;
  }
  return sum_lanes(sum);
}

// Add weights[q][row] * values[row] to sums[q] for up to 64 dimensions, row after row.
template <class Format, int Q, int V>
void add_values(const typename Format::Element* values, int64_t stride, int64_t rows, int64_t last_width,
                const float* const* weights, float* const* sums) {
  Floats sum[Q][V];
  VENTRIS_UNROLL
  for (int q = 0; q < Q; ++q)
    VENTRIS_UNROLL
    for (int v = 0; v < V; ++v) sum[q][v] = load(sums[q] + v * kLanes);
  for (int64_t row = 0; row < rows; ++row, values += stride) {
    Floats value[V];
    VENTRIS_UNROLL
    for (int v = 0; v < V; ++v) {
      const typename Format::Element* from = values + v * kLanes;
      if (v == V - 1 && last_width < kLanes) {
        typename Format::Element padded[kLanes] = {};
        std::memcpy(padded, from, last_width * sizeof(*from));
        value[v] = Format::load_values(padded);
      } else {
        value[v] = Format::load_values(from);
      }
    }
    VENTRIS_UNROLL
    for (int q = 0; q < Q; ++q) {
      Floats weight = splat(weights[q][row]);
      VENTRIS_UNROLL
      for (int v = 0; v < V; ++v) sum[q][v] = multiply_add(weight, value[v], sum[q][v]);
    }
  }
  VENTRIS_UNROLL
  for (int q = 0; q < Q; ++q)
    VENTRIS_UNROLL
    for (int v = 0; v < V; ++v) store(sums[q] + v * kLanes, sum[q][v]);
}

template <class Format, int Q>
void add_values_any_width(const typename Format::Element* values, int64_t stride, int64_t rows, int64_t dimensions,
                          const float* const* weights, float* const* sums) {
  for (int64_t first = 0; first < dimensions; first += 4 * kLanes) {
    int64_t width = std::min<int64_t>(4 * kLanes, dimensions - first);
    int64_t last_width = (width - 1) % kLanes + 1;
    float* part[Q];
    VENTRIS_UNROLL
    for (int q = 0; q < Q; ++q) part[q] = sums[q] + first;
    switch ((width + kLanes - 1) / kLanes) {
      case 1: add_values<Format, Q, 1>(values + first, stride, rows, last_width, weights, part); break;
      case 2: add_values<Format, Q, 2>(values + first, stride, rows, last_width, weights, part); break;
      case 3: add_values<Format, Q, 3>(values + first, stride, rows, last_width, weights, part); break;
      default: add_values<Format, Q, 4>(values + first, stride, rows, last_width, weights, part); break;
    }
  }
}

// Call body.template operator()<Q>(first) for groups of up to four of `count` queries.
template <class Body>
void in_groups(int64_t count, Body&& body) {
  int64_t first = 0;
  for (; first + kQueriesAtOnce <= count; first += kQueriesAtOnce) body.template operator()<4>(first);
  switch (count - first) {
    case 3: return body.template operator()<3>(first);
    case 2: return body.template operator()<2>(first);
    case 1: return body.template operator()<1>(first);
  }
}

// Everything that one call of attend() works with.
template <class Format>
class TileAttention {
 public:
  TileAttention(const VentrisModel& model, const Request& request, const NodeTile& tile, int64_t layer,
                int64_t window, AttentionScratch& scratch)
      : TileAttention(model, request, tile, window) {
    int64_t lowest = std::numeric_limits<int64_t>::max();
    for (int32_t row = tile.first; row < tile.last; ++row) {
      lowest = std::min(lowest, lowest_position(row));
      scratch_ = std::max(scratch_, request.seen_from(row) + 1);
    }
    skipped_ = window ? rows_below(request, layer, lowest) : 0;
    layer_ = layer;
    parts_ = stretches<typename Format::Element>(model, request.spans, layer, tile.kv_head, skipped_, scratch_);
    reserve(request.committed - skipped_ + scratch_, scratch);
    ancestors_ = scratch.ancestors.reserve(scratch_);
  }

  // Over the lent rows.
  TileAttention(const VentrisModel& model, const Request& request, const NodeTile& tile, AttentionScratch& scratch)
      : TileAttention(model, request, tile, 0) {
    parts_ = stretches<typename Format::Element>(model, request.lent, 0, tile.kv_head, 0, 0);
    reserve(request.lent_rows, scratch);
  }

  // queries: words [node of the tile, heads, words], beginning at the first head of the group.
  void run(const uint32_t* queries, float* out, int64_t node_stride) {
    compute_scores(queries);
    for (int64_t query = 0; query < count_; ++query) soften(query);
    finish(out, node_stride);
  }

  // The same over the lent rows: every query sees all of them.
  void run_across(const uint32_t* queries, float* out, int64_t node_stride) {
    compute_scores(queries);
    for (int64_t query = 0; query < count_ && columns_; ++query) make_weights(scores(query), columns_);
    finish(out, node_stride);
  }

 private:
  TileAttention(const VentrisModel& model, const Request& request, const NodeTile& tile, int64_t window)
      : model_(model),
        request_(request),
        tile_(tile),
        window_(window),
        group_(model.heads / model.kv_heads),
        count_((tile.last - tile.first) * group_),
        words_(model.head_dim / Format::kPerWord) {}

  void reserve(int64_t columns, AttentionScratch& scratch) {
    columns_ = columns;
    stride_ = (columns_ + 2 * kLanes) / kLanes * kLanes;
    padded_dim_ = (model_.head_dim + kLanes - 1) / kLanes * kLanes;
    scores_ = scratch.scores.reserve(count_ * stride_);
    outputs_ = scratch.outputs.reserve(count_ * padded_dim_);
    keys_ = scratch.keys.reserve(words_ * kLanes);
    std::fill(outputs_, outputs_ + count_ * padded_dim_, 0.0f);
  }

  void finish(float* out, int64_t node_stride) {
    add_up_values();
    for (int64_t query = 0; query < count_; ++query) {
      float* to = out + query / group_ * node_stride + query % group_ * model_.head_dim;
      const float* from = outputs_ + query * padded_dim_;
      for (int64_t i = 0; i < model_.head_dim; ++i) to[i] = from[i];
    }
  }

  // Smallest position that a scratch row sees.
  int64_t lowest_position(int32_t row) const { return window_ ? request_.position(row) - window_ + 1 : 0; }

  float* scores(int64_t query) { return scores_ + query * stride_; }

  void compute_scores(const uint32_t* queries) {
    int64_t column = 0;
    for (const auto& part : parts_) {
      for (int64_t row = 0; row < part.rows; row += kLanes) {
        // The rows lie in far memory, and the values are next: ask for them while the scores are computed.
        prefetch_rows(part.keys + (row + 2 * kLanes) * model_.head_dim, model_.head_dim);
        prefetch_rows(part.values + row * model_.head_dim, model_.head_dim);
        gather_keys(part.keys + row * model_.head_dim, std::min<int64_t>(kLanes, part.rows - row), words_,
                    keys_);
        in_groups(count_, [&]<int Q>(int64_t first) {
          const uint32_t* from[Q];
          float* to[Q];
          for (int q = 0; q < Q; ++q) {
            int64_t query = first + q;
            from[q] = queries + (query / group_ * model_.heads + query % group_) * words_;
            to[q] = scores(query) + column + row;
          }
          score<Format, Q>(keys_, words_, from, to);
        });
      }
      column += part.rows;
    }
  }

  // Turn the scores of one query into weights that sum to one, zero where it does not see.
  void soften(int64_t query) {
    const int32_t node = tile_.first + (int32_t)(query / group_);
    const int32_t row = request_.seen_from(node);
    const int32_t depth = request_.depths[row];
    const int64_t committed = request_.committed - skipped_;
    const int64_t lowest = lowest_position(node);
    float* scratch_scores = scores(query) + committed;

    // Ancestors move up to lie side by side behind the committed rows.
    const bool chain = depth == row;
    if (!chain) {
      for (int32_t ancestor = row, k = depth; ancestor >= 0; ancestor = request_.parents[ancestor], --k)
        ancestors_[k] = ancestor;
      for (int32_t k = 0; k <= depth; ++k) scratch_scores[k] = scratch_scores[ancestors_[k]];
    }

    int64_t hidden = 0;
    if (window_) {
      hidden = rows_below(request_, layer_, lowest) - skipped_;
      if (lowest > request_.next_position) hidden = committed + lowest - request_.next_position;
    }
    float* visible = scores(query) + hidden;
    make_weights(visible, committed + depth + 1 - hidden);

    // And back to the places of their rows, with zeros elsewhere.
    std::fill(scores(query), visible, 0.0f);
    if (!chain) {
      int32_t behind = scratch_;
      for (int32_t k = depth; k >= 0; --k) {
        float weight = scratch_scores[k];
        int32_t place = ancestors_[k];
        std::fill(scratch_scores + place + 1, scratch_scores + behind, 0.0f);
        scratch_scores[place] = weight;
        behind = place;
      }
      std::fill(scratch_scores, scratch_scores + behind, 0.0f);
    } else {
      std::fill(scratch_scores + depth + 1, scratch_scores + scratch_, 0.0f);
    }
  }

  // Softmax in place.
  void make_weights(float* visible, int64_t count) const {
    float inverse = 1.0f / exponentials(visible, count, model_.attention_softcap);
    for (int64_t i = 0; i < count; ++i) visible[i] *= inverse;
  }

  // A row that a query does not see has weight zero, and adding zero changes nothing.
  void add_up_values() {
    int64_t column = 0;
    for (const auto& part : parts_) {
      for (int64_t row = 0; row < part.rows; row += kValueRows) {
        const int64_t rows = std::min(kValueRows, part.rows - row);
        add_rows(part.values + row * model_.head_dim, rows, column + row);
      }
      column += part.rows;
    }
  }

  void add_rows(const typename Format::Element* values, int64_t rows, int64_t column) {
    in_groups(count_, [&]<int Q>(int64_t first) {
      const float* weights[Q];
      float* sums[Q];
      for (int q = 0; q < Q; ++q) {
        weights[q] = scores(first + q) + column;
        sums[q] = outputs_ + (first + q) * padded_dim_;
      }
      add_values_any_width<Format, Q>(values, model_.head_dim, rows, model_.head_dim, weights, sums);
    });
  }

  const VentrisModel& model_;
  const Request& request_;
  const NodeTile& tile_;
  const int64_t window_;
  const int64_t group_;  // queries of one node that share the head
  const int64_t count_;  // queries
  const int64_t words_;  // of a query or key
  int64_t layer_ = 0;
  int64_t skipped_ = 0;  // committed rows that no query of the tile sees
  int32_t scratch_ = 0;  // scratch rows that some query may see
  int64_t columns_;      // rows that some query may see
  int64_t stride_;
  int64_t padded_dim_;
  std::vector<Stretch<typename Format::Element>> parts_;
  float* scores_;   // [queries, stride]
  float* outputs_;  // [queries, padded_dim]
  uint32_t* keys_;  // [words, 16 rows]
  int32_t* ancestors_ = nullptr;
};

// Where the queries of a tile and key/value head lie, and where what comes out belongs.
struct Place {
  const uint32_t* queries;
  float* out;
  int64_t node_stride;
};

Place place_of(const VentrisModel& model, const Request& request, const NodeTile& tile, int64_t words,
               const uint32_t* queries, float* out) {
  const int64_t node = request.first_node + tile.first - request.start;
  const int64_t head = tile.kv_head * (model.heads / model.kv_heads);
  const int64_t node_stride = model.heads * model.head_dim;
  return {queries + (node * model.heads + head) * words, out + node * node_stride + head * model.head_dim, node_stride};
}

}  // namespace

void attend(const VentrisModel& model, const Request& request, const NodeTile& tile, int64_t layer, int64_t window,
            const uint32_t* queries, AttentionScratch& scratch, float* out) {
  const auto [from, to, stride] = place_of(model, request, tile, row_words(model), queries, out);
  if (model.bfloat_cache)
    TileAttention<BFloat>(model, request, tile, layer, window, scratch).run(from, to, stride);
  else
    TileAttention<Float>(model, request, tile, layer, window, scratch).run(from, to, stride);
}

void attend_across(const VentrisModel& model, const Request& request, const NodeTile& tile,
                   const uint32_t* queries, AttentionScratch& scratch, float* out) {
  const auto [from, to, stride] = place_of(model, request, tile, lent_words(model), queries, out);
  if (model.bfloat_lent)
    TileAttention<BFloat>(model, request, tile, scratch).run_across(from, to, stride);
  else
    TileAttention<Float>(model, request, tile, scratch).run_across(from, to, stride);
}

}  // namespace ventris
