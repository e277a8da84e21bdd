// How many of the codes of the tokens of a segment equal those of queries, read where they lie.
#pragma once
#include <algorithm>
#include <cstdint>
#if defined(__AVX512BW__)
#include <immintrin.h>
#endif

namespace {
constexpr int64_t SEGMENT = 64;

constexpr int64_t AT_ONCE = 4;   // queries whose codes stay in registers

#if defined(__AVX512BW__)
template <class T> constexpr int64_t LANES = 64 / sizeof(T);
inline __m512i take(const uint8_t* p, int64_t n) {
  return _mm512_maskz_loadu_epi8(n < 64 ? (1ull << n) - 1 : ~0ull, p);
}
inline __m512i take(const int16_t* p, int64_t n) {
  return _mm512_maskz_loadu_epi16(n < 32 ? (1u << n) - 1 : ~0u, p);
}
inline int same(const uint8_t*, __m512i x, __m512i y) {
  return __builtin_popcountll(_mm512_cmpeq_epi8_mask(x, y));
}
inline int same(const int16_t*, __m512i x, __m512i y) {
  return __builtin_popcount(_mm512_cmpeq_epi16_mask(x, y));
}

// V vectors hold a token's L codes; what is beyond them is 0 in both, and equal.
template <int V, class T>
void count_block(const T* query, const T* code, float* to, int64_t n, int64_t pitch, int64_t Q,
                 int64_t L) {
  __m512i y[AT_ONCE][V];
  for (int64_t q = 0; q < AT_ONCE; q++)
    for (int v = 0; v < V; v++)
      y[q][v] = take(query + std::min(q, Q - 1) * L + v * LANES<T>, L - v * LANES<T>);
  const int beyond = int(V * LANES<T> - L);
  for (int64_t j = 0; j < n; j++) {
    int sum[AT_ONCE] = {};
    for (int v = 0; v < V; v++) {
      const __m512i x = take(code + j * L + v * LANES<T>, L - v * LANES<T>);
      for (int64_t q = 0; q < AT_ONCE; q++) sum[q] += same(code, x, y[q][v]);
    }
    for (int64_t q = 0; q < Q; q++) to[q * pitch + j] = float(sum[q] - beyond);
  }
}
template <class T>
bool count_fast(const T* query, const T* code, float* to, int64_t n, int64_t pitch, int64_t Q,
                int64_t L) {
  switch ((L + LANES<T> - 1) / LANES<T>) {
    case 1: return count_block<1>(query, code, to, n, pitch, Q, L), true;
    case 2: return count_block<2>(query, code, to, n, pitch, Q, L), true;
    case 3: return count_block<3>(query, code, to, n, pitch, Q, L), true;
    case 4: return count_block<4>(query, code, to, n, pitch, Q, L), true;
    case 5: return count_block<5>(query, code, to, n, pitch, Q, L), true;
    default: return false;
  }
}
#else
template <class T>
bool count_fast(const T*, const T*, float*, int64_t, int64_t, int64_t, int64_t) { return false; }
#endif

// counts[q * pitch + j], of the first n tokens of the segment at `code`, or of none if that is null.
template <class T>
void count_segment(const T* query, const T* code, float* counts, int64_t n, int64_t pitch,
                   int64_t Q, int64_t L) {
  for (int64_t q = 0; q < Q; q += AT_ONCE) {
    const int64_t some = std::min(AT_ONCE, Q - q);
    float* to = counts + q * pitch;
    if (code && count_fast(query + q * L, code, to, n, pitch, some, L)) continue;
    for (int64_t k = 0; k < some; k++)
      for (int64_t j = 0; j < n; j++) {
        int sum = 0;
        for (int64_t l = 0; code && l < L; l++) sum += code[j * L + l] == query[(q + k) * L + l];
        to[k * pitch + j] = float(sum);
      }
  }
}

// Whether the directory [rows, W] holds the first P tokens, and points into the pool.
inline bool sound(const int64_t* directory, int64_t rows, int64_t W, int64_t P, int64_t segments) {
  bool ok = (P + SEGMENT - 1) / SEGMENT <= W;
  for (int64_t i = 0; i < rows * W; i++) ok &= directory[i] >= -1 && directory[i] < segments;
  return ok;
}
}  // namespace
