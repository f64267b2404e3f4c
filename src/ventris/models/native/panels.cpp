#include "panels.h"

namespace ventris {
namespace {

constexpr int64_t kInt8Block = 576;
constexpr int64_t kInt4Block = 320;
// How far ahead of the multiplication its weights are asked for. The hardware does so by itself, but stops at
// every border of a small page.
constexpr int64_t kAhead = 4096;
// A line of floats is multiplied sooner than one of levels, so it is asked for earlier.
constexpr int64_t kFloatAhead = 16384;

using Sums = float (*)[kPanelRows];

template <int N>
inline void store_sums(const Floats (&sum)[N], Sums out) {
  VENTRIS_UNROLL
  for (int node = 0; node < N; ++node) store(out[node], sum[node]);
}

// One 64-byte load of weights, multiplied with one 4-byte word of each node.
struct Float32Step {
  static constexpr int64_t kColumns = 1;
  static Floats add(Floats sum, Words weights, uint32_t value) {
    return multiply_add(as_floats(weights), as_floats(splat_word(value)), sum);
  }
};

struct BFloat16Step {
  static constexpr int64_t kColumns = 2;
  static Floats add(Floats sum, Words weights, uint32_t pair) { return dot_pairs(sum, weights, pair); }
};

template <class Step>
struct FloatKernel {
  // Two tiles of sums, a load of weights and nothing else: that fits the registers.
  static constexpr int kNodes = kPassNodes;

  template <int N>
  static void run(const uint8_t* panel, const uint8_t* tile, int64_t columns, Sums out) {
    const int64_t steps = (columns + Step::kColumns - 1) / Step::kColumns;
    Floats sum[N] = {};
    const uint32_t* values = (const uint32_t*)tile;
    const uint32_t* behind = values + steps * kTileNodes;  // the next tile
    for (int64_t step = 0; step < steps; ++step) {
      prefetch(panel + kFloatAhead);
      Words weights = load_words(panel);
      VENTRIS_UNROLL
      for (int node = 0; node < N; ++node)
        sum[node] = Step::add(sum[node], weights, node < kTileNodes ? values[node] : behind[node - kTileNodes]);
      panel += sizeof weights;
      values += kTileNodes;
      behind += kTileNodes;
    }
    store_sums(sum, out);
  }
};

// The products of one block: the integer dot products of its levels with each node's activations. The bytes of
// an activation are multiplied apart and put together by shifts; integers lose nothing on the way.
template <int Planes, int N>
inline void dot_block(const Words (&levels)[8], const IntegerTile<Planes>& tile, Ints (&dot)[N]) {
  // Few nodes leave registers for a chain of sums a byte, which hides the latency of a sum; many need none.
  constexpr int kChains = N <= 4 ? Planes : 1;
  Ints chains[kChains][N] = {};
  VENTRIS_UNROLL
  for (int plane = 0; plane < Planes; ++plane) {
    Ints(&chain)[N] = chains[plane % kChains];
    VENTRIS_UNROLL
    for (int node = 0; node < N; ++node) chain[node] <<= plane && kChains == 1 ? 8 : 0;
    VENTRIS_UNROLL
    for (int group = 0; group < 8; ++group) {
      VENTRIS_UNROLL
      for (int node = 0; node < N; ++node)
        chain[node] = dot_bytes(chain[node], levels[group], tile.values[plane][node][group]);
    }
  }
  VENTRIS_UNROLL
  for (int node = 0; node < N; ++node) {
    dot[node] = chains[0][node];
    VENTRIS_UNROLL
    for (int chain = 1; chain < kChains; ++chain) dot[node] = (dot[node] << 8) + chains[chain][node];
  }
}

// The end of a block: from integer products to numbers.
template <int Planes, int N>
inline void add_block(Floats (&sum)[N], const Ints (&dot)[N], const IntegerTile<Planes>& tile, const uint8_t* scales) {
  Floats scale = load_half(scales), offset = load_half(scales + 2 * kPanelRows);
  VENTRIS_UNROLL
  for (int node = 0; node < N; ++node) {
    sum[node] = multiply_add(to_float(dot[node]) * scale, splat(tile.scales[node]), sum[node]);
    sum[node] = multiply_add(offset, splat(tile.sums[node]), sum[node]);
  }
}

struct Int8Levels {
  static constexpr int64_t kBytes = kInt8Block;
  static void load(const uint8_t* block, Words (&levels)[8]) {
    VENTRIS_UNROLL
    for (int group = 0; group < 8; ++group) {
      prefetch(block + 64 * group + kAhead);
      levels[group] = load_words(block + 64 * group);
    }
  }
};

struct Int4Levels {
  static constexpr int64_t kBytes = kInt4Block;
  static void load(const uint8_t* block, Words (&levels)[8]) {
    const Words nibble = splat_word(0x0f0f0f0fu);
    VENTRIS_UNROLL
    for (int group = 0; group < 4; ++group) {
      prefetch(block + 64 * group + kAhead);
      Words packed = load_words(block + 64 * group);
      levels[2 * group] = packed & nibble;
      levels[2 * group + 1] = (packed >> 4) & nibble;
    }
  }
};

template <class Levels, int Planes>
struct BlockKernel {
  // The levels of a block, the integers and the sums of a tile take all registers.
  static constexpr int kNodes = kTileNodes;

