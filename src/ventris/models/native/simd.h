// Sixteen-lane vectors: the handful of operations that all kernels are made of.
//
// Everything here is exact about its order of operations, and the build forbids the compiler to fuse or
// reorder floating-point arithmetic (-ffp-contract=off), so that one output number is always computed by
// the same sequence of roundings, whatever surrounds it. That is what makes results independent of the batch.
//
// A CPU without AVX-512 gets the same code on narrower registers; -DVENTRIS_PORTABLE forbids intrinsics.
#pragma once

#include <cstdint>
#include <cstring>

#if !defined(VENTRIS_PORTABLE) && defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
#define VENTRIS_AVX512
#elif !defined(VENTRIS_PORTABLE) && defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define VENTRIS_AVX2
#endif

#if defined(VENTRIS_AVX512) || defined(VENTRIS_AVX2)
#include <immintrin.h>
#endif

// For loops over a kernel's accumulators: only when they are unrolled do the accumulators live in registers.
// Without wide registers there is nothing to win, and much to compile.
#if !defined(VENTRIS_AVX512) && !defined(VENTRIS_AVX2)
#define VENTRIS_UNROLL
#elif defined(__clang__)
#define VENTRIS_UNROLL _Pragma("unroll")
#else
#define VENTRIS_UNROLL _Pragma("GCC unroll 16")
#endif

namespace ventris {

constexpr int kLanes = 16;

typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint16_t Shorts __attribute__((vector_size(32)));
typedef int8_t Bytes __attribute__((vector_size(16)));

inline Floats load(const float* from) {
  Floats value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

inline void store(float* to, Floats value) { std::memcpy(to, &value, sizeof value); }

inline Words load_words(const void* from) {
  Words value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// Subtracting zero is the identity (adding it is not: -0), so this is a broadcast and nothing else.
inline Floats splat(float value) { return value - Floats{}; }
inline Words splat_word(uint32_t value) { return value - Words{}; }
inline Floats as_floats(Words value) { return (Floats)value; }
inline Words as_words(Floats value) { return (Words)value; }
inline Floats to_float(Ints value) { return __builtin_convertvector(value, Floats); }
inline Floats maximum(Floats a, Floats b) { return a > b ? a : b; }

#if defined(VENTRIS_AVX2)
// The two 256-bit halves of a vector, for operations that only exist at that width.
template <class Half, class Vector>
struct Halves {
  Half low, high;
  explicit Halves(Vector value) { std::memcpy(this, &value, sizeof value); }
  Halves(Half low_half, Half high_half) : low(low_half), high(high_half) {}
  Vector joined() const {
    Vector value;
    std::memcpy(&value, this, sizeof value);
    return value;
  }
};
#endif

// a * b + c, in one rounding where the CPU has it.
inline Floats multiply_add(Floats a, Floats b, Floats c) {
#if defined(VENTRIS_AVX512)
  return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(VENTRIS_AVX2)
  using Pair = Halves<__m256, Floats>;
  Pair x(a), y(b), z(c);
  return Pair(_mm256_fmadd_ps(x.low, y.low, z.low), _mm256_fmadd_ps(x.high, y.high, z.high)).joined();
#else
  return a * b + c;
#endif
}

// Every lane adds the products of its four unsigned weight bytes with the four signed bytes of `values`. Exact.
inline Ints dot_bytes(Ints sum, Words weights, int32_t values) {
#if defined(VENTRIS_AVX512) && defined(__AVX512VNNI__)
  return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)weights, _mm512_set1_epi32(values));
#elif defined(VENTRIS_AVX512)
  __m512i even = _mm512_and_si512((__m512i)weights, _mm512_set1_epi16(255));
  __m512i odd = _mm512_srli_epi16((__m512i)weights, 8);
  __m512i all = _mm512_set1_epi32(values);
  __m512i products = _mm512_add_epi32(
      _mm512_madd_epi16(even, _mm512_srai_epi16(_mm512_slli_epi16(all, 8), 8)),
      _mm512_madd_epi16(odd, _mm512_srai_epi16(all, 8)));
  return sum + (Ints)products;
#elif defined(VENTRIS_AVX2)
  using Pair = Halves<__m256i, Words>;
  Pair pair(weights);
  __m256i all = _mm256_set1_epi32(values);
  __m256i even_values = _mm256_srai_epi16(_mm256_slli_epi16(all, 8), 8);
  __m256i odd_values = _mm256_srai_epi16(all, 8);
  auto products = [&](__m256i half) {
    return _mm256_add_epi32(_mm256_madd_epi16(_mm256_and_si256(half, _mm256_set1_epi16(255)), even_values),
                            _mm256_madd_epi16(_mm256_srli_epi16(half, 8), odd_values));
  };
  return sum + (Ints)Pair(products(pair.low), products(pair.high)).joined();
#else
  for (int byte = 0; byte < 4; ++byte) {
    Ints weight = (Ints)((weights >> (8 * byte)) & 255u);
    sum += weight * (Ints{} + (int32_t)(int8_t)(values >> (8 * byte)));
  }
  return sum;
#endif
}

// Every lane adds the products of its two bfloat16 weights with the two bfloat16 numbers of `values`.
inline Floats dot_pairs(Floats sum, Words weights, uint32_t values) {
#if defined(VENTRIS_AVX512) && defined(__AVX512BF16__)
  return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)weights, (__m512bh)_mm512_set1_epi32((int)values));
#else
  uint32_t low = values << 16, high = values & 0xffff0000u;
  sum = multiply_add(as_floats(weights & 0xffff0000u), as_floats(splat_word(high)), sum);
  return multiply_add(as_floats(weights << 16), as_floats(splat_word(low)), sum);
