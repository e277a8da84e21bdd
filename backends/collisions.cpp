// How many of the codes of each token equal those of each query, read where they lie.
//
// pool [num_segments, 64, L], directory [rows, W], -1 where a row has no segment; codes of queries
// [rows, Q, L]; counts, float [rows, Q, P].
#include <algorithm>
#include <cstdint>
#if defined(__AVX512BW__)
#include <immintrin.h>
#endif

namespace {
constexpr int64_t SEGMENT = 64;

#if defined(__AVX512BW__)
inline int same(const uint8_t* a, const uint8_t* b, int64_t n) {
  int count = 0;
  for (int64_t i = 0; i < n; i += 64) {
    const __mmask64 in = n - i < 64 ? (1ull << (n - i)) - 1 : ~0ull;
    const __m512i x = _mm512_maskz_loadu_epi8(in, a + i), y = _mm512_maskz_loadu_epi8(in, b + i);
    count += __builtin_popcountll(_mm512_mask_cmpeq_epi8_mask(in, x, y));
  }
  return count;
}
inline int same(const int16_t* a, const int16_t* b, int64_t n) {
  int count = 0;
  for (int64_t i = 0; i < n; i += 32) {
    const __mmask32 in = n - i < 32 ? (1u << (n - i)) - 1 : ~0u;
    const __m512i x = _mm512_maskz_loadu_epi16(in, a + i), y = _mm512_maskz_loadu_epi16(in, b + i);
    count += __builtin_popcount(_mm512_mask_cmpeq_epi16_mask(in, x, y));
  }
  return count;
}
#else
template <class T> inline int same(const T* a, const T* b, int64_t n) {
  int count = 0;
  for (int64_t i = 0; i < n; i++) count += a[i] == b[i];
  return count;
}
#endif

template <class T>
void count_row(const T* query, const T* pool, const int64_t* directory, float* counts, int64_t P,
               int64_t Q, int64_t L) {
  for (int64_t p = 0; p < P; p += SEGMENT) {
    const int64_t id = directory[p / SEGMENT], n = std::min(SEGMENT, P - p);
    for (int64_t q = 0; q < Q; q++) {
      float* to = counts + q * P + p;
      if (id < 0) { std::fill_n(to, n, 0.f); continue; }
      const T* code = pool + id * SEGMENT * L;
      for (int64_t j = 0; j < n; j++) to[j] = float(same(code + j * L, query + q * L, L));
    }
  }
}

template <class T>
int64_t count(const T* query, const T* pool, const int64_t* directory, float* counts, int64_t rows,
              int64_t W, int64_t P, int64_t segments, int64_t Q, int64_t L, int threads) {
  if ((P + SEGMENT - 1) / SEGMENT > W) return 1;
  for (int64_t i = 0; i < rows * W; i++)
    if (directory[i] < -1 || directory[i] >= segments) return 1;
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t r = 0; r < rows; r++)
    count_row(query + r * Q * L, pool, directory + r * W, counts + r * Q * P, P, Q, L);
  return 0;
}
}  // namespace

// 0, or 1 where the directory points outside the pool; `wide`: codes are int16, not uint8.
extern "C" int64_t collisions(const void* query, const void* pool, const int64_t* directory,
                              float* counts, int64_t rows, int64_t W, int64_t P, int64_t segments,
                              int64_t Q, int64_t L, int wide, int threads) {
  if (wide)
    return count((const int16_t*)query, (const int16_t*)pool, directory, counts, rows, W, P,
                 segments, Q, L, threads);
  return count((const uint8_t*)query, (const uint8_t*)pool, directory, counts, rows, W, P,
               segments, Q, L, threads);
}
