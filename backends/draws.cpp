// Which hashed tokens the queries of a row draw, and what else the row reads.
//
// A token whose codes equal those of a query `least` times or more is drawn by it. A row reads its
// first tokens and its last ones as they are, then what was drawn, most collisions first, equal
// ones from the first on, up to what it is allowed.
#include <limits>

#include "attention/best.h"
#include "collisions.h"

namespace {
template <class T> struct Draws {   // laid out as BLOCK in draws.py
  const T *query, *pool;                            // [R, G, L]; [num_segments, 64, L]
  const int64_t* directory;                         // [R, W]
  const int64_t *tokens, *covered, *allowed;        // [R]; tokens from `covered` on have no code
  int64_t* chosen;                                  // [R, C], ascending, then `none`
  uint8_t *valid, *drawn;                           // [R, C], [R, G, C]
  float* bias;                                      // [R, G, C], 0 or -inf
  int64_t rows, W, segments, G, L, C, sinks, recents, least, none, threads;
};

// The tokens of a row that are read as they are: before `head`, and from `tail` on.
struct Always { int64_t head, tail; };

template <class T> Always always(const Draws<T>& d, int64_t r) {
  const int64_t n = d.tokens[r], head = std::min(d.sinks, n);
  if (n <= d.allowed[r]) return {head, head};
  return {head, std::max(head, std::min(d.covered[r], n - d.recents))};
}

template <class T> struct Drawer {
  const Draws<T>& d;
  std::vector<float> counts;        // [G, 64]
  std::vector<uint32_t> worth;      // collisions of the queries that draw a token
  std::vector<uint64_t> by;         // which do, a bit each

  explicit Drawer(const Draws<T>& d) : d(d), counts(d.G * SEGMENT) {}

  void count(int64_t r, Always span) {
    worth.resize((span.tail + SEGMENT - 1) / SEGMENT * SEGMENT), by.resize(worth.size());
    for (int64_t p = span.head / SEGMENT * SEGMENT; p < span.tail; p += SEGMENT) {
      const int64_t id = d.directory[r * d.W + p / SEGMENT];
      count_segment(d.query + r * d.G * d.L, id < 0 ? nullptr : d.pool + id * SEGMENT * d.L,
                    counts.data(), SEGMENT, SEGMENT, d.G, d.L);
      for (int64_t j = 0; j < SEGMENT; j++) worth[p+j] = 0, by[p+j] = 0;
      for (int64_t g = 0; g < d.G; g++)
        for (int64_t j = 0; j < SEGMENT; j++) {
          const int32_t x = int32_t(counts[g * SEGMENT + j]), draws = x >= d.least ? -1 : 0;
          worth[p+j] += x & draws, by[p+j] |= uint64_t(int64_t(draws)) & 1ull << g;
        }
    }
    std::fill_n(worth.begin(), span.head, 0);
  }

  void draw(int64_t r) {
    const Always span = always(d, r);
    const int64_t n = d.tokens[r], room = std::min(d.allowed[r], d.C);
    const int64_t first = std::min(span.head, room), last = std::min(n - span.tail, room - first);
    Best best(room - first - last);
    if (best.k > 0 && span.tail > span.head) {
      count(r, span);
      best.add(worth.data(), span.tail);
    }
    int64_t* chosen = d.chosen + r * d.C;
    int64_t at = 0;
    for (int64_t t = 0; t < first; t++) chosen[at++] = t;
    for (int64_t i = 0; i < best.n; i++) chosen[at++] = best.index[i];
    for (int64_t t = n - last; t < n; t++) chosen[at++] = t;
    std::fill(chosen + at, chosen + d.C, d.none);
    for (int64_t c = 0; c < d.C; c++) d.valid[r * d.C + c] = c < at;
    tell(r, first, first + best.n, best);
  }

  // What each query does with the columns from `from` to `to`, which were drawn by some of them.
  void tell(int64_t r, int64_t from, int64_t to, const Best& best) {
    for (int64_t g = 0; g < d.G; g++) {
      uint8_t* drawn = d.drawn + (r * d.G + g) * d.C;
      float* bias = d.bias + (r * d.G + g) * d.C;
      std::fill_n(drawn, d.C, 0), std::fill_n(bias, d.C, 0.f);
      for (int64_t c = from; c < to; c++) {
        drawn[c] = by[best.index[c - from]] >> g & 1;
        if (!drawn[c]) bias[c] = -std::numeric_limits<float>::infinity();
      }
    }
  }
};

template <class T> int64_t run(const Draws<T>& d) {
  int64_t hashed = 0;
  for (int64_t r = 0; r < d.rows; r++) {
    const Always span = always(d, r);
    if (span.tail > span.head) hashed = std::max(hashed, span.tail);
  }
  if (!sound(d.directory, d.rows, d.W, hashed, d.segments) || d.G > 64) return 1;
#pragma omp parallel num_threads(d.threads) if (d.threads > 1)
  {
    Drawer<T> drawer(d);
#pragma omp for
    for (int64_t r = 0; r < d.rows; r++) drawer.draw(r);
  }
  return 0;
}
}  // namespace

// 0, or 1 where the directory points outside the pool; `wide`: codes are int16, not uint8.
extern "C" int64_t draws(const void* block, int wide) {
  return wide ? run(*(const Draws<int16_t>*)block) : run(*(const Draws<uint8_t>*)block);
}
