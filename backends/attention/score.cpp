// Scores of partitions: dot products of queries with summaries, read where they lie.
//
// A segment holds the summaries of BLOCK consecutive partitions of one row: pool [num_segments,
// BLOCK, E]. A row with Q queries has the segments directory[r][0 .. W), -1 where there is none.
#include <vector>

#include "cpu_vector.h"

namespace {
constexpr int64_t AHEAD_BYTES = 32 << 10;   // how far the prefetch runs before the computation

template <class T> struct Summaries {
  const T* pool;
  const int64_t* directory;
  int64_t rows, W, P, num_segments;
  int Q, E;
};

struct Parts {   // the segments that there are: their places in the directory, and their ids
  std::vector<int64_t> place;
  std::vector<int32_t> id;
};

// False where the directory points outside the pool.
template <class T> bool find(const Summaries<T>& s, float* out, Parts& parts) {
  const int64_t used = (s.P + BLOCK - 1) / BLOCK;
  for (int64_t r = 0; r < s.rows; r++)
    for (int64_t w = 0; w < used; w++) {
      const int64_t id = s.directory[r * s.W + w], at = w * BLOCK;
      if (id < -1 || id >= s.num_segments) return false;
      if (id >= 0) parts.place.push_back(r * s.W + w), parts.id.push_back(id);
      else for (int q = 0; q < s.Q; q++)
        std::fill_n(out + (r * s.Q + q) * s.P + at, std::min<int64_t>(BLOCK, s.P - at), 0.f);
    }
  return true;
}

template <class T, bool PAIR>
void score_part(const T* query, const Summaries<T>& s, float* out, int64_t place, int32_t id,
                Ahead& ahead) {
  const int64_t row = place / s.W, at = place % s.W * BLOCK;
  const int n = std::min<int64_t>(BLOCK, s.P - at);
  const T* k[BLOCK];
  for (int j = 0; j < BLOCK; j++) k[j] = s.pool + (int64_t(id) * BLOCK + j) * s.E;
  alignas(64) float L[4][BLOCK];
  in_groups(s.Q, [&](auto width, int q) {
    const int64_t first = row * s.Q + q;
    dots<T, width, PAIR>(query + first * s.E, k, ahead, (n + 15) & ~15, L, s.E);
    for (int g = 0; g < width; g++) memcpy(out + (first + g) * s.P + at, L[g], n * sizeof(float));
  });
}

template <class T, bool PAIR>
void score_parts(const T* query, const Summaries<T>& s, float* out, const Parts& parts,
                 int threads) {
  const int64_t num_parts = parts.id.size(), bytes = int64_t(BLOCK) * s.E * sizeof(T);
  const int64_t lead = (AHEAD_BYTES + bytes - 1) / bytes;
  const int64_t run = 1 + num_parts / (4 * threads);   // neighbours, for the prefetch to be of use
  constexpr int work = 3;   // of `dots`, for a query and a summary
#pragma omp parallel num_threads(threads) if (threads > 1 && num_parts > 1)
  {
    Ahead ahead{(const char*)s.pool, parts.id.data(), bytes, -1, num_parts - 1,
                int(bytes / BLOCK * 4096 / 64 / (work * s.Q))};
#pragma omp for schedule(monotonic: dynamic, run)
    for (int64_t i = 0; i < num_parts; i++) {
      if (ahead.at <= i) ahead.seek(i + lead);
      score_part<T, PAIR>(query, s, out, parts.place[i], parts.id[i], ahead);
    }
  }
}

// 0, or 1 where the directory points outside the pool.
template <class T>
int score(const T* query, const Summaries<T>& s, float* out, int threads) {
  Parts parts;
  if (!find(s, out, parts)) return 1;
  if (pairs<T> && s.E % 32 == 0) score_parts<T, pairs<T>>(query, s, out, parts, threads);
  else score_parts<T, false>(query, s, out, parts, threads);
  return 0;
}
}  // namespace

#define ENTRY(NAME, T)                                                                            \
  extern "C" int NAME(const T* query, const T* pool, const int64_t* directory, float* out,        \
                      int64_t rows, int64_t W, int64_t P, int64_t num_segments, int Q, int E,     \
                      int threads) {                                                              \
    return score<T>(query, {pool, directory, rows, W, P, num_segments, Q, E}, out, threads);      \
  }
ENTRY(score_bf16, bf16)
ENTRY(score_f32, float)