#endif
}

// Sixteen float16 numbers as float32. Exact.
inline Floats load_half(const void* from) {
#if defined(VENTRIS_AVX512)
  return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)from));
#elif defined(VENTRIS_AVX2)
  const __m128i* halves = (const __m128i*)from;
  return Halves<__m256, Floats>(_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1)))
      .joined();
#else
  uint16_t half[kLanes];
  std::memcpy(half, from, sizeof half);
  Words bits;
  for (int lane = 0; lane < kLanes; ++lane) bits[lane] = half[lane];
  // Shifting the exponent into place leaves it too small by 127 - 15; a multiplication puts that right,
  // subnormal numbers included.
  Floats magnitude = as_floats((bits & 0x7fffu) << 13) * 0x1p112f;
  return as_floats(as_words(magnitude) | ((bits & 0x8000u) << 16));
#endif
}

// Sixteen bfloat16 numbers as float32. Exact.
inline Floats load_bfloat(const uint16_t* from) {
#if defined(VENTRIS_AVX512)
  return (Floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from)), 16);
#else
  Shorts shorts;
  std::memcpy(&shorts, from, sizeof shorts);
  return as_floats(__builtin_convertvector(shorts, Words) << 16);
#endif
}

// float32 to bfloat16, to the nearest, ties to even.
inline Shorts to_bfloat(Floats value) {
  Words bits = as_words(value);
  Words rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
#if defined(VENTRIS_AVX512)
  return (Shorts)_mm512_cvtepi32_epi16((__m512i)rounded);
#else
  return __builtin_convertvector(rounded, Shorts);
#endif
}

inline uint16_t to_bfloat(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// To the nearest integer, ties to even, for magnitudes below 2^22: the sum with 1.5 * 2^23 has the integer in
// the low bits of its mantissa.
inline Ints round_to_int(Floats value) {
  const Floats shift = splat(12582912.0f);
  return (Ints)(as_words(value + shift) - as_words(shift));
}

typedef float Eight __attribute__((vector_size(32)));
typedef float Four __attribute__((vector_size(16)));

// Sixteen integers between -128 and 127 as bytes.
inline Bytes to_bytes(Ints value) {
#if defined(VENTRIS_AVX512)
  return (Bytes)_mm512_cvtepi32_epi8((__m512i)value);
#else
  return __builtin_convertvector(value, Bytes);
#endif
}

// Reduce sixteen lanes in a fixed order: halves onto each other until one number is left.
template <class Combine>
inline float fold_lanes(Floats value, Combine combine) {
#if defined(VENTRIS_AVX512)
  Eight eight = combine((Eight)_mm512_castps512_ps256((__m512)value), (Eight)_mm512_extractf32x8_ps((__m512)value, 1));
  Four four = combine((Four)_mm256_castps256_ps128((__m256)eight), (Four)_mm256_extractf128_ps((__m256)eight, 1));
#else
  Eight eights[2];
  std::memcpy(eights, &value, sizeof eights);
  Eight eight = combine(eights[0], eights[1]);
  Four fours[2];
  std::memcpy(fours, &eight, sizeof fours);
  Four four = combine(fours[0], fours[1]);
#endif
  return combine(combine(four[0], four[2]), combine(four[1], four[3]));
}

inline float sum_lanes(Floats value) {
  return fold_lanes(value, [](auto a, auto b) { return a + b; });
}

inline float largest_lane(Floats value) {
  return fold_lanes(value, [](auto a, auto b) { return a > b ? a : b; });
}

inline void prefetch(const void* address) { __builtin_prefetch(address, 0, 3); }

// Rows of words become columns: column[j][i] = row[i][j].
inline void transpose(const Words (&row)[kLanes], Words (&column)[kLanes]) {
#if defined(VENTRIS_AVX512)
  __m512i pairs[kLanes], quads[kLanes], eights[kLanes];
  VENTRIS_UNROLL
  for (int i = 0; i < kLanes; i += 2) {
    pairs[i] = _mm512_unpacklo_epi32((__m512i)row[i], (__m512i)row[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_epi32((__m512i)row[i], (__m512i)row[i + 1]);
  }
  VENTRIS_UNROLL
  for (int i = 0; i < kLanes; i += 4) {
    quads[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
    quads[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
    quads[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
    quads[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
  }
  VENTRIS_UNROLL
  for (int i = 0; i < 8; ++i) {
    const int from = i / 4 * 8 + i % 4;
    eights[from] = _mm512_shuffle_i32x4(quads[from], quads[from + 4], 0x88);
    eights[from + 4] = _mm512_shuffle_i32x4(quads[from], quads[from + 4], 0xdd);
  }
  VENTRIS_UNROLL
  for (int i = 0; i < 8; ++i) {
    column[i] = (Words)_mm512_shuffle_i32x4(eights[i], eights[8 + i], 0x88);
    column[8 + i] = (Words)_mm512_shuffle_i32x4(eights[i], eights[8 + i], 0xdd);
  }
#else
  for (int i = 0; i < kLanes; ++i)
    for (int j = 0; j < kLanes; ++j) column[j][i] = row[i][j];
#endif
}

// Name of the widest instructions this build uses.
inline const char* kernel_name() {
#if defined(VENTRIS_AVX512) && defined(__AVX512VNNI__) && defined(__AVX512BF16__)
  return "avx512-vnni-bf16";
#elif defined(VENTRIS_AVX512) && defined(__AVX512VNNI__)
  return "avx512-vnni";
#elif defined(VENTRIS_AVX512)
  return "avx512";
#elif defined(VENTRIS_AVX2)
  return "avx2";
#else
  return "portable";
#endif
}

}  // namespace ventris
