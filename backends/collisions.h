// How many of the codes of the tokens of a segment equal those of queries, read where they lie:
// table by table, so that one comparison serves as many tokens as a vector has lanes.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

namespace {
constexpr int64_t SEGMENT = 64;
constexpr int64_t AT_ONCE = 4;   // queries whose counts stay in registers

template <class T> using Lane = std::conditional_t<sizeof(T) == 1, uint8_t, uint16_t>;
template <class T> struct Codes {
  typedef Lane<T> Vector __attribute__((vector_size(64)));
  static constexpr int LANES = 64 / sizeof(T), VECTORS = SEGMENT / LANES;
  // Tables that a lane can count.
  static constexpr int64_t MOST = sizeof(T) == 1 ? 255 : 65535;
};

// Codes of the queries of a row [Q, L], each in all lanes of a vector, table by table.
template <class T> struct Spread {
  const int64_t Q, L;
  std::vector<typename Codes<T>::Vector> code;
  Spread(int64_t Q, int64_t L) : Q(Q), L(L), code(Q * L) {}
  void take(const T* query) {
    for (int64_t q = 0; q < Q; q++)
      for (int64_t l = 0; l < L; l++)
        code[l * Q + q] = typename Codes<T>::Vector{} + Lane<T>(query[q * L + l]);
  }
};

template <int N, class T>
void count_some(const Spread<T>& query, int64_t q0, const T* code, const T* next,
                uint32_t* counts) {
  using C = Codes<T>;
  using Vector = typename C::Vector;
  for (int64_t first = 0; first < query.L; first += C::MOST) {
    const int64_t last = std::min(first + C::MOST, query.L);
    Vector sum[N][C::VECTORS] = {};
    for (int64_t l = first; l < last; l++) {
      const Vector* wanted = &query.code[l * query.Q + q0];
      for (int v = 0; v < C::VECTORS; v++) {
        Vector x;
        memcpy(&x, code + l * SEGMENT + v * C::LANES, sizeof x);
        __builtin_prefetch(next + l * SEGMENT + v * C::LANES, 0, 3);
        for (int q = 0; q < N; q++) sum[q][v] -= (Vector)(x == wanted[q]);
      }
    }
    for (int q = 0; q < N; q++)
      for (int j = 0; j < SEGMENT; j++)
        counts[(q0 + q) * SEGMENT + j] += sum[q][j / C::LANES][j % C::LANES];
  }
}

// counts [Q, 64] of the tokens of the segment at `code`, [L, 64], or 0 if that is null; `next` is
// the one that is read after it.
template <class T>
void count_segment(const Spread<T>& query, const T* code, const T* next, uint32_t* counts) {
  std::fill_n(counts, query.Q * SEGMENT, 0);
  if (!code) return;
  if (!next) next = code;
  int64_t q = 0;
  for (; q + AT_ONCE <= query.Q; q += AT_ONCE) count_some<AT_ONCE>(query, q, code, next, counts);
  for (; q < query.Q; q++) count_some<1>(query, q, code, next, counts);
}

// Whether the directory [rows, W] holds the first P tokens, and points into the pool.
inline bool sound(const int64_t* directory, int64_t rows, int64_t W, int64_t P, int64_t segments) {
  bool ok = (P + SEGMENT - 1) / SEGMENT <= W;
  for (int64_t i = 0; i < rows * W; i++) ok &= directory[i] >= -1 && directory[i] < segments;
  return ok;
}
}  // namespace
