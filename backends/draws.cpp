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
  const T *query, *pool;                            // [R, G, L]; [num_segments, L, 64]
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
  Spread<T> query;
  std::vector<uint32_t> counts;     // [G, 64]
  // Tokens that some query draws: collisions with those that do, place, and which do, a bit each.
  std::vector<uint32_t> worth;
  std::vector<int64_t> token;
  std::vector<uint64_t> by;

  explicit Drawer(const Draws<T>& d) : d(d), query(d.G, d.L), counts(d.G * SEGMENT) {}

  const T* segment(int64_t r, int64_t w) const {
    const int64_t id = w < d.W ? d.directory[r * d.W + w] : -1;
    return id < 0 ? nullptr : d.pool + id * SEGMENT * d.L;
  }

  void count(int64_t r, Always span) {
    query.take(d.query + r * d.G * d.L);
    for (int64_t p = span.head / SEGMENT * SEGMENT; p < span.tail; p += SEGMENT) {
      count_segment(query, segment(r, p / SEGMENT), segment(r, p / SEGMENT + 1), counts.data());
      uint32_t most[SEGMENT] = {};
      for (int64_t g = 0; g < d.G; g++)
        for (int64_t j = 0; j < SEGMENT; j++)
          most[j] = std::max(most[j], counts[g * SEGMENT + j]);
      const int64_t from = std::max<int64_t>(span.head - p, 0);
      const int64_t to = std::min(span.tail - p, SEGMENT);
      for (int64_t j = from; j < to; j++) if (most[j] >= d.least) keep(p + j, j);
    }
  }

  void keep(int64_t t, int64_t j) {
    uint32_t sum = 0;
    uint64_t which = 0;
    for (int64_t g = 0; g < d.G; g++) {
      const uint32_t x = counts[g * SEGMENT + j], draws = x >= d.least;
      sum += draws * x, which |= uint64_t(draws) << g;
    }
    worth.push_back(sum), token.push_back(t), by.push_back(which);
  }

  void draw(int64_t r) {
    const Always span = always(d, r);
    const int64_t n = d.tokens[r], room = std::min(d.allowed[r], d.C);
    const int64_t first = std::min(span.head, room), last = std::min(n - span.tail, room - first);
    Best best(room - first - last);
    worth.clear(), token.clear(), by.clear();
    if (best.k > 0 && span.tail > span.head) {
      count(r, span);
      best.add(worth.data(), worth.size());
    }
    int64_t* chosen = d.chosen + r * d.C;
    int64_t at = 0;
    for (int64_t t = 0; t < first; t++) chosen[at++] = t;
    for (int64_t i = 0; i < best.n; i++) chosen[at++] = token[best.index[i]];
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
