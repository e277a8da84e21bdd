// Which candidates hold a share of the weight that their keys of 4 bits estimate.
//
// A segment holds codes [64, D / 2] and ranges [64, 2] of consecutive tokens of one row: see
// sparse_algos/quantised.py.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {
constexpr int64_t SEGMENT = 64;

float widened(uint16_t half) {
  const uint32_t sign = uint32_t(half & 0x8000) << 16, rest = half & 0x7fff;
  float x;
  if (rest < 0x400) {
    x = float(rest) * 5.9604645e-8f;   // 2^-24, the step of what is not normal
  } else {
    const uint32_t bits = (rest << 13) + 0x38000000;
    memcpy(&x, &bits, 4);
  }
  return sign ? -x : x;
}

struct Row {
  const uint8_t* code;
  const uint16_t* range;
  const int64_t* directory;
  int64_t D, G;
  std::vector<float> even, odd, low, high, sum;   // the queries by halves of a byte; those of a key

  void take(const float* query) {
    even.resize(G * D / 2), odd.resize(G * D / 2), low.resize(D / 2), high.resize(D / 2);
    sum.assign(G, 0);
    for (int64_t g = 0; g < G; g++)
      for (int64_t i = 0; i < D / 2; i++) {
        even[g * D / 2 + i] = query[g * D + 2 * i], odd[g * D / 2 + i] = query[g * D + 2 * i + 1];
        sum[g] += query[g * D + 2 * i] + query[g * D + 2 * i + 1];
      }
  }
  void weigh(int64_t token, float* out, int64_t pitch) {
    const int64_t H = D / 2, at = directory[token / SEGMENT] * SEGMENT + token % SEGMENT;
    const uint8_t* c = code + at * H;
    for (int64_t i = 0; i < H; i++) low[i] = float(c[i] & 15), high[i] = float(c[i] >> 4);
    const float width = widened(range[2 * at]), least = widened(range[2 * at + 1]);
    for (int64_t g = 0; g < G; g++) {
      const float *e = &even[g * H], *o = &odd[g * H], *l = low.data(), *h = high.data();
      float dot = 0;
#pragma omp simd reduction(+ : dot)
      for (int64_t i = 0; i < H; i++) dot += l[i] * e[i] + h[i] * o[i];
      out[g * pitch] = dot * width + sum[g] * least;
    }
  }
};

// Makes weights of logits, and keeps the fewest of the largest that hold the share.
void keep(float* x, const int32_t* place, int64_t n, float share, uint8_t* kept) {
  if (!n) return;
  const float top = *std::max_element(x, x + n);
  float total = 0;
  for (int64_t i = 0; i < n; i++) x[i] = std::exp(x[i] - top), total += x[i];
  const float wanted = share * total;
  uint32_t low = 0, high = 0x3f800001;   // of floats up to 1, whose bits have their order
  while (high - low > 1) {
    const uint32_t middle = low + (high - low) / 2;
    float least, held = 0;
    memcpy(&least, &middle, 4);
#pragma omp simd reduction(+ : held)
    for (int64_t i = 0; i < n; i++) held += x[i] >= least ? x[i] : 0.f;
    (held >= wanted ? low : high) = middle;
  }
  float level, above = 0;
  memcpy(&level, &low, 4);
  for (int64_t i = 0; i < n; i++)
    if (x[i] > level) above += x[i], kept[place[i]] = 1;
  for (int64_t i = 0; i < n && above < wanted; i++)
    if (x[i] == level) above += x[i], kept[place[i]] = 1;
}
}  // namespace

// Row n of N has the queries n of [N, G, D] and the directory row n / M; token [N, C], -1 where
// there is none; kept, zeroed [N, C]. 0, or 1 where a token has no segment.
extern "C" int64_t nucleus(const float* query, const uint8_t* code, const uint16_t* range,
                           const int64_t* directory, const int64_t* token, uint8_t* kept, int64_t N,
                           int64_t M, int64_t W, int64_t segments, int64_t C, int64_t G, int64_t D,
                           float share, float scale) {
  std::vector<float> logits(G * C);
  std::vector<int32_t> place(C);
  for (int64_t n = 0; n < N; n++) {
    Row row{code, range, directory + n / M * W, D, G};
    row.take(query + n * G * D);
    int64_t count = 0;
    for (int64_t c = 0; c < C; c++) {
      const int64_t at = token[n * C + c];
      if (at < 0) continue;
      if (at / SEGMENT >= W || row.directory[at / SEGMENT] < 0 ||
          row.directory[at / SEGMENT] >= segments)
        return 1;
      place[count] = int32_t(c), row.weigh(at, &logits[count++], C);
    }
    for (int64_t g = 0; g < G; g++) {
      for (int64_t i = 0; i < count; i++) logits[g * C + i] *= scale;
      keep(&logits[g * C], place.data(), count, share, kept + n * C);
    }
  }
  return 0;
}
