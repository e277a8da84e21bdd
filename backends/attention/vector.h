// The arithmetic of cpu.cpp on blocks of keys and of summaries.
//
// One algorithm, three instruction sets, chosen by the compiler's target: vectors of W floats, and
// for bfloat16 on AVX512-BF16 the dot product of pairs.
#pragma once
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {
using bf16 = uint16_t;
#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif
constexpr int D = HEAD_DIM;                  // one head size per build
constexpr int TILE = W == 16 ? 16 : 8;       // accumulators kept in registers
constexpr int BLOCK = 64;                    // slots between two softmax updates
constexpr int64_t AHEAD_BYTES = 32 << 10;    // how far the prefetch runs before the computation
constexpr float LOG2E = 1.44269504f, LN2 = 0.69314718f;
static_assert(D % 16 == 0 && D <= 256);
#if defined(__AVX512BF16__) && HEAD_DIM % 32 == 0
#define PAIRS 1
#else
#define PAIRS 0
#endif
template <class T> constexpr bool pairs = PAIRS && std::is_same_v<T, bf16>;

using vf = float __attribute__((vector_size(W * 4)));
using vi = int32_t __attribute__((vector_size(W * 4)));
using vfu = float __attribute__((vector_size(W * 4), aligned(4), may_alias));
using vhu = bf16 __attribute__((vector_size(W * 2), aligned(2), may_alias));

inline vf load(const float* p) { return *(const vfu*)p; }
inline vf load(const bf16* p) { return (vf)(__builtin_convertvector(*(const vhu*)p, vi) << 16); }
inline float widen(float x) { return x; }
inline float widen(bf16 x) {
  const uint32_t u = uint32_t(x) << 16;
  float y;
  memcpy(&y, &u, 4);
  return y;
}
inline void store(float* p, vf v) { *(vfu*)p = v; }
inline void narrow(float x, float* p) { *p = x; }
inline void narrow(float x, bf16* p) {
  uint32_t u;
  memcpy(&u, &x, 4);
  *p = bf16(std::isnan(x) ? 0x7fc0 : (u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

// Prefetches the pages ids[at], ids[at+1], ... line by line, at the pace of the computation: bursts
// fill the miss queue and stall, pauses leave the memory idle. The halves of a page that stands
// alone come side by side, as two streams that the memory serves at once. Dead slots do not come.
struct Ahead {
  const char* base;
  const int32_t* ids;
  int64_t bytes, at, last;
  int rate;             // in 1/4096 of a line per unit of work
  const uint64_t* live = nullptr;   // the slots of each page that are read; null: all of them
  int slots = 1, debt = 0;   // 1, not 0: compilers divide by it ahead of the branch that needs it
  bool values = true;   // whether the second halves are read too
  const char *cursor = nullptr, *end = nullptr;
  int64_t other = 0;    // from a line to the one beside it, or 0
  uint64_t left = 0;    // slots of the page that come after the cursor's

  uint64_t alive(int64_t i) const { return live[i] & (slots == 64 ? ~0ull : (1ull << slots) - 1); }
  bool whole(int64_t i) const {
    return !live || (values && __builtin_popcountll(alive(i)) == slots);
  }
  // The next live slots that lie side by side.
  void run() {
    const int first = __builtin_ctzll(left);
    const uint64_t beyond = ~(left >> first);
    const int stop = beyond ? first + __builtin_ctzll(beyond) : 64;
    left = stop < 64 ? left >> stop << stop : 0;
    const int64_t half = bytes / 2, slot = half / slots;
    const char* page = base + ids[at] * bytes;
    cursor = page + first * slot / 64 * 64, end = page + (stop * slot + 63) / 64 * 64;
    other = values ? half : 0;
  }
  void seek(int64_t i) {
    cursor = end = nullptr, left = 0;
    for (at = i; at <= last && !whole(at); at++)
      if ((left = alive(at))) return run();
    if (at <= last) unit(at);
  }
  // To the page that is so many bytes of live slots after this one.
  void lead(int64_t i, int64_t distance) {
    int64_t to = i;
    for (int64_t sum = 0; to <= last && (to == i || sum < distance); to++)
      sum += bytes / slots * __builtin_popcountll(alive(to));
    seek(to);
  }
  void unit(int64_t i) {
    const bool alone = bytes % 128 == 0 && (i == 0 || ids[i] != ids[i-1] + 1);
    cursor = base + ids[i] * bytes, other = alone ? bytes / 2 : 0;
    end = cursor + (alone ? other : bytes);
  }
  // In one place: the processor's own prefetch learns a stride by the address of the instruction.
  __attribute__((noinline)) void fetch(int n) {
    while (n > 0 && cursor) {
      const int left = int((end - cursor) >> 6), m = std::min(other ? (n + 1) / 2 : n, left);
      const char *line = cursor, *stop = line + m * 64;
      const int64_t beside = other;
      cursor = stop, n -= beside ? 2 * m : m;
      if (!beside) for (; line != stop; line += 64) __builtin_prefetch(line, 0, 3);
      for (; line != stop; line += 64)
        __builtin_prefetch(line, 0, 3), __builtin_prefetch(line + beside, 0, 3);
      if (cursor == end) left ? run() : seek(at + 1);
    }
    debt += std::min(n, 0) * 4096;   // a line that came with its neighbour
  }
  void step(int work) {
    debt += work * rate;
    if (debt < 4096) return;
    const int n = debt >> 12;
    debt &= 4095;
    fetch(n);
  }
};

inline vf exp2v(vf x) {   // 2^x for x <= 0, to 2e-7 relative; 0 below -125; NaN stays NaN
  const vf magic = vf{} + 12582912.f, y = x > -125.f ? x : vf{} - 125.f;
  const vf t = y + magic, r = y - (t - magic);
  vf p = vf{} + 1.5403530e-4f;
  for (float c : {1.3333558e-3f, 9.6181291e-3f, 5.5504109e-2f, 2.4022651e-1f, 6.9314718e-1f, 1.0f})
    p = p * r + c;
  vf e = (vf)((vi)p + (((vi)t - (vi)magic) << 23));
  return x > -125.f ? e : x < 0.f ? vf{} : x;
}

// out[i] = the sum of the lanes of a[i], i < TILE
inline void reduce(const vf (&a)[TILE], float* out) {
#if defined(__AVX512F__)
  __m512 x[8], y[4];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    __m512 u = (__m512)a[2*i], v = (__m512)a[2*i+1];
    x[i] = _mm512_unpacklo_ps(u, v) + _mm512_unpackhi_ps(u, v);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    __m512d u = (__m512d)x[2*i], v = (__m512d)x[2*i+1];
    y[i] = (__m512)_mm512_unpacklo_pd(u, v) + (__m512)_mm512_unpackhi_pd(u, v);
  }
  auto join = [](__m512 u, __m512 v) {
    return _mm512_shuffle_f32x4(u, v, 0x88) + _mm512_shuffle_f32x4(u, v, 0xdd);
  };
  _mm512_storeu_ps(out, join(join(y[0], y[1]), join(y[2], y[3])));
#elif defined(__AVX2__)
  auto join = [&](int i) {
    return _mm256_hadd_ps(_mm256_hadd_ps((__m256)a[i], (__m256)a[i+1]),
                          _mm256_hadd_ps((__m256)a[i+2], (__m256)a[i+3]));
  };
  __m256 u = join(0), v = join(4);
  _mm256_storeu_ps(out, _mm256_permute2f128_ps(u, v, 0x20) + _mm256_permute2f128_ps(u, v, 0x31));
#else
  for (int i = 0; i < TILE; i++) {
    out[i] = 0;
    for (int j = 0; j < W; j++) out[i] += a[i][j];
  }
#endif
}
template <class F> inline float fold(vf v, F f) {   // the lanes of one vector, as a tree
  float t[W];
  store(t, v);
  for (int n = W / 2; n; n /= 2) for (int j = 0; j < n; j++) t[j] = f(t[j], t[j+n]);
  return t[0];
}

// L[g][s] = q[g] . (*k)[s] for GC heads and n keys; n is a multiple of 16. The vectors have `dim`
// entries, a multiple of 16, or of 32 by PAIR: a constant of the build, or a number.
template <class T, int GC, bool PAIR = pairs<T>, class Dim = std::integral_constant<int, D>>
void dots(const T* q, const T* const* k, Ahead& ahead, int n, float (*L)[BLOCK], Dim dim = {}) {
  constexpr int SL = TILE / GC;
  for (int s = 0; s < n; s += SL) {
    vf a[TILE] = {};
    if constexpr (PAIR) {
#if PAIRS
      for (int d = 0; d < dim; d += 32) {
        __m512bh y[GC];
        for (int g = 0; g < GC; g++) y[g] = (__m512bh)_mm512_loadu_si512(q + g*dim + d);
        for (int j = 0; j < SL; j++) {
          __m512bh x = (__m512bh)_mm512_loadu_si512(k[s+j] + d);
          for (int g = 0; g < GC; g++) a[g*SL+j] = _mm512_dpbf16_ps(a[g*SL+j], x, y[g]);
        }
      }
#endif
    } else {
      for (int d = 0; d < dim; d += W)
        for (int j = 0; j < SL; j++) {
          vf x = load(k[s+j] + d);
          for (int g = 0; g < GC; g++) a[g*SL+j] += x * load(q + g*dim + d);
        }
    }
    ahead.step(3 * TILE);
    float t[TILE];
    reduce(a, t);
    for (int g = 0; g < GC; g++) memcpy(&L[g][s], t + g*SL, SL * 4);
  }
}

// acc[g] += sum over s of P[g][s] v[s], v[s] = k[s] + off.
template <class T, int GC>
void weigh(float (*P)[BLOCK], const T* const* k, Ahead& ahead, int64_t off, int n,
           float (*acc)[D]) {
  constexpr int C = std::min(TILE / GC, 4);
  auto span = [&](auto width, int d) {
    constexpr int c1 = width;
    vf a[GC][c1];
    for (int g = 0; g < GC; g++) for (int c = 0; c < c1; c++) a[g][c] = load(&acc[g][d + W*c]);
    for (int s = 0; s < n; s++) {
      for (int c = 0; c < c1; c++) {
        vf x = load(k[s] + off + d + W*c);
        for (int g = 0; g < GC; g++) a[g][c] += P[g][s] * x;
      }
      if (s % 8 == 7) ahead.step(3 * 8 * GC * c1 * W / D);
    }
    for (int g = 0; g < GC; g++) for (int c = 0; c < c1; c++) store(&acc[g][d + W*c], a[g][c]);
  };
  constexpr int rest = D / W % C;
  for (int d = 0; d < D - rest * W; d += C * W) span(std::integral_constant<int, C>(), d);
  if constexpr (rest) span(std::integral_constant<int, rest>(), D - rest * W);
}

#if PAIRS
// The same by dot products of pairs of slots; leaves acc in the order that `unmix` undoes.
template <int GC>
void weigh_pairs(float (*P)[BLOCK], const bf16* const* k, Ahead& ahead, int64_t off, int n,
                 float (*acc)[D]) {
  constexpr int C = D % 64 ? 1 : 2;
  alignas(64) bf16 h[GC][BLOCK];
  for (int g = 0; g < GC; g++)
    for (int s = 0; s < n; s += 16) {
      const __m256bh p = _mm512_cvtneps_pbh(_mm512_loadu_ps(&P[g][s]));
      _mm256_store_si256((__m256i*)&h[g][s], (__m256i)p);
    }
  for (int d = 0; d < D; d += 32 * C) {
    __m512 a[GC][2*C];
    for (int g = 0; g < GC; g++)
      for (int c = 0; c < 2*C; c++) a[g][c] = _mm512_loadu_ps(&acc[g][d + 16*c]);
    for (int s = 0; s < n; s += 2) {
      __m512bh x[2*C];
      for (int c = 0; c < C; c++) {
        const int64_t at = off + d + 32*c;
        __m512i u = _mm512_loadu_si512(k[s] + at), v = _mm512_loadu_si512(k[s+1] + at);
        x[2*c] = (__m512bh)_mm512_unpacklo_epi16(u, v);
        x[2*c+1] = (__m512bh)_mm512_unpackhi_epi16(u, v);
      }
      for (int g = 0; g < GC; g++) {
        int32_t pair;
        memcpy(&pair, &h[g][s], 4);
        const __m512bh p = (__m512bh)_mm512_set1_epi32(pair);
        for (int c = 0; c < 2*C; c++) a[g][c] = _mm512_dpbf16_ps(a[g][c], x[c], p);
      }
      if (s % 8 == 6) ahead.step(3 * 8 * GC * C * 32 / D);
    }
    for (int g = 0; g < GC; g++)
      for (int c = 0; c < 2*C; c++) _mm512_storeu_ps(&acc[g][d + 16*c], a[g][c]);
  }
}
#endif
template <class T> int unmix(int d) {
  return pairs<T> ? (d & ~31) + ((d >> 2) & 1) * 16 + ((d >> 3) & 3) * 4 + (d & 3) : d;
}

// Work that threads take in runs of neighbours, in order, until there is none.
struct Queue {
  int64_t total, run;
  std::atomic<int64_t> next{0};
  Queue(int64_t total, int threads)
      : total(total), run(threads == 1 ? total : 1 + total / (4 * threads)) {}
  template <class F> void drain(F f) {
    for (int64_t i; (i = next.fetch_add(run)) < total;)
      for (const int64_t end = std::min(i + run, total); i < end; i++) f(i);
  }
};
// One thread needs no runtime, whose code is never in the caches when it is called.
template <class F> void in_parallel(int threads, F body) {
  if (threads == 1) return body();
#pragma omp parallel num_threads(threads)
  body();
}

template <class F> void in_groups(int G, F f) {   // the heads in fours, then a pair, then one
  int g = 0;
  for (; G - g >= 4; g += 4) f(std::integral_constant<int, 4>(), g);
  if (G - g >= 2) f(std::integral_constant<int, 2>(), g), g += 2;
  if (G - g) f(std::integral_constant<int, 1>(), g);
}
}  // namespace
