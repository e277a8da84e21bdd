// Scores of partitions: dot products of queries with summaries, read where they lie.
//
// A segment holds the summaries of BLOCK consecutive partitions of one row: pool [num_segments,
// BLOCK, E], or [num_segments, E, BLOCK] where they lie by entry. A row with Q queries has the
// segments directory[r][0 .. W), -1 where there is none.
#pragma once
#include <vector>

#include "vector.h"

namespace {
template <class T> struct Summaries {
  const T* pool;
  const int64_t* directory;
  int64_t rows, W, num_segments;
  int Q, E;
  bool by_entry = false;
};

struct Parts {   // the segments that there are: their places in the directory, and their ids
  std::vector<int64_t> place;
  std::vector<int32_t> id;
};

// Lists the segments of the first P(row) partitions of each row; absent(row, first partition) is
// told of those that are not there. False where the directory points outside the pool.
template <class T, class Count, class Absent>
bool find(const Summaries<T>& s, Count P, Parts& parts, Absent absent) {
  for (int64_t r = 0; r < s.rows; r++) {
    const int64_t used = (P(r) + BLOCK - 1) / BLOCK;
    if (used > s.W) return false;
    for (int64_t w = 0; w < used; w++) {
      const int64_t id = s.directory[r * s.W + w];
      if (id < -1 || id >= s.num_segments) return false;
      if (id >= 0) parts.place.push_back(r * s.W + w), parts.id.push_back(id);
      else absent(r, w * BLOCK);
    }
  }
  return true;
}

// One thread's share of the scores. emit(row, first partition, first query, number of queries, L)
// is told of each block, the queries of a segment in order.
template <class T, bool PAIR, class Emit>
void score_parts(const T* query, const Summaries<T>& s, const Parts& parts, Queue& queue,
                 Emit emit) {
  const int64_t num_parts = parts.id.size(), bytes = int64_t(BLOCK) * s.E * sizeof(T);
  const int64_t lead = (AHEAD_BYTES + bytes - 1) / bytes;
  constexpr int work = 3;   // of `dots`, for a query and a summary
  Ahead ahead{(const char*)s.pool, parts.id.data(), bytes, -1, num_parts - 1,
              int(bytes / BLOCK * 4096 / 64 / (work * s.Q))};
  const T* k[BLOCK];
  alignas(64) float L[4][BLOCK];
  queue.drain([&](int64_t i) {
    if (ahead.at <= i) ahead.seek(i + lead);
    const int64_t row = parts.place[i] / s.W, at = parts.place[i] % s.W * BLOCK;
    for (int j = 0; j < BLOCK; j++) k[j] = s.pool + (int64_t(parts.id[i]) * BLOCK + j) * s.E;
    in_groups(s.Q, [&](auto width, int q) {
      dots<T, width, PAIR>(query + (row * s.Q + q) * s.E, k, ahead, BLOCK, L, s.E);
      emit(row, at, q, int(width), L);
    });
  });
}

// The entries that any query of a row is not 0 in, and all its queries there.
struct Used {
  std::vector<int> entry;
  std::vector<float> weight;   // [entries, Q]
};

template <class T> std::vector<Used> used_entries(const T* query, const Summaries<T>& s) {
  std::vector<Used> used(s.rows);
  for (int64_t r = 0; r < s.rows; r++)
    for (int e = 0; e < s.E; e++) {
      const size_t at = used[r].weight.size();
      bool any = false;
      for (int q = 0; q < s.Q; q++) {
        used[r].weight.push_back(widen(query[(r * s.Q + q) * s.E + e]));
        any |= used[r].weight.back() != 0;
      }
      if (any) used[r].entry.push_back(e);
      else used[r].weight.resize(at);
    }
  return used;
}

// The products of GC queries, from `q` on, with the summaries of a segment.
template <int GC, class T>
void by_entry(const T* segment, const Used& used, int q, int Q, float (*L)[BLOCK]) {
  constexpr int C = W == 16 ? BLOCK / W : 2;
  for (int at = 0; at < BLOCK; at += C * W) {
    vf a[GC][C] = {};
    for (size_t i = 0; i < used.entry.size(); i++) {
      const T* x = segment + int64_t(used.entry[i]) * BLOCK + at;
      const float* weight = &used.weight[i * Q + q];
      for (int c = 0; c < C; c++) {
        const vf value = load(x + c * W);
        for (int g = 0; g < GC; g++) a[g][c] += value * weight[g];
      }
    }
    for (int g = 0; g < GC; g++)
      for (int c = 0; c < C; c++) store(&L[g][at + c * W], a[g][c]);
  }
}

template <class T, class Emit>
void score_entries(const std::vector<Used>& used, const Summaries<T>& s, const Parts& parts,
                   Queue& queue, Emit emit) {
  constexpr int64_t lead = 6;   // segments between the prefetch and the computation
  const int64_t num_parts = parts.id.size(), size = int64_t(BLOCK) * s.E;
  alignas(64) float L[4][BLOCK];
  queue.drain([&](int64_t i) {
    if (i + lead < num_parts)
      for (const int e : used[parts.place[i + lead] / s.W].entry) {
        const char* line = (const char*)(s.pool + parts.id[i + lead] * size + int64_t(e) * BLOCK);
        for (size_t b = 0; b < BLOCK * sizeof(T); b += 64) __builtin_prefetch(line + b, 0, 3);
      }
    const int64_t row = parts.place[i] / s.W, at = parts.place[i] % s.W * BLOCK;
    in_groups(s.Q, [&](auto width, int q) {
      by_entry<width>(s.pool + parts.id[i] * size, used[row], q, s.Q, L);
      emit(row, at, q, int(width), L);
    });
  });
}

template <class T, class Emit>
void score_all(const T* query, const Summaries<T>& s, const Parts& parts, int threads, Emit emit) {
  Queue queue(parts.id.size(), threads);
  const std::vector<Used> used = s.by_entry ? used_entries(query, s) : std::vector<Used>();
  in_parallel(threads, [&] {
    if (s.by_entry) score_entries(used, s, parts, queue, emit);
    else if (pairs<T> && s.E % 32 == 0) score_parts<T, pairs<T>>(query, s, parts, queue, emit);
    else score_parts<T, false>(query, s, parts, queue, emit);
  });
}

// 0, or 1 where the directory points outside the pool.
template <class T>
int score(const T* query, const Summaries<T>& s, int64_t P, float* out, int threads) {
  auto room = [&](int64_t at) { return std::min<int64_t>(BLOCK, P - at); };
  auto absent = [&](int64_t row, int64_t at) {
    for (int q = 0; q < s.Q; q++) std::fill_n(out + (row * s.Q + q) * P + at, room(at), 0.f);
  };
  Parts parts;
  if (!find(s, [&](int64_t) { return P; }, parts, absent)) return 1;
  score_all(query, s, parts, threads, [&](int64_t row, int64_t at, int q, int width, auto& L) {
    for (int g = 0; g < width; g++)
      memcpy(out + (row * s.Q + q + g) * P + at, L[g], room(at) * sizeof(float));
  });
  return 0;
}
}  // namespace
