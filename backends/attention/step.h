// A decode step in one call: score, choose partitions, find their pages and frames, attend.
//
// Scores are reduced over the query group into `scores` [R, P], or kept per query [R, Q, P] where
// the reduction needs them all. A row writes its pages at a place of its own, then all close up.
#pragma once
#include <memory>
#include <vector>

#include "attend.h"
#include "choose.h"
#include "score.h"

namespace {
enum Reduce : int64_t { MAX, MEAN, MASS };

template <class T> struct Step {   // laid out as STEP in cpu_step.py
  const T *query, *scoring;
  const int64_t *directory, *first_page;
  const T *segments, *pool;
  int64_t* partitions;   // [R, most_columns], or null
  const int64_t *tokens, *columns;
  const int32_t *cells, *base;
  const uint64_t* bits;
  T* out;
  float* lse;
  int64_t *indptr, *pages;
  int32_t* frames;
  uint64_t* live;
  float* share;   // [R, G], or null; with MASS
  int64_t rows, W, C, num_segments, num_cells, num_groups, num_frames, G, E, S, most_columns, size,
      sinks, recents, reduce, room, by_entry, score_threads, attend_threads;
  double scale;
  int64_t total, wanted, missing;   // results
};

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Memory that stays between calls: fresh pages would be faulted in at every step.
inline float* scratch(size_t count) {
  static thread_local std::unique_ptr<float[]> kept;
  static thread_local size_t size = 0;
  if (count > size) kept.reset(new float[size = count + count / 2]);
  return kept.get();
}

template <class T> struct Chooser {
  Step<T>& s;
  const Table table{s.cells, s.base, s.bits, s.num_cells, s.num_groups * 64};
  int64_t width = 0;   // of a row of scores
  float* scores = nullptr;
  std::vector<Found> found;

  int64_t partitions(int64_t row) const { return ceil_div(s.tokens[row], s.size); }
  int64_t columns(int64_t row) const {
    const int64_t allowed = s.columns ? s.columns[row] : s.most_columns;
    return std::min({allowed, s.most_columns, partitions(row)});
  }
  // Rows of scores that a row keeps; after those of the queries what they sum up to, if it needs
  // room of its own because they are looked at again.
  int64_t kept() const { return s.reduce == MASS ? s.G + (s.share != nullptr) : 1; }
  float* at(int64_t row, int64_t g = 0) const { return scores + (row * kept() + g) * width; }
  float* reduced(int64_t row) const { return at(row, s.share ? s.G : 0); }

  // A row that reads all it has is not scored.
  int64_t scored(int64_t row) const {
    return columns(row) < partitions(row) ? partitions(row) : 0;
  }

  void keep(int64_t row, int64_t first, int q, int count, const float (*L)[BLOCK]) const {
    if (s.reduce == MASS) {
      for (int g = 0; g < count; g++) memcpy(at(row, q + g) + first, L[g], sizeof(L[g]));
      return;
    }
    float* to = at(row) + first;
    int g = 0;
    if (q == 0) memcpy(to, L[g++], sizeof(L[0]));
    for (; g < count; g++)
      for (int j = 0; j < BLOCK; j++) {
        const float x = L[g][j];
        if (s.reduce == MEAN) to[j] += x;
        else to[j] = x > to[j] || x != x ? x : to[j];
      }
  }

  // What has no number for one query has none for any. Whole vectors are -inf beyond the last.
  void drop_unknown(int64_t row) const {
    const int64_t P = partitions(row), end = ceil_div(P, BLOCK) * BLOCK;
    vi unknown = {};
    for (int g = 0; g < s.G; g++) {
      float* x = at(row, g);
      std::fill(x + P, x + end, -INFINITY);
      for (int64_t p = 0; p < P; p += W) unknown |= load(x + p) != load(x + p);
    }
    int32_t any = 0;
    for (int j = 0; j < W; j++) any |= unknown[j];
    for (int64_t p = 0; any && p < P; p++) {
      bool number = true;
      for (int g = 0; g < s.G; g++) number &= !std::isnan(at(row, g)[p]);
      if (!number) for (int g = 0; g < s.G; g++) at(row, g)[p] = -INFINITY;
    }
  }

  // What the softmax over partitions gives each, summed over the queries. Leaves in `share` the
  // weight of each query's exponentials.
  void to_mass(int64_t row) const {
    const int64_t P = partitions(row);
    float* sum = reduced(row);
    drop_unknown(row);
    for (int g = 0; g < s.G; g++) {
      float* x = at(row, g);
      vf high = vf{} - INFINITY, added = {};
      for (int64_t p = 0; p < P; p += W) high = load(x + p) > high ? load(x + p) : high;
      const float top = fold(high, [](float a, float b) { return std::max(a, b); });
      const float offset = top == -INFINITY ? 0 : top;
      for (int64_t p = 0; p < P; p += W) {
        const vf e = exp2v((load(x + p) - offset) * LOG2E);
        store(x + p, e), added += e;
      }
      const float total = fold(added, [](float a, float b) { return a + b; });
      const float weight = total == 0 ? 0 : 1 / total;
      for (int64_t p = 0; p < P; p += W) {
        const vf share = load(x + p) * weight;
        store(sum + p, g ? load(sum + p) + share : share);
      }
      if (s.share) s.share[row * s.G + g] = weight;
    }
  }

  void to_shares(int64_t row, const Best& best) const {
    for (int g = 0; g < s.G; g++) {
      const float* x = at(row, g);
      float sum = 0, &share = s.share[row * s.G + g];
      for (int64_t i = 0; i < best.n; i++) sum += x[best.index[i]];
      share = share == 0 ? 1 : share * sum;
    }
  }

  Found choose(int64_t row) const {
    const int64_t P = partitions(row), n = s.tokens[row], k = columns(row);
    int64_t* pages = s.pages + row * s.room;
    uint64_t* live = s.live + row * s.room;
    auto place = [&](auto partition) {
      if (s.partitions)
        for (int64_t c = 0; c < s.most_columns; c++)
          s.partitions[row * s.most_columns + c] = c < k ? partition(c) : -1;
      return to_pages(partition, k, s.size, n, int(s.S), s.first_page[row], table, pages, live);
    };
    if (!scored(row)) {
      if (s.share) std::fill_n(s.share + row * s.G, s.G, 1.f);
      return place([](int64_t i) { return i; });
    }
    if (s.reduce == MASS) to_mass(row);
    Key* keys = (Key*)reduced(row);
    to_keys(reduced(row), keys, P);
    std::fill(keys, keys + std::min(ceil_div(s.sinks, s.size), P), FORCED);
    std::fill(keys + std::max<int64_t>(n - s.recents, 0) / s.size, keys + P, FORCED);
    Best best(k);
    best.add(keys, P);
    if (s.share) to_shares(row, best);
    return place([&](int64_t i) { return int64_t(best.index[i]); });
  }

  bool look_up(int64_t row) const {
    bool ok = true;
    const int64_t first = row * s.room;
    for (int64_t i = first; i < first + found[row].pages; i++) {
      const bool inside = s.pages[i] >= 0 && s.pages[i] < (s.bits ? table.num_pages : s.num_cells);
      s.frames[i] = inside ? table.frame(s.pages[i]) : -1;
      ok &= inside;
    }
    return ok;
  }

  // Closes the gaps between rows, and counts.
  void pack() {
    s.total = s.wanted = s.missing = 0;
    for (int64_t r = 0; r < s.rows; r++) {
      const int64_t first = r * s.room, count = found[r].pages;
      s.indptr[r] = s.total, s.wanted += found[r].wanted;
      for (int64_t i = first; i < first + count; i++) s.missing += s.frames[i] < 0;
      if (first != s.total) {
        std::copy_n(s.pages + first, count, s.pages + s.total);
        std::copy_n(s.frames + first, count, s.frames + s.total);
        std::copy_n(s.live + first, count, s.live + s.total);
      }
      s.total += count;
    }
    s.indptr[s.rows] = s.total;
  }

  bool run() {
    int64_t longest = 0;
    for (int64_t r = 0; r < s.rows; r++) {
      if (s.tokens[r] < 0 || (s.columns && s.columns[r] < 0)) return false;
      longest = std::max(longest, partitions(r));
    }
    width = ceil_div(longest, BLOCK) * BLOCK;
    scores = scratch(s.rows * width * kept());
    found.resize(s.rows);
    std::vector<char> sound(s.rows);
    const Summaries<T> summaries{s.segments, s.directory, s.rows, s.W, s.num_segments,
                                 int(s.C), int(s.G), int(s.E), s.by_entry != 0};
    auto absent = [&](int64_t row, int64_t first) {
      for (int g = 0; g < (s.reduce == MASS ? s.G : 1); g++)
        std::fill_n(at(row, g) + first, BLOCK, NAN);
    };
    Parts parts;
    if (!find(summaries, [&](int64_t row) { return scored(row); }, parts, absent)) return false;
    auto emit = [&](int64_t row, int64_t first, int q, int n, auto& L) {
      keep(row, first, q, n, L);
    };
    const int threads = int(s.score_threads);
    score_all(s.scoring, summaries, parts, threads, emit);
    Queue rows(s.rows, threads);
    in_parallel(threads, [&] {
      rows.drain([&](int64_t r) { found[r] = choose(r), sound[r] = look_up(r); });
    });
    for (char each : sound) if (!each) return false;
    pack();
    return true;
  }
};

// 0, or 1 where an argument points outside what it points into.
template <class T> int run(Step<T>& s, bool attends) {
  Chooser<T> chooser{s};
  if (!chooser.run()) return 1;
  if (s.missing || !attends) return 0;
  const Pages<T> pages{s.pool, s.indptr, s.frames, s.live, s.rows, s.total, s.num_frames,
                       int(s.G), int(s.S), float(s.scale) * LOG2E};
  return attend<T>(s.query, pages, s.out, s.lse, int(s.attend_threads));
}
}  // namespace
