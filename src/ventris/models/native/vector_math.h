// Elementary functions on sixteen lanes, accurate to about one part in ten million.
#pragma once

#include <cmath>
#include <limits>

#include "simd.h"

namespace ventris {

enum class Activation : int64_t { silu = 0, gelu_tanh = 1, gelu = 2 };

// e^x; exactly 0 below -86.5, infinity above 88.7.
inline Floats exponential(Floats x) {
  constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low mantissa bits
  Floats shifted = multiply_add(x, splat(1.44269504f), splat(kRounder));
  Floats power = shifted - kRounder;
  Floats rest = multiply_add(power, splat(-0.693359375f), x);
  rest = multiply_add(power, splat(2.12194440e-4f), rest);
  Floats series = splat(1.9875691500e-4f);
  series = multiply_add(series, rest, splat(1.3981999507e-3f));
  series = multiply_add(series, rest, splat(8.3334519073e-3f));
  series = multiply_add(series, rest, splat(4.1665795894e-2f));
  series = multiply_add(series, rest, splat(1.6666665459e-1f));
  series = multiply_add(series, rest, splat(5.0000001201e-1f));
  series = multiply_add(series, rest * rest, rest + 1.0f);
  // Times 2^power: the integer goes from the low mantissa bits straight into the exponent.
  Floats result = as_floats(as_words(series) + (as_words(shifted) << 23));
  result = x < -86.5f ? Floats{} : result;
  return x > 88.7f ? splat(std::numeric_limits<float>::infinity()) : result;
}

inline Floats hyperbolic_tangent(Floats x) {
  Floats magnitude = x < 0.0f ? -x : x;
  Floats large = 1.0f - 2.0f / (exponential(2.0f * magnitude) + 1.0f);
  large = x < 0.0f ? -large : large;
  // Near zero the formula above cancels; the Taylor series does not.
  Floats square = x * x;
  Floats series = splat(62.0f / 2835.0f);
  series = multiply_add(series, square, splat(-17.0f / 315.0f));
  series = multiply_add(series, square, splat(2.0f / 15.0f));
  series = multiply_add(series, square, splat(-1.0f / 3.0f));
  Floats small = multiply_add(series * square, x, x);
  return magnitude < 0.3f ? small : large;
}

// Abramowitz and Stegun 7.1.26.
inline Floats error_function(Floats x) {
  Floats magnitude = x < 0.0f ? -x : x;
  Floats t = 1.0f / multiply_add(magnitude, splat(0.3275911f), splat(1.0f));
  Floats series = splat(1.061405429f);
  series = multiply_add(series, t, splat(-1.453152027f));
  series = multiply_add(series, t, splat(1.421413741f));
  series = multiply_add(series, t, splat(-0.284496736f));
  series = multiply_add(series, t, splat(0.254829592f));
  Floats result = 1.0f - series * t * exponential(-magnitude * magnitude);
  return x < 0.0f ? -result : result;
}

inline Floats activate(Activation kind, Floats x) {
  switch (kind) {
    case Activation::silu:
      return x / (1.0f + exponential(-x));
    case Activation::gelu_tanh:
      return 0.5f * x * (1.0f + hyperbolic_tangent(0.7978845608f * multiply_add(0.044715f * x * x, x, x)));
    case Activation::gelu:
      return 0.5f * x * (1.0f + error_function(x * 0.7071067812f));
  }
  return x;
}

inline Floats soft_cap(Floats x, float cap) { return cap * hyperbolic_tangent(x / cap); }

// Sum of squares in an order that depends on `count` alone.
inline float sum_of_squares(const float* values, int64_t count) {
  Floats sum{};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) sum = multiply_add(load(values + i), load(values + i), sum);
  float total = sum_lanes(sum);
  for (; i < count; ++i) total += values[i] * values[i];
  return total;
}

// Root-mean-square norm of `count` numbers, times `weight`; `to` may be `from`.
inline void rms_norm(const float* from, const float* weight, float epsilon, int64_t count, float* to) {
  float scale = 1.0f / std::sqrt(sum_of_squares(from, count) / (float)count + epsilon);
  for (int64_t i = 0; i < count; ++i) to[i] = from[i] * scale * weight[i];
}

}  // namespace ventris
