#include "panels.h"

#include <algorithm>

namespace ventris {
namespace {

constexpr int64_t kInt8Block = 576;
constexpr int64_t kInt4Block = 320;
// The memory system hides its latency only if told early what comes next, across page borders too.
constexpr int64_t kPrefetchBytes = 2048;

using Sums = float (*)[kPanelRows];

template <int N>
inline void store_sums(const Floats (&sum)[N], Sums out) {
  VENTRIS_UNROLL
  for (int node = 0; node < N; ++node) store(out[node], sum[node]);
}

struct Float32Kernel {
  template <int N>
  static void run(const uint8_t* panel, const uint8_t* tile, int64_t columns, Sums out) {
    Floats sum[N] = {};
    const float* values = (const float*)tile;
    for (int64_t column = 0; column < columns; ++column) {
      prefetch(panel + kPrefetchBytes);
      Floats weights = load((const float*)panel);
      VENTRIS_UNROLL
      for (int node = 0; node < N; ++node) sum[node] = multiply_add(weights, splat(values[node]), sum[node]);
      panel += sizeof weights;
      values += kTileNodes;
    }
    store_sums(sum, out);
  }
};

struct BFloat16Kernel {
  template <int N>
  static void run(const uint8_t* panel, const uint8_t* tile, int64_t columns, Sums out) {
    Floats sum[N] = {};
    const uint32_t* pairs = (const uint32_t*)tile;
    for (int64_t column = 0; column < columns; column += 2) {
      prefetch(panel + kPrefetchBytes);
      Words weights = load_words(panel);
      VENTRIS_UNROLL
      for (int node = 0; node < N; ++node) sum[node] = dot_pairs(sum[node], weights, pairs[node]);
      panel += sizeof weights;
      pairs += kTileNodes;
    }
    store_sums(sum, out);
  }
};

// The end of a block: from integer products to numbers.
template <int N>
inline void add_block(Floats (&sum)[N], const Ints (&dot)[N], const ByteTile& tile, const uint8_t* scales) {
  Floats scale = load_half(scales), offset = load_half(scales + 2 * kPanelRows);
  VENTRIS_UNROLL
  for (int node = 0; node < N; ++node) {
    sum[node] = multiply_add(to_float(dot[node]) * scale, splat(tile.scales[node]), sum[node]);
    sum[node] = multiply_add(offset, splat(tile.sums[node]), sum[node]);
  }
}

struct Int8Kernel {
  template <int N>
  static void run(const uint8_t* panel, const uint8_t* tile, int64_t columns, Sums out) {
    Floats sum[N] = {};
    const ByteTile* bytes = (const ByteTile*)tile;
    for (int64_t block = 0; block < columns / kBlock; ++block, ++bytes, panel += kInt8Block) {
      Ints dot[N] = {};
      VENTRIS_UNROLL
      for (int group = 0; group < 8; ++group) {
        prefetch(panel + 64 * group + kPrefetchBytes);
        Words weights = load_words(panel + 64 * group);
        VENTRIS_UNROLL
        for (int node = 0; node < N; ++node) dot[node] = dot_bytes(dot[node], weights, bytes->values[node][group]);
      }
      prefetch(panel + 512 + kPrefetchBytes);
      add_block(sum, dot, *bytes, panel + 512);
    }
    store_sums(sum, out);
  }
};

struct Int4Kernel {
  template <int N>
  static void run(const uint8_t* panel, const uint8_t* tile, int64_t columns, Sums out) {
    Floats sum[N] = {};
    const ByteTile* bytes = (const ByteTile*)tile;
    const Words nibble = splat_word(0x0f0f0f0fu);
    for (int64_t block = 0; block < columns / kBlock; ++block, ++bytes, panel += kInt4Block) {
      Ints dot[N] = {};
      VENTRIS_UNROLL
      for (int group = 0; group < 4; ++group) {
        prefetch(panel + 64 * group + kPrefetchBytes);
        Words packed = load_words(panel + 64 * group);
        Words low = packed & nibble, high = (packed >> 4) & nibble;
        VENTRIS_UNROLL
        for (int node = 0; node < N; ++node) dot[node] = dot_bytes(dot[node], low, bytes->values[node][2 * group]);
        VENTRIS_UNROLL
        for (int node = 0; node < N; ++node) dot[node] = dot_bytes(dot[node], high, bytes->values[node][2 * group + 1]);
      }
      prefetch(panel + 256 + kPrefetchBytes);
      add_block(sum, dot, *bytes, panel + 256);
    }
    store_sums(sum, out);
  }
};

template <class Kernel>
void dispatch(int nodes, const uint8_t* panel, const uint8_t* tile, int64_t columns, Sums out) {
  switch (nodes) {
    case 1: return Kernel::template run<1>(panel, tile, columns, out);
    case 2: return Kernel::template run<2>(panel, tile, columns, out);
    case 3: return Kernel::template run<3>(panel, tile, columns, out);
    case 4: return Kernel::template run<4>(panel, tile, columns, out);
    case 5: return Kernel::template run<5>(panel, tile, columns, out);
    case 6: return Kernel::template run<6>(panel, tile, columns, out);
    case 7: return Kernel::template run<7>(panel, tile, columns, out);
    default: return Kernel::template run<8>(panel, tile, columns, out);
  }
}

// Round 32 numbers to int8 with the scale amax / 127.
void put_block(ByteTile& tile, int64_t lane, const float* values) {
  Floats low = load(values), high = load(values + kLanes);
  float amax = largest_lane(maximum(maximum(low, -low), maximum(high, -high)));
  float to_level = amax > 0.0f ? 127.0f / amax : 0.0f;
  Ints low_levels = round_to_int(low * to_level), high_levels = round_to_int(high * to_level);
  Bytes bytes[2] = {to_bytes(low_levels), to_bytes(high_levels)};
  std::memcpy(tile.values[lane], bytes, sizeof bytes);
  tile.scales[lane] = amax / 127.0f;
  tile.sums[lane] = amax / 127.0f * sum_lanes(to_float(low_levels + high_levels));
}

// Round `count` numbers to bfloat16 pairs of adjacent columns; a missing last column counts as 0.
void put_pairs(uint32_t* to, const float* values, int64_t count) {
  for (int64_t first = 0; first < count; first += kLanes, to += kLanes / 2 * kTileNodes) {
    const int64_t width = std::min<int64_t>(kLanes, count - first);
    float padded[kLanes] = {};
    if (width < kLanes) std::copy_n(values + first, width, padded);
    Shorts shorts = to_bfloat(load(width < kLanes ? padded : values + first));
    uint32_t pairs[kLanes / 2];
    std::memcpy(pairs, &shorts, sizeof pairs);
    for (int64_t i = 0; i < (width + 1) / 2; ++i) to[i * kTileNodes] = pairs[i];
  }
}

float half_to_float(const uint8_t* from) {
  uint16_t half[kLanes] = {};
  std::memcpy(half, from, 2);
  return load_half(half)[0];
}

}  // namespace

Matrix::Matrix(const VentrisMatrix& packed)
    : data_((const uint8_t*)packed.data),
      bias_(packed.bias),
      rows_(packed.rows),
      columns_(packed.columns),
      kind_((Kind)packed.kind) {}

int64_t Matrix::panel_bytes() const {
  switch (kind_) {
    case Kind::float32: return columns_ * 64;
    case Kind::bfloat16: return (columns_ + 1) / 2 * 64;
    case Kind::int8: return columns_ / kBlock * kInt8Block;
    default: return columns_ / kBlock * kInt4Block;
  }
}

int64_t Matrix::tile_bytes() const {
  switch (kind_) {
    case Kind::float32: return columns_ * kTileNodes * 4;
    case Kind::bfloat16: return (columns_ + 1) / 2 * kTileNodes * 4;
    default: return columns_ / kBlock * (int64_t)sizeof(ByteTile);
  }
}

int64_t Matrix::activation_bytes(int64_t nodes) const { return (nodes + kTileNodes - 1) / kTileNodes * tile_bytes(); }

void Matrix::put_activations(uint8_t* activations, int64_t node, int64_t first, const float* values,
                             int64_t count) const {
  uint8_t* tile = activations + node / kTileNodes * tile_bytes();
  int64_t lane = node % kTileNodes;
  if (kind_ == Kind::float32) {
    float* to = (float*)tile + first * kTileNodes + lane;
    for (int64_t i = 0; i < count; ++i) to[i * kTileNodes] = values[i];
  } else if (kind_ == Kind::bfloat16) {
    put_pairs((uint32_t*)tile + first / 2 * kTileNodes + lane, values, count);
  } else {
    ByteTile* to = (ByteTile*)tile + first / kBlock;
    for (int64_t i = 0; i < count; i += kBlock) put_block(*to++, lane, values + i);
  }
}

void Matrix::multiply(int64_t panel, const uint8_t* activations, int64_t tile, int nodes, Sums out) const {
  const uint8_t* weights = data_ + panel * panel_bytes();
  const uint8_t* values = activations + tile * tile_bytes();
  switch (kind_) {
    case Kind::float32: dispatch<Float32Kernel>(nodes, weights, values, columns_, out); break;
    case Kind::bfloat16: dispatch<BFloat16Kernel>(nodes, weights, values, columns_, out); break;
    case Kind::int8: dispatch<Int8Kernel>(nodes, weights, values, columns_, out); break;
    case Kind::int4: dispatch<Int4Kernel>(nodes, weights, values, columns_, out); break;
  }
  if (bias_) {
    Floats bias = load(bias_ + panel * kPanelRows);
    for (int node = 0; node < nodes; ++node) store(out[node], load(out[node]) + bias);
  }
}

void Matrix::read_row(int64_t row, float* to) const {
  const uint8_t* panel = data_ + row / kPanelRows * panel_bytes();
  const int64_t lane = row % kPanelRows;
  switch (kind_) {
    case Kind::float32:
      for (int64_t column = 0; column < columns_; ++column) to[column] = ((const float*)panel)[column * kPanelRows + lane];
      break;
    case Kind::bfloat16:
      for (int64_t column = 0; column < columns_; ++column) {
        uint32_t bits = (uint32_t)((const uint16_t*)panel)[(column / 2 * kPanelRows + lane) * 2 + column % 2] << 16;
        std::memcpy(&to[column], &bits, sizeof bits);
      }
      break;
    default:
      read_blocks(panel, lane, to);
  }
}

void Matrix::read_blocks(const uint8_t* panel, int64_t lane, float* to) const {
  const bool wide = kind_ == Kind::int8;
  const int64_t levels = wide ? 512 : 256;
  for (int64_t first = 0; first < columns_; first += kBlock, panel += wide ? kInt8Block : kInt4Block) {
    const float scale = half_to_float(panel + levels + lane * 2);
    const float offset = half_to_float(panel + levels + (kPanelRows + lane) * 2);
    for (int64_t i = 0; i < kBlock; ++i) {
      uint8_t level = wide ? panel[i / 4 * 64 + lane * 4 + i % 4]
                           : (panel[i / 8 * 64 + lane * 4 + i % 4] >> (i % 8 / 4 * 4)) & 15;
      to[first + i] = (float)level * scale + offset;
    }
  }
}

}  // namespace ventris