  template <int N>
  static void run(const uint8_t* panel, const uint8_t* tile, int64_t columns, Sums out) {
    constexpr int64_t kScales = Levels::kBytes - 4 * kPanelRows;
    Floats sum[N] = {};
    const auto* activations = (const IntegerTile<Planes>*)tile;
    for (int64_t block = 0; block < columns / kBlock; ++block, ++activations, panel += Levels::kBytes) {
      Words levels[8];
      Ints dot[N];
      Levels::load(panel, levels);
      prefetch(panel + kScales + kAhead);
      dot_block(levels, *activations, dot);
      add_block(sum, dot, *activations, panel + kScales);
    }
    store_sums(sum, out);
  }
};

// Call the kernel that was made for this number of nodes.
template <class Kernel, int N = Kernel::kNodes>
void dispatch(int nodes, const uint8_t* panel, const uint8_t* tile, int64_t columns, Sums out) {
  if constexpr (N > 1) {
    if (nodes < N) return dispatch<Kernel, N - 1>(nodes, panel, tile, columns, out);
  }
  Kernel::template run<N>(panel, tile, columns, out);
}

// Round 32 numbers to integers of `Planes` bytes. The largest integer is 127 in its highest byte, so that rounding
// a lower byte up never carries past it.
template <int Planes>
void put_block(IntegerTile<Planes>& tile, int64_t lane, const float* values) {
  constexpr float kLargest = Planes == 1 ? 127.0f : 127.0f * 256.0f;
  Floats low = load(values), high = load(values + kLanes);
  float amax = largest_lane(maximum(maximum(low, -low), maximum(high, -high)));
  float to_integer = amax > 0.0f ? kLargest / amax : 0.0f;
  Ints integers[2] = {round_to_int(low * to_integer), round_to_int(high * to_integer)};
  tile.scales[lane] = amax / kLargest;
  tile.sums[lane] = amax / kLargest * sum_lanes(to_float(integers[0] + integers[1]));
  for (int plane = 0; plane < Planes; ++plane) {
    const int shift = 8 * (Planes - 1 - plane);
    Bytes bytes[2];
    for (int half = 0; half < 2; ++half) {
      Ints byte = shift ? (integers[half] + (1 << (shift - 1))) >> shift : integers[half];
      integers[half] -= byte << shift;
      bytes[half] = to_bytes(byte);
    }
    std::memcpy(tile.values[plane][lane], bytes, sizeof bytes);
  }
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
      kind_((Kind)packed.kind),
      wide_activations_(packed.activation_bits == 16) {}

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
    default: return columns_ / kBlock * (int64_t)(wide_activations_ ? sizeof(IntegerTile<2>) : sizeof(IntegerTile<1>));
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
  } else if (wide_activations_) {
    auto* to = (IntegerTile<2>*)tile + first / kBlock;
    for (int64_t i = 0; i < count; i += kBlock) put_block(*to++, lane, values + i);
  } else {
    auto* to = (IntegerTile<1>*)tile + first / kBlock;
    for (int64_t i = 0; i < count; i += kBlock) put_block(*to++, lane, values + i);
  }
}

template <int Planes>
void Matrix::multiply_blocks(int nodes, const uint8_t* panel, const uint8_t* tile, Sums out) const {
  if (kind_ == Kind::int8) {
    dispatch<BlockKernel<Int8Levels, Planes>>(nodes, panel, tile, columns_, out);
  } else {
    dispatch<BlockKernel<Int4Levels, Planes>>(nodes, panel, tile, columns_, out);
  }
}

void Matrix::multiply(int64_t panel, const uint8_t* activations, int64_t first, int nodes, Sums out) const {
  const uint8_t* weights = data_ + panel * panel_bytes();
  const uint8_t* tile = activations + first / kTileNodes * tile_bytes();
  switch (kind_) {
    case Kind::float32: dispatch<FloatKernel<Float32Step>>(nodes, weights, tile, columns_, out); break;
    case Kind::bfloat16: dispatch<FloatKernel<BFloat16Step>>(nodes, weights, tile, columns_, out); break;
    default:
      for (int done = 0; done < nodes; done += kTileNodes, tile += tile_bytes()) {
        const int count = std::min<int>(kTileNodes, nodes - done);
        if (wide_activations_) {
          multiply_blocks<2>(count, weights, tile, out + done);
        } else {
          multiply_blocks<1>(count, weights, tile, out + done);
        }
      }
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
