// Attention of many rows in tiles of AMX, over all tokens or by the blocks of a plan: tiled.py.
//
// Keys and values are packed once per kv head; each block of rows reads those that it chose where
// they lie. The softmax is kept up to date as they come.
#if defined(__AMX_BF16__) && defined(__AVX512BF16__)
#include "amx.h"
#include <omp.h>
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

namespace {
constexpr float LOG2E = 1.44269504f, LN2 = 0.69314718f;
constexpr float HIDDEN = -1e30f;   // a logit of no weight; unlike an infinity, its exponent is 0
constexpr int ROWS = 128;          // most rows of a block of work

struct Asked {
  const bf16 *query, *key, *value;
  const uint8_t* chosen;           // [K * G, I, P]; null for all blocks
  const int64_t* columns;          // [K * G, C]: single tokens that later blocks of rows see
  bf16 *out, *packed;
  float* lse;                      // [K, G, M]
  int64_t K, G, M, T, C, block, past, causal;
  int64_t key_head, key_token, value_head, value_token;   // strides
  float scale;
  int threads;

  int64_t tokens() const { return (T + GROUP - 1) / GROUP * GROUP; }
  int64_t room() const { return (C + GROUP - 1) / GROUP * GROUP; }
  int64_t first_block() const { return past / block; }
  int64_t num_blocks() const { return (std::max(past + M, T) + block - 1) / block; }
  int64_t query_blocks() const { return (past + M + block - 1) / block - first_block(); }
  bool chose(int64_t head, int64_t i, int64_t p) const {
    return !chosen || chosen[(head * query_blocks() + i) * num_blocks() + p];
  }
  // Whether a block of rows of a head reads a column by itself.
  bool alone(int64_t head, int64_t i, int64_t column) const {
    const int64_t p = column / block;
    return p < first_block() + i && !chose(head, i, p);
  }
};

inline __m512 exp2v(__m512 x) {   // 2^x to 5e-5 relative; 0 far below
  const __m512 n = _mm512_roundscale_ps(x, 0), r = x - n;
  __m512 p = _mm512_set1_ps(9.6181291e-3f);
  for (float c : {5.5504109e-2f, 2.4022651e-1f, 6.9314718e-1f, 1.0f})
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
  return _mm512_scalef_ps(p, n);
}

// What rows of a strip have seen: their greatest logit, the sum of the weights, weighted values.
struct Strip {
  alignas(64) float O[STRIP * D];
  float top[STRIP], sum[STRIP];

  void clear() {
    memset(O, 0, sizeof O);
    std::fill_n(top, STRIP, HIDDEN), std::fill_n(sum, STRIP, 0.f);
  }
  // P = the weights of logits S, which `seen(r, t)` says lanes of; all the rest follows them.
  template <class Seen> void soften(const float* S, bf16* P, int n, float scale, Seen seen) {
    for (int r = 0; r < STRIP; r++) {
      const float* s = S + r * KEYS;
      const __m512 hidden = _mm512_set1_ps(HIDDEN);
      __m512 most = _mm512_set1_ps(top[r]), x[KEYS / 16];
      for (int t = 0; t < n; t += 16) {
        x[t / 16] = _mm512_mask_loadu_ps(hidden, seen(r, t), s + t);
        most = _mm512_max_ps(most, x[t / 16]);
      }
      if (const float now = _mm512_reduce_max_ps(most); now > top[r]) {
        const float less = exp2f((top[r] - now) * scale);
        for (int d = 0; d < D; d += 16)
          _mm512_store_ps(O + r*D + d, _mm512_load_ps(O + r*D + d) * less);
        sum[r] *= less, top[r] = now;
      }
      const __m512 factor = _mm512_set1_ps(scale), shift = _mm512_set1_ps(-top[r] * scale);
      __m512 total = _mm512_setzero_ps();
      for (int t = 0; t < n; t += 16) {
        const __m512 weight = exp2v(_mm512_fmadd_ps(x[t / 16], factor, shift));
        total += weight;
        _mm256_store_si256((__m256i*)(P + r*KEYS + t), (__m256i)_mm512_cvtneps_pbh(weight));
      }
      sum[r] += _mm512_reduce_add_ps(total);
    }
  }
};

// One block of rows of one query head.
struct Work {
  const Asked& asked;
  int64_t head, i, start;          // query head; block of rows; its first row's position
  int rows;                        // positions of the block, of which the chunk may have a part
  int low, high;                   // the strips that have a row of the chunk: low .. high - 1
  float scale;
  alignas(64) bf16 q[ROWS * D];
  alignas(64) float S[STRIP * KEYS];
  alignas(64) bf16 P[STRIP * KEYS];
  Strip strips[ROWS / STRIP];

