// Packed matrices and their products.
//
// A matrix is cut into panels of 16 rows. Inside a panel the rows are interleaved, one row a vector lane, so a
// product needs no sum across lanes: every lane runs down the columns of its own row. The kinds differ in what
// one 64-byte load holds:
//
//   float32   16 rows x 1 column
//   bfloat16  16 rows x 2 columns
//   int8      16 rows x 4 columns; after 32 columns follow 16 scales and 16 offsets as float16 (576 bytes a block)
//   int4      16 rows x 8 columns, columns 0-3 in the low nibbles, 4-7 in the high ones; blocks alike (320 bytes)
//
// A weight of the last two is scale * level + offset. Their activations are rounded in blocks of 32 columns, to 8
// bits, or to 16 bits in two bytes that are multiplied one after the other.
//
// Activations are kept in tiles of 8 nodes with the nodes innermost, so that a kernel finds the same column of all
// its nodes at constant distances. A kernel takes up to two tiles for each load of weights where its accumulators
// have room in the registers: while it waits for memory, the second tile costs next to nothing. Each (row, node) has
// an accumulator of its own, so the result does not depend on how many nodes there are.
#pragma once

#include <algorithm>
#include <cstdint>

#include "abi.h"
#include "simd.h"

namespace ventris {

enum class Kind : int64_t { float32 = 0, bfloat16 = 1, int8 = 2, int4 = 3 };

constexpr int64_t kPanelRows = 16;
constexpr int64_t kTileNodes = 8;
constexpr int64_t kBlock = 32;
// Nodes that are multiplied with a panel in one call at most.
#if defined(VENTRIS_AVX512)
constexpr int64_t kPassNodes = 2 * kTileNodes;
#else
constexpr int64_t kPassNodes = kTileNodes;
#endif

// How many of the nodes that are left to multiply go first. A single node takes as long as five, so the last call
// shall not be left with a few.
inline int pass_nodes(int64_t left) {
  const bool few_behind = left > kPassNodes && left < kPassNodes + kTileNodes;
  return (int)(few_behind ? kTileNodes : std::min(left, kPassNodes));
}

// 32 columns of 8 nodes, rounded to integers of `Planes` bytes: a number is about scale * integer.
template <int Planes>
struct IntegerTile {
  int32_t values[Planes][kTileNodes][kBlock / 4];  // four int8 in each; the high bytes come first
  float scales[kTileNodes];
  float sums[kTileNodes];  // scale * sum of the integers: what a weight's offset is multiplied with
};

class Matrix {
 public:
  Matrix() = default;
  explicit Matrix(const VentrisMatrix& packed);

  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  int64_t panels() const { return (rows_ + kPanelRows - 1) / kPanelRows; }
  const float* bias() const { return bias_; }

  // Size of the activations of `nodes` nodes in this matrix's format.
  int64_t activation_bytes(int64_t nodes) const;

  // Convert columns `first .. first + count - 1` of one node; `first` is a multiple of 32, and so is `count`
  // unless the row ends there.
  void put_activations(uint8_t* activations, int64_t node, int64_t first, const float* values, int64_t count) const;

  // Products of one panel with `nodes` nodes from node `first` on, the first one of a tile; kPassNodes at most.
  // out[node][row of the panel], bias included.
  void multiply(int64_t panel, const uint8_t* activations, int64_t first, int nodes, float (*out)[kPanelRows]) const;

  // One row as float32 [columns].
  void read_row(int64_t row, float* to) const;

 private:
  template <int Planes>
  void multiply_blocks(int nodes, const uint8_t* panel, const uint8_t* tile, float (*out)[kPanelRows]) const;
  void read_blocks(const uint8_t* panel, int64_t lane, float* to) const;
  int64_t panel_bytes() const;
  int64_t tile_bytes() const;

  const uint8_t* data_ = nullptr;
  const float* bias_ = nullptr;
  int64_t rows_ = 0;
  int64_t columns_ = 0;
  Kind kind_ = Kind::float32;
  bool wide_activations_ = true;  // 16 bits rather than 8, where weights come in blocks
};

}  // namespace ventris
