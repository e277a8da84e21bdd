// Which clusters a row reads, which it estimates, and the attention over those it estimates.
#include <algorithm>
#include <limits>
#include <vector>

#include "attention/best.h"
#include "attention/choose.h"
#include "attention/vector.h"

namespace {
constexpr float NONE = -std::numeric_limits<float>::infinity();

struct Choice {   // laid out as CHOICE in zones.py
  const float* scores;             // [R, G, P]
  const int64_t *sizes, *room;     // [R, P], 0 for a cluster that is none; [R]
  int64_t* chosen;                 // [R, C], ascending, then P
  uint8_t* valid;                  // [R, C]
  int64_t* estimated;              // [R, E], ascending, then -1
  int64_t rows, G, P, C, E, reduce, threads;
  double share;
  int64_t width, more;             // the most columns that any row takes
};

struct Chooser {
  const Choice& c;
  std::vector<float> worth, weight;
  std::vector<uint64_t> order, best;   // scores as integers, and the cluster: the lower is better
  int64_t width = 0, more = 0;

  explicit Chooser(const Choice& c)
      : c(c), worth(c.P + W), weight(c.P + W), order(c.P), best(c.P) {}

  // worth = the group's score of each cluster; how, as REDUCES in zones.py.
  void reduce(int64_t r) {
    std::fill(worth.begin(), worth.end(), c.reduce == 0 ? NONE : 0.f);
    for (int64_t g = 0; g < c.G; g++) {
      const float* x = c.scores + (r * c.G + g) * c.P;
      if (c.reduce > 1) share(x, c.sizes + r * c.P);
      const float* from = c.reduce > 1 ? weight.data() : x;
      if (c.reduce == 0 || c.reduce == 3)
        for (int64_t p = 0; p < c.P; p++) worth[p] = std::max(worth[p], from[p]);
      else
        for (int64_t p = 0; p < c.P; p++) worth[p] += from[p];
    }
  }
  // weight = the softmax of x over the clusters that there are.
  void share(const float* x, const int64_t* sizes) {
    for (int64_t p = 0; p < c.P; p++) weight[p] = sizes[p] ? x[p] * LOG2E : NONE;
    std::fill(weight.begin() + c.P, weight.end(), NONE);
    vf top = vf{} + NONE, sum{};
    for (int64_t p = 0; p < c.P; p += W) {
      const vf y = load(&weight[p]);
      top = y > top ? y : top;
    }
    const float most = fold(top, [](float a, float b) { return std::max(a, b); });
    if (most == NONE) return;
    for (int64_t p = 0; p < c.P; p += W) {
      const vf y = exp2v(load(&weight[p]) - most);
      store(&weight[p], y), sum += y;
    }
    const float scale = 1 / fold(sum, [](float a, float b) { return a + b; });
    for (int64_t p = 0; p < c.P; p++) weight[p] *= scale;
  }

