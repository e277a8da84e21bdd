// Decode attention over paged KV on a CPU.
//
// A page holds S slots of one (sequence, layer, kv head): pool [F, 2, S, D], keys then values.
// A row is one (sequence, kv head) with G query heads; its pages are
// frames[indptr[r] : indptr[r+1]]. Rows are cut into parts of one size, whatever the number of
// threads: the result is the same, bit for bit, and one long row keeps every thread at work.
#pragma once
#include <memory>
#include <vector>

#include "vector.h"

namespace {
constexpr int PART_SLOTS = 1024;            // slots that one thread attends at a time

struct alignas(64) Line { float x[16]; };

// The running softmax of a part: weighted values, maximum (in powers of 2) and sum, per query head.
struct State {
  float (*acc)[D];
  float *top, *sum;
  static int64_t lines(int G) { return G * (D / 16) + (2 * G + 15) / 16; }
  State(Line* at, int G) : acc((float (*)[D])at), top(&acc[G][0]), sum(top + G) {}
};

template <class T> struct Pages {
  const T* pool;
  const int64_t* indptr;
  const int32_t* frames;
  const uint64_t* live;
  int64_t rows, total, num_frames;
  int G, S;
  float scale;
  const float* bias = nullptr;   // [G, slots], added to the logits of the live slots, in order
  int64_t slots = 0;

  uint64_t alive(int64_t i) const { return live[i] & (S == 64 ? ~0ull : (1ull << S) - 1); }
};

// Attends one part at a time: pointers to its live keys, in blocks of one softmax step.
template <class T> struct Worker {
  const Pages<T>& pages;
  const int64_t off = int64_t(pages.S) * D;   // from a key to its value
  Ahead ahead;
  alignas(64) float L[4][BLOCK];
  const T* k[BLOCK];

  explicit Worker(const Pages<T>& p, bool values = true) : pages(p) {
    const int work = values ? 8 : 3;   // of a slot: 3 for q.k, 2 for the softmax, 3 for p.v
    ahead = {(const char*)p.pool, p.frames, 2 * off * int64_t(sizeof(T)), -1, p.total - 1,
             4096 / 64 * (values ? 2 : 1) * D * int(sizeof(T)) / (work * p.G),
             p.live, p.S, 0, values};
  }

  // `at` live slots lie before the first of these n.
  template <int GC> void heads(const T* q, int g0, int n, int64_t at, State& state) {
    const int padded = (n + 15) & ~15;
    dots<T, GC>(q + g0*D, k, ahead, padded, L);
    for (int g = 0; g < GC; g++) {
      const float* bias = pages.bias ? pages.bias + (g0 + g) * pages.slots + at : nullptr;
      if (bias) for (int s = 0; s < n; s++) L[g][s] += bias[s] * (LOG2E / pages.scale);
      float &top = state.top[g0+g], &sum = state.sum[g0+g], *acc = state.acc[g0+g];
      for (int s = n; s < padded; s++) L[g][s] = -INFINITY;
      vf high = vf{} - INFINITY, added = {};
      for (int s = 0; s < padded; s += W) {
        vf x = load(&L[g][s]) * pages.scale;
        store(&L[g][s], x);
        high = x > high ? x : high;
      }
      const float now = std::max(top, fold(high, [](float a, float b) { return a > b ? a : b; }));
      if (now == -INFINITY) {   // a bias that leaves this head none of them
        std::fill_n(L[g], padded, 0.f);
        continue;
      }
      if (now > top) {
        const float shrink = std::exp2(top - now);
        sum *= shrink, top = now;
        for (int d = 0; d < D; d++) acc[d] *= shrink;
      }
      for (int s = 0; s < padded; s += W) {
        vf p = exp2v(load(&L[g][s]) - now);
        store(&L[g][s], p);
        added += p;
        ahead.step(2 * W);
      }
      sum += fold(added, [](float a, float b) { return a + b; });
    }
#if PAIRS
    if constexpr (pairs<T>) return weigh_pairs<GC>(L, k, ahead, off, padded, state.acc + g0);
#endif
    weigh<T, GC>(L, k, ahead, off, padded, state.acc + g0);
  }

  // The live slots of pages first .. last - 1, in blocks: f(number of them).
  template <class F> void blocks(int64_t first, int64_t last, F f) {
    int n = 0;
    auto full = [&] {
      for (int s = n; s < BLOCK; s++) k[s] = k[n-1];   // weight 0; finite because slot n-1 is live
      f(n), n = 0;
    };
    for (int64_t i = first; i < last; i++) {
      const T* base = pages.pool + pages.frames[i] * 2 * off;
      if (ahead.at <= i) ahead.lead(i, AHEAD_BYTES);
      for (uint64_t bits = pages.alive(i); bits; bits &= bits - 1) {
        k[n] = base + __builtin_ctzll(bits) * D;
        if (++n == BLOCK) full();
      }
    }
    if (n) full();
  }

  void attend(const T* q, int64_t first, int64_t last, int64_t at, State state) {
    std::fill_n(&state.acc[0][0], pages.G * D, 0.f);
    std::fill_n(state.top, pages.G, -INFINITY), std::fill_n(state.sum, pages.G, 0.f);
    blocks(first, last, [&](int n) {
      in_groups(pages.G, [&](auto count, int g) { heads<count>(q, g, n, at, state); });
      at += n;
    });
  }

  void multiply(const T* q, int64_t first, int64_t last, int64_t at, float* out) {
    blocks(first, last, [&](int n) {
      in_groups(pages.G, [&](auto count, int g0) {
        dots<T, count>(q + g0*D, k, ahead, BLOCK, L);
        for (int g = 0; g < count; g++)
          memcpy(out + (g0 + g) * pages.slots + at, L[g], n * sizeof(float));
      });
      at += n;
    });
  }
};

// Joins the parts of one query head of a row.
template <class T> void finish(const std::vector<State>& states, int g, T* out, float* lse) {
  float top = -INFINITY, sum = 0, acc[D] = {};
  for (const State& s : states) top = std::max(top, s.top[g]);
  for (const State& s : states) {
    const float weight = s.sum[g] == 0 ? 0 : std::exp2(s.top[g] - top);
    sum += weight * s.sum[g];
    for (int d = 0; d < D; d++) acc[d] += weight * s.acc[g][d];
  }
  const float inverse = sum == 0 ? 0 : 1 / sum;
  for (int d = 0; d < D; d++) narrow(acc[unmix<T>(d)] * inverse, out + d);
  *lse = sum == 0 ? -INFINITY : top * LN2 + std::log(sum);
}

struct Part { int64_t row, first, last, at; };   // at: live slots before it, where they are counted

template <class T> bool sound(const Pages<T>& p) {
  bool ok = p.indptr[0] == 0 && p.indptr[p.rows] == p.total;
  for (int64_t r = 0; r < p.rows; r++) ok &= p.indptr[r] <= p.indptr[r+1];
  for (int64_t i = 0; i < p.total; i++) ok &= p.frames[i] >= 0 && p.frames[i] < p.num_frames;
  return ok;
}

// The parts of each row, and where those of a row begin. False where there are not as many live
// slots as were counted.
template <class T>
bool cut(const Pages<T>& pages, std::vector<Part>& parts, std::vector<int64_t>& first_part) {
  const int64_t step = std::max(1, PART_SLOTS / pages.S);
  int64_t at = 0;
  for (int64_t r = 0; r < pages.rows; r++) {
    first_part.push_back(parts.size());
    for (int64_t i = pages.indptr[r]; i < pages.indptr[r+1]; i += step) {
      const int64_t end = std::min(i + step, pages.indptr[r+1]);
      parts.push_back({r, i, end, at});
      if (pages.slots)
        for (int64_t j = i; j < end; j++) at += __builtin_popcountll(pages.alive(j));
    }
  }
  first_part.push_back(parts.size());
  return at == pages.slots;
}

// 0, or 1 where the selection points outside the pool.
template <class T>
int attend(const T* query, const Pages<T>& pages, T* out, float* lse, int threads) {
  if (!sound(pages)) return 1;
  const int G = pages.G;
  std::vector<Part> parts;
  std::vector<int64_t> first_part;
  if (!cut(pages, parts, first_part)) return 1;
  const int64_t num_parts = parts.size(), lines = State::lines(G);
  const std::unique_ptr<Line[]> scratch(new Line[num_parts * lines]);
  Queue queue(num_parts, threads), rows(pages.rows, threads);
  in_parallel(threads, [&] {
    Worker<T> worker(pages);
    queue.drain([&](int64_t i) {
      worker.attend(query + parts[i].row * G * D, parts[i].first, parts[i].last, parts[i].at,
                    State(&scratch[i * lines], G));
    });
  });
  in_parallel(threads, [&] {
    std::vector<State> states;
    rows.drain([&](int64_t r) {
      states.clear();
      for (int64_t i = first_part[r]; i < first_part[r+1]; i++)
        states.emplace_back(&scratch[i * lines], G);
      for (int g = 0; g < G; g++) finish(states, g, out + (r*G + g) * D, lse + r*G + g);
    });
  });
  return 0;
}

// Products of the queries with the live slots of their rows, out [G, slots].
template <class T> int products(const T* query, const Pages<T>& pages, float* out, int threads) {
  if (!sound(pages)) return 1;
  std::vector<Part> parts;
  std::vector<int64_t> first_part;
  if (!cut(pages, parts, first_part)) return 1;
  Queue queue(parts.size(), threads);
  in_parallel(threads, [&] {
    Worker<T> worker(pages, false);
    queue.drain([&](int64_t i) {
      const Part& part = parts[i];
      worker.multiply(query + part.row * pages.G * D, part.first, part.last, part.at, out);
    });
  });
  return 0;
}
}  // namespace
