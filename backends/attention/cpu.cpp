// The entries of the compiled kernel, called through ctypes: see cpu.py.
#include "attend.h"
#include "score.h"
#include "step.h"

#define ENTRIES(SUFFIX, T)                                                                         \
  extern "C" int attend_##SUFFIX(const T* query, const T* pool, const int64_t* indptr,             \
                                 const int32_t* frames, const uint64_t* live, T* out, float* lse,  \
                                 const float* bias, int64_t rows, int64_t total,                   \
                                 int64_t num_frames, int64_t slots, int G, int S, float scale,     \
                                 int threads) {                                                    \
    return attend<T>(query, {pool, indptr, frames, live, rows, total, num_frames, G, S,            \
                     scale * LOG2E, bias, slots}, out, lse, threads);                              \
  }                                                                                                \
  extern "C" int products_##SUFFIX(const T* query, const T* pool, const int64_t* indptr,           \
                                   const int32_t* frames, const uint64_t* live, float* out,        \
                                   int64_t rows, int64_t total, int64_t num_frames, int64_t slots, \
                                   int G, int S, int threads) {                                    \
    return products<T>(query, {pool, indptr, frames, live, rows, total, num_frames, G, S, 1,       \
                       nullptr, slots}, out, threads);                                             \
  }                                                                                                \
  extern "C" int score_##SUFFIX(const T* query, const T* pool, const int64_t* directory,           \
                                float* out, int64_t rows, int64_t W, int64_t P,                    \
                                int64_t num_segments, int C, int Q, int E, int by_entry,           \
                                int threads) {                                                     \
    return score<T>(query, {pool, directory, rows, W, num_segments, C, Q, E, by_entry != 0}, P,    \
                    out, threads);                                                                 \
  }                                                                                                \
  extern "C" int step_##SUFFIX(Step<T>* step, int attends) { return run(*step, attends); }
ENTRIES(bf16, bf16)
ENTRIES(f32, float)
