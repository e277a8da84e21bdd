// Scores of partitions: dot products of queries with summaries, read where they lie.
//
// A segment holds the summaries of C consecutive partitions of one row: pool [num_segments, C, E],
// or [num_segments, E, C] where they lie by entry. C divides BLOCK; where it is less, every segment
// of a row is there. A row with Q queries has the segments directory[r][0 .. W), -1 where there is
// none. Scores are worked out for a block of BLOCK partitions at a time.
#pragma once
#include <vector>

#include "vector.h"

namespace {
template <class T> struct Summaries {
  const T* pool;
  const int64_t* directory;
  int64_t rows, W, num_segments;
  int C, Q, E;
  bool by_entry = false;

  int64_t per_block() const { return BLOCK / C; }
};

struct Parts {   // the blocks that there are: whose they are, and the segments of each
  std::vector<int64_t> row, first;
  std::vector<int32_t> id;
};

// Lists the blocks of the first P(row) partitions of each row; absent(row, first partition) is
// told of those that are not there. False where the directory points outside the pool.
template <class T, class Count, class Absent>
bool find(const Summaries<T>& s, Count P, Parts& parts, Absent absent) {
  const int64_t n = s.per_block();
  for (int64_t r = 0; r < s.rows; r++) {
    const int64_t used = (P(r) + s.C - 1) / s.C;
    if (used > s.W) return false;
    for (int64_t w = 0; w < used; w += n) {
      const int64_t* ids = s.directory + r * s.W + w;
      const int64_t here = std::min(n, used - w);
      for (int64_t i = 0; i < here; i++)
        if (ids[i] < (n > 1 ? 0 : -1) || ids[i] >= s.num_segments) return false;
      if (ids[0] < 0) {
        absent(r, w * s.C);
        continue;
      }
      parts.row.push_back(r), parts.first.push_back(w * s.C);
      // Of what lies behind the last partition nobody looks at the scores.
      for (int64_t i = 0; i < n; i++) parts.id.push_back(ids[std::min(i, here - 1)]);
    }
  }
  return true;
}

// One thread's share of the scores. emit(row, first partition, first query, number of queries, L)
// is told of each block, the queries of a segment in order.
template <class T, bool PAIR, class Emit>
void score_parts(const T* query, const Summaries<T>& s, const Parts& parts, Queue& queue,
                 Emit emit) {
  const int64_t num_parts = parts.id.size(), bytes = int64_t(s.C) * s.E * sizeof(T);
  const int64_t lead = (AHEAD_BYTES + bytes - 1) / bytes, n = s.per_block();
  constexpr int work = 3;   // of `dots`, for a query and a summary
  Ahead ahead{(const char*)s.pool, parts.id.data(), bytes, -1, num_parts - 1,
              int(bytes / s.C * 4096 / 64 / (work * s.Q))};
  const T* k[BLOCK];
  alignas(64) float L[4][BLOCK];
  queue.drain([&](int64_t i) {
    const int32_t* ids = parts.id.data() + i * n;
    if (ahead.at < (i + 1) * n) ahead.seek(i * n + std::max(lead, n));
    const int64_t row = parts.row[i], at = parts.first[i];
    for (int64_t j = 0; j < n; j++)
      for (int c = 0; c < s.C; c++) k[j * s.C + c] = s.pool + (int64_t(ids[j]) * s.C + c) * s.E;
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
  const int64_t num_parts = parts.row.size(), size = int64_t(BLOCK) * s.E;
  alignas(64) float L[4][BLOCK];
  queue.drain([&](int64_t i) {
    if (i + lead < num_parts)
      for (const int e : used[parts.row[i + lead]].entry) {
        const char* line = (const char*)(s.pool + parts.id[i + lead] * size + int64_t(e) * BLOCK);
        for (size_t b = 0; b < BLOCK * sizeof(T); b += 64) __builtin_prefetch(line + b, 0, 3);
      }
    const int64_t row = parts.row[i], at = parts.first[i];
    in_groups(s.Q, [&](auto width, int q) {
      by_entry<width>(s.pool + parts.id[i] * size, used[row], q, s.Q, L);
      emit(row, at, q, int(width), L);
    });
  });
}

template <class T, class Emit>
void score_all(const T* query, const Summaries<T>& s, const Parts& parts, int threads, Emit emit) {
  Queue queue(parts.row.size(), threads);
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