  void choose(int64_t r) {
    const int64_t* sizes = c.sizes + r * c.P;
    reduce(r);
    int64_t there = 0, tokens = 0;
    for (int64_t p = 0; p < c.P; p++) {
      Key key;
      to_keys(&worth[p], &key, 1);
      order[p] = uint64_t(~key) << 32 | uint64_t(p);
      best[there] = order[p], there += sizes[p] > 0, tokens += sizes[p];
    }
    const int64_t taken = fill(sizes, c.room[r], there, tokens);
    const int64_t next = std::min(there, taken + std::min(c.E, int64_t(std::ceil(there * c.share))));
    const uint64_t first = limit(taken, taken, there), last = limit(taken, next, there);
    put(r, sizes, first, last);
    width = std::max(width, taken), more = std::max(more, next - taken);
  }
  // How many of the best clusters fit; they come first in `best`, in order.
  int64_t fill(const int64_t* sizes, int64_t room, int64_t there, int64_t tokens) {
    int64_t sorted = 0, step = 16 + 2 * room * there / std::max<int64_t>(tokens, 1), at = 0;
    for (;; at++) {
      if (at == there || at == c.C) return at;
      if (at == sorted) {
        sorted = std::min(there, sorted + step);
        const auto middle = best.begin() + sorted;
        std::nth_element(best.begin() + at, middle, best.begin() + there);
        std::sort(best.begin() + at, middle);
      }
      room -= sizes[uint32_t(best[at])];
      if (room < 0) return at;
    }
  }
  // What is above the n best, of which `from` are in their place.
  uint64_t limit(int64_t from, int64_t n, int64_t there) {
    if (n == there) return ~0ull;
    std::nth_element(best.begin() + from, best.begin() + n, best.begin() + there);
    return best[n];
  }
  void put(int64_t r, const int64_t* sizes, uint64_t first, uint64_t last) {
    int64_t *chosen = c.chosen + r * c.C, *estimated = c.estimated + r * c.E, n = 0, m = 0;
    for (int64_t p = 0; p < c.P; p++) {
      if (!sizes[p] || order[p] >= last) continue;
      if (order[p] < first) chosen[n++] = p;
      else estimated[m++] = p;
    }
    std::fill(chosen + n, chosen + c.C, c.P), std::fill(estimated + m, estimated + c.E, -1);
    for (int64_t i = 0; i < c.C; i++) c.valid[r * c.C + i] = i < n;
  }
};

struct Rest {   // laid out as REST in zones.py
  const float* scores;          // [R, G, P], logits by `factor`
  const int64_t* at;            // [R, E], -1 for none
  const void* value;            // [num_segments, BLOCK, D]
  const float* size;            // [num_segments, BLOCK]
  const int64_t* directory;     // [R / each, W]
  float *out, *lse;             // [R, G, D], [R, G]
  int64_t rows, G, P, E, width, segments, each, threads;
  double factor;
};

template <class T> struct Estimator {
  const Rest& e;
  std::vector<int64_t> place;   // of the estimated summaries in the pool
  std::vector<float> weight;    // [G, E]
  explicit Estimator(const Rest& e) : e(e), place(e.E), weight(e.G * (e.E + W)) {}

  bool find(int64_t r, int64_t& n) {
    n = 0;
    for (int64_t i = 0; i < e.E; i++) {
      const int64_t p = e.at[r * e.E + i];
      if (p < 0) continue;
      if (p >= e.P || p / BLOCK >= e.width) return false;
      const int64_t id = e.directory[r / e.each * e.width + p / BLOCK];
      if (id < 0 || id >= e.segments) return false;
      place[n] = id * BLOCK + p % BLOCK;
      for (int64_t g = 0; g < e.G; g++)
        weight[g * (e.E + W) + n] = e.scores[(r * e.G + g) * e.P + p];
      n++;
    }
    return true;
  }
  // Makes weights that sum to 1 of the logits of n clusters; the log of the sum they had.
  float weigh(float* x, int64_t n) {
    const float factor = float(e.factor) * LOG2E;
    float most = NONE;
    for (int64_t i = 0; i < n; i++) x[i] *= factor;
    for (int64_t i = 0; i < n; i++) most = std::max(most, x[i]);
    std::fill(x + n, x + n + W, NONE);
    for (int64_t i = 0; i < n; i += W) store(x + i, exp2v(load(x + i) - most));
    float sum = 0;
    for (int64_t i = 0; i < n; i++) x[i] *= e.size[place[i]], sum += x[i];
    for (int64_t i = 0; i < n; i++) x[i] /= sum;
    return n ? LN2 * most + std::log(sum) : NONE;
  }
  bool estimate(int64_t r) {
    int64_t n;
    if (!find(r, n)) return false;
    for (int64_t g = 0; g < e.G; g++) e.lse[r * e.G + g] = weigh(&weight[g * (e.E + W)], n);
    float* out = e.out + r * e.G * D;
    std::fill_n(out, e.G * D, 0.f);
    const T* value = (const T*)e.value;
    for (int64_t i = 0; i < n; i++) {
      if (i + 8 < n)
        for (size_t b = 0; b < D * sizeof(T); b += 64)
          __builtin_prefetch((const char*)(value + place[i + 8] * D) + b);
      add(value + place[i] * D, i, out);
    }
    return true;
  }
  void add(const T* value, int64_t i, float* out) {
    for (int d = 0; d < D; d += W) {
      const vf v = load(value + d);
      for (int64_t g = 0; g < e.G; g++) {
        float* at = out + g * D + d;
        store(at, load(at) + v * weight[g * (e.E + W) + i]);
      }
    }
  }
};

template <class T> int64_t estimate(const Rest& e) {
  std::atomic<int> refused{0};
  Queue queue(e.rows, int(e.threads));
  in_parallel(int(e.threads), [&] {
    Estimator<T> estimator(e);
    queue.drain([&](int64_t r) { if (!estimator.estimate(r)) refused = 1; });
  });
  return refused;
}
}  // namespace

extern "C" int64_t choose(void* block) {
  Choice& c = *(Choice*)block;
  Queue queue(c.rows, int(c.threads));
  std::atomic<int64_t> width{0}, more{0};
  in_parallel(int(c.threads), [&] {
    Chooser chooser(c);
    queue.drain([&](int64_t r) { chooser.choose(r); });
    auto raise = [](std::atomic<int64_t>& to, int64_t x) {
      for (int64_t before = to; before < x && !to.compare_exchange_weak(before, x);) {}
    };
    raise(width, chooser.width), raise(more, chooser.more);
  });
  c.width = width, c.more = more;
  return 0;
}

// 0, or 1 where a cluster is not where the directory says; `half`: values are bfloat16.
extern "C" int64_t estimate(const void* block, int half) {
  const Rest& e = *(const Rest*)block;
  return half ? estimate<bf16>(e) : estimate<float>(e);
}
