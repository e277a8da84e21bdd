// What is added to the logits of tokens that query heads drew: -ln of how often that happens.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace {
constexpr int64_t SEGMENT = 64;   // tokens of a segment, and draws that are weighed at one time

struct Corrections {   // laid out as BLOCK in corrections.py
  const int64_t* chosen;                    // [R, C], the tokens of the valid columns
  const uint8_t *valid, *drawn;             // [R, C], [R, G, C]
  const float* bias;                        // [R, G, C], of what was not drawn
  const float* norm;                        // [num_segments, 64], of the centred keys
  const int64_t* directory;                 // [R, W]
  const float *inner, *length;              // [R, G], query with center, and norm of the query
  const float* product;                     // [G, V]
  float* out;                               // [G, V]
  int64_t rows, G, C, W, segments, first, V, tables, bits, threads;
  double least;
};

// x[i] to the n, for all of them together.
void power(const double* x, int64_t n, double* to) {
  double square[SEGMENT];
  std::copy_n(x, SEGMENT, square), std::fill_n(to, SEGMENT, 1.);
  for (; n; n >>= 1) {
    if (n & 1) for (int64_t i = 0; i < SEGMENT; i++) to[i] *= square[i];
    for (int64_t i = 0; i < SEGMENT; i++) square[i] *= square[i];
  }
}

// Draws of one query head that wait to be weighed together.
struct Waiting {
  const Corrections& d;
  int64_t n = 0;
  double angle[SEGMENT] = {}, same[SEGMENT], rest[SEGMENT], never[SEGMENT];
  float* to[SEGMENT];

  void add(float cosine, float* place) {
    angle[n] = 1 - std::acos(double(std::min(1.f, std::max(-1.f, cosine)))) / M_PI;
    to[n] = place;
    if (++n == SEGMENT) flush();
  }
  void flush() {
    power(angle, d.bits, same);
    for (int64_t i = 0; i < SEGMENT; i++) rest[i] = 1 - same[i];
    power(rest, d.tables - 1, never);
    for (int64_t i = 0; i < n; i++) {
      const double weight = 1 - never[i] * (d.tables * same[i] + rest[i]);
      *to[i] = float(-std::log(weight + d.least));
    }
    n = 0;
  }
};

// The norm of a centred key; below 0 where the row has no segment for it.
float norm_of(const Corrections& d, int64_t r, int64_t token) {
  if (token < 0 || token / SEGMENT >= d.W) return -1;
  const int64_t id = d.directory[r * d.W + token / SEGMENT];
  return id < 0 || id >= d.segments ? -1 : d.norm[id * SEGMENT + token % SEGMENT];
}

// One row, `at` valid columns after the first one of all. False where a norm is missing.
bool correct(const Corrections& d, int64_t r, int64_t at) {
  Waiting waiting{d};
  const uint8_t* valid = d.valid + r * d.C;
  bool sound = true;
  for (int64_t g = 0; g < d.G; g++) {
    const int64_t row = r * d.G + g;
    const uint8_t* drawn = d.drawn + row * d.C;
    for (int64_t c = 0, v = at - d.first; c < d.C && v < d.V; c++) {
      if (!valid[c] || v++ < 0) continue;
      const int64_t place = g * d.V + v - 1;
      if (!drawn[c]) {
        d.out[place] = d.bias[row * d.C + c];
        continue;
      }
      const float norm = norm_of(d, r, d.chosen[r * d.C + c]), size = d.length[row] * norm;
      sound &= !(norm < 0);
      waiting.add((d.product[place] - d.inner[row]) /
                  std::max(size, std::numeric_limits<float>::min()), d.out + place);
    }
  }
  waiting.flush();
  return sound;
}
}  // namespace

// 0, or 1 where the columns are not as many as the products, or have no norm.
extern "C" int corrections(const Corrections* given) {
  const Corrections& d = *given;
  std::vector<int64_t> first{0};
  for (int64_t r = 0; r < d.rows; r++) {
    int64_t count = 0;
    for (int64_t c = 0; c < d.C; c++) count += d.valid[r * d.C + c];
    first.push_back(first.back() + count);
  }
  if (d.first < 0 || d.first + d.V > first.back()) return 1;
  bool sound = true;
#pragma omp parallel for num_threads(d.threads) if (d.threads > 1) reduction(&& : sound)
  for (int64_t r = 0; r < d.rows; r++) sound = correct(d, r, first[r]) && sound;
  return !sound;
}