  explicit Work(const Asked& asked) : asked(asked), scale(asked.scale * LOG2E) {}

  const bf16* row(int r) const {   // null outside the chunk
    const int64_t m = start + r - asked.past;
    return m < 0 || m >= asked.M ? nullptr : asked.query + (head * asked.M + m) * D;
  }
  template <class Seen>
  void attend(int strip, const bf16* key, const bf16* value, int n, Seen seen) {
    dots(q + strip * STRIP * D, key, n, S);
    strips[strip].soften(S, P, n, scale, seen);
    weigh(P, value, n, strips[strip].O);
  }
  // Tokens from .. from + n - 1, as far as each row sees them.
  void span(int64_t from, int n, const bf16* key, const bf16* value) {
    for (int strip = low; strip < high; strip++) {
      const int64_t first = start + strip * STRIP;   // position of the strip's first row
      const int64_t end = asked.causal ? std::min(asked.T, first + STRIP) : asked.T;
      if (end <= from) continue;
      const int reach = int(std::min<int64_t>(n, (end - from + GROUP - 1) / GROUP * GROUP));
      const int64_t sure = std::min(asked.T, asked.causal ? first + 1 : asked.T) - from;
      if (reach <= sure) {
        attend(strip, key, value, reach, [](int, int) { return __mmask16(0xffff); });
        continue;
      }
      attend(strip, key, value, reach, [&](int r, int t) {
        const int64_t left = std::min(asked.T, asked.causal ? first + r + 1 : asked.T) - from - t;
        return __mmask16(left >= 16 ? 0xffff : left <= 0 ? 0 : (1 << left) - 1);
      });
    }
  }
  void over_blocks(const bf16* key, const bf16* value) {
    const int64_t last = asked.causal ? start / asked.block : asked.num_blocks() - 1;
    for (int64_t p = 0; p <= last; p++) {
      if (!asked.chose(head, i, p)) continue;
      const int64_t stop = std::min((p + 1) * asked.block, asked.tokens());
      for (int64_t t = p * asked.block; t < stop; t += KEYS)
        span(t, int(std::min<int64_t>(KEYS, stop - t)), key + t * D, value + t * D);
    }
  }
  void over_columns(const bf16* key, const bf16* value) {
    const int64_t* columns = asked.columns + head * asked.C;
    for (int64_t c = 0; c < asked.C; c += GROUP) {
      uint32_t live = 0;
      for (int j = 0; j < std::min<int64_t>(GROUP, asked.C - c); j++)
        live |= uint32_t(asked.alone(head, i, columns[c + j])) << j;
      for (int strip = low; live && strip < high; strip++)
        attend(strip, key + c * D, value + c * D, GROUP,
               [&](int, int t) { return __mmask16(live >> t); });
    }
  }
  void write() const {
    for (int r = 0; r < rows; r++) {
      if (!row(r)) continue;
      const Strip& strip = strips[r / STRIP];
      const int at = r % STRIP;
      const int64_t m = head * asked.M + start + r - asked.past;
      const float share = strip.sum[at] > 0 ? 1 / strip.sum[at] : strip.sum[at];
      for (int d = 0; d < D; d += 16) {
        const __m512 o = _mm512_load_ps(strip.O + at*D + d) * share;
        _mm256_storeu_si256((__m256i*)(asked.out + m*D + d), (__m256i)_mm512_cvtneps_pbh(o));
      }
      asked.lse[m] = strip.top[at] * asked.scale + LN2 * log2f(strip.sum[at]);
    }
  }
  void run(int64_t of_head, int64_t block, int64_t first, int num_rows, const bf16* key,
           const bf16* value, const bf16* column_key, const bf16* column_value) {
    head = of_head, i = block, start = first, rows = num_rows;
    low = int(std::max<int64_t>(0, asked.past - start) / STRIP);
    high = int((std::min<int64_t>(rows, asked.past + asked.M - start) + STRIP - 1) / STRIP);
    for (int r = 0; r < rows; r++)
      if (const bf16* from = row(r)) memcpy(q + r*D, from, D * 2);
      else memset(q + r*D, 0, D * 2);
    for (int strip = low; strip < high; strip++) strips[strip].clear();
    over_blocks(key, value);
    if (asked.columns) over_columns(column_key, column_value);
    write();
  }
};

// Tokens of one kv head in the order of the tiles; a token of -1 is nothing.
template <class Token>
void pack_group(const Asked& asked, int64_t kv, Token token, bf16* key, bf16* value) {
  alignas(64) static const bf16 zeros[D] = {};
  const bf16 *keys[GROUP], *values[GROUP];
  for (int j = 0; j < GROUP; j++) {
    const int64_t t = token(j);
    keys[j] = t < 0 ? zeros : asked.key + kv * asked.key_head + t * asked.key_token;
    values[j] = t < 0 ? zeros : asked.value + kv * asked.value_head + t * asked.value_token;
  }
  pack(keys, values, key, value);
}

bool is_used(const Asked& asked, int64_t kv, int64_t p) {
  for (int64_t g = 0; g < asked.G; g++)
    for (int64_t i = 0; i < asked.query_blocks(); i++)
      if (asked.chose(kv * asked.G + g, i, p)) return true;
  return false;
}

void attend(const Asked& asked) {
  const int64_t tokens = asked.tokens(), room = asked.room(), G = asked.G;
  bf16 *key = asked.packed, *value = key + tokens * D;
  bf16 *column_key = value + tokens * D, *column_value = column_key + G * room * D;
  const int64_t part = std::min<int64_t>(asked.block, ROWS), parts = asked.block / part;
  const int64_t per_head = asked.query_blocks() * parts;
#pragma omp parallel num_threads(asked.threads)
  {
    const Tiles tiles;
    auto work = std::make_unique<Work>(asked);
    for (int64_t kv = 0; kv < asked.K; kv++) {
#pragma omp for schedule(dynamic)
      for (int64_t p = 0; p < asked.num_blocks(); p++) {
        if (!is_used(asked, kv, p)) continue;
        const int64_t stop = std::min((p + 1) * asked.block, tokens);
        for (int64_t t = p * asked.block; t < stop; t += GROUP)
          pack_group(asked, kv, [&](int j) { return t + j < asked.T ? t + j : -1; }, key + t * D,
                     value + t * D);
      }
#pragma omp for schedule(dynamic)
      for (int64_t at = 0; at < G * room; at += GROUP) {
        const int64_t head = kv * G + at / room, c = at % room;
        pack_group(asked, kv, [&](int j) {
          return c + j < asked.C ? asked.columns[head * asked.C + c + j] : -1;
        }, column_key + at * D, column_value + at * D);
      }
      // The last rows see most: they come first.
#pragma omp for schedule(dynamic)
      for (int64_t n = 0; n < G * per_head; n++) {
        const int64_t g = n % G, one = per_head - 1 - n / G, i = one / parts;
        const int64_t start = (asked.first_block() + i) * asked.block + one % parts * part;
        if (start + part <= asked.past || start >= asked.past + asked.M) continue;
        work->run(kv * G + g, i, start, int(part), key, value, column_key + g * room * D,
                  column_value + g * room * D);
      }
    }
  }
}
}  // namespace

extern "C" int has_tiles() { return may_use_tiles(); }
extern "C" void attend_rows(const Asked* asked) { attend(*asked); }
#else
extern "C" int has_tiles() { return 0; }
#endif
