// How many of the codes of each token equal those of each query.
//
// pool [num_segments, L, 64], directory [rows, W], -1 where a row has no segment; codes of queries
// [rows, Q, L]; counts, float [rows, Q, P].
#include "collisions.h"

namespace {
template <class T>
int64_t count(const T* query, const T* pool, const int64_t* directory, float* counts, int64_t rows,
              int64_t W, int64_t P, int64_t segments, int64_t Q, int64_t L, int threads) {
  if (!sound(directory, rows, W, P, segments)) return 1;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    Spread<T> spread(Q, L);
    std::vector<uint32_t> found(Q * SEGMENT);
    auto at = [&](int64_t r, int64_t w) {
      const int64_t id = w < W ? directory[r * W + w] : -1;
      return id < 0 ? nullptr : pool + id * SEGMENT * L;
    };
#pragma omp for
    for (int64_t r = 0; r < rows; r++) {
      spread.take(query + r * Q * L);
      for (int64_t p = 0; p < P; p += SEGMENT) {
        count_segment(spread, at(r, p / SEGMENT), at(r, p / SEGMENT + 1), found.data());
        for (int64_t q = 0; q < Q; q++)
          std::copy_n(&found[q * SEGMENT], std::min(SEGMENT, P - p), counts + (r * Q + q) * P + p);
      }
    }
  }
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
