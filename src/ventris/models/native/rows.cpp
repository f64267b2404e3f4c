// Questions about one row of logits.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "abi.h"
#include "vector_math.h"

namespace ventris {
namespace {

constexpr int64_t kStretch = 4 * kLanes;

// The largest number of each stretch of 64.
std::vector<float> stretch_maxima(const float* row, int64_t count) {
  std::vector<float> maxima((count + kStretch - 1) / kStretch);
  int64_t stretch = 0;
  for (; (stretch + 1) * kStretch <= count; ++stretch) {
    const float* from = row + stretch * kStretch;
    Floats first = maximum(load(from), load(from + kLanes));
    Floats second = maximum(load(from + 2 * kLanes), load(from + 3 * kLanes));
    maxima[stretch] = largest_lane(maximum(first, second));
  }
  if (stretch * kStretch < count) maxima[stretch] = *std::max_element(row + stretch * kStretch, row + count);
  return maxima;
}

float log_sum_exp(const float* row, int64_t count, float largest) {
  Floats sums[2] = {};
  int64_t i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes) {
    sums[0] += exponential(load(row + i) - largest);
    sums[1] += exponential(load(row + i + kLanes) - largest);
  }
  float total = sum_lanes(sums[0] + sums[1]);
  for (; i < count; ++i) total += std::exp(row[i] - largest);
  return largest + std::log(total);
}

}  // namespace
}  // namespace ventris

using namespace ventris;

extern "C" {

float ventris_top_k(const float* row, int64_t count, int64_t k, float* values, int64_t* indices) {
  std::vector<float> maxima = stretch_maxima(row, count);
  const float largest = *std::max_element(maxima.begin(), maxima.end());
  // k stretches reach the k-th largest maximum, so nothing below it can be among the k largest numbers.
  float floor = -std::numeric_limits<float>::infinity();
  if (k <= (int64_t)maxima.size()) {
    std::vector<float> ranked = maxima;
    std::nth_element(ranked.begin(), ranked.begin() + (k - 1), ranked.end(), std::greater<float>());
    floor = ranked[k - 1];
  }
  std::vector<int64_t> candidates;
  for (int64_t stretch = 0; stretch < (int64_t)maxima.size(); ++stretch) {
    if (maxima[stretch] < floor) continue;
    const int64_t end = std::min(count, (stretch + 1) * kStretch);
    for (int64_t i = stretch * kStretch; i < end; ++i)
      if (!(row[i] < floor)) candidates.push_back(i);
  }
  std::partial_sort(candidates.begin(), candidates.begin() + k, candidates.end(), [&](int64_t a, int64_t b) {
    return row[a] > row[b] || (row[a] == row[b] && a < b);
  });
  for (int64_t i = 0; i < k; ++i) {
    indices[i] = candidates[i];
    values[i] = row[candidates[i]];
  }
  return log_sum_exp(row, count, largest);
}
}
