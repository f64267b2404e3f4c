// The product of a packed matrix with rows of activations, shared out among the workers of a run.
#pragma once

#include <algorithm>

#include "panels.h"
#include "pool.h"

namespace ventris {

// Rows of a panel that exist (the last panel may be padded).
inline int64_t rows_in(const Matrix& matrix, int64_t panel) {
  return std::min(kPanelRows, matrix.rows() - panel * kPanelRows);
}

// Compute all products of a matrix; `use(panel, first node, nodes, sums)` gets them panel by panel. All nodes pass
// over a panel while it is in the first-level cache.
template <class Use>
void multiply(Worker& worker, const Matrix& matrix, const uint8_t* inputs, int64_t nodes, Use&& use) {
  worker.section(matrix.panels(), matrix.panels(), [&](int64_t begin, int64_t end) {
    float sums[kPassNodes][kPanelRows];
    for (int64_t panel = begin; panel < end; ++panel) {
      for (int64_t first = 0, count; first < nodes; first += count) {
        count = pass_nodes(nodes - first);
        matrix.multiply(panel, inputs, first, (int)count, sums);
        use(panel, first, (int)count, sums);
      }
    }
  });
}

// The same into dense rows, [nodes, rows of the matrix].
inline void multiply_into(Worker& worker, const Matrix& matrix, const uint8_t* inputs, int64_t nodes, float* to) {
  multiply(worker, matrix, inputs, nodes, [&](int64_t panel, int64_t first, int count, float (*sums)[kPanelRows]) {
    for (int node = 0; node < count; ++node)
      std::copy_n(sums[node], rows_in(matrix, panel), to + (first + node) * matrix.rows() + panel * kPanelRows);
  });
}

}  // namespace ventris
