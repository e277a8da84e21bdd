// Tiles of AMX for bfloat16, and keys and values in their order.
//
// A tile product adds to 16 x 16 floats what 16 rows of 32 entries and 32 x 16 entries give, the
// latter in pairs. Keys come in groups of 32 tokens: two halves of 16 tokens by D / 32 tiles of
// [pair of entries][token]; values by D / 16 tiles of [pair of tokens][entry].
#pragma once
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cstdint>

namespace {
using bf16 = uint16_t;
constexpr int D = HEAD_DIM;
constexpr int GROUP = 32;                // tokens of a group
constexpr int STRIP = 32;                // rows that are attended together
constexpr int KEYS = 128;                // tokens between two updates of the softmax
constexpr int TILE = 512;                // entries of a packed tile
constexpr int64_t PACKED = GROUP * D;    // entries of a group
static_assert(D % 32 == 0 && D <= 256);

// What was written by other instructions is there when tiles are loaded: the compiler does not know
// that these read.
inline void settle() { __asm__ volatile("" ::: "memory"); }

// Linux gives tiles to processes that ask for them.
inline bool may_use_tiles() {
  constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

// Eight tiles of 16 rows of 64 bytes, for as long as it lives, in this thread.
struct Tiles {
  Tiles() {
    alignas(64) struct { uint8_t palette = 1, start = 0, unused[14] = {}; uint16_t bytes[16] = {};
                         uint8_t rows[16] = {}; } shape;
    for (int i = 0; i < 8; i++) shape.bytes[i] = 64, shape.rows[i] = 16;
    _tile_loadconfig(&shape);
  }
  ~Tiles() { _tile_release(); }
};

// S[r][t] = q[r] . key t, of STRIP rows and n tokens; n is a multiple of GROUP.
inline void dots(const bf16* q, const bf16* packed, int n, float* S) {
  settle();
  for (int t = 0; t < n; t += GROUP, packed += PACKED) {
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
    for (int d = 0; d < D / 32; d++) {
      _tile_loadd(4, q + 32*d, D * 2);
      _tile_loadd(6, packed + d * TILE, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, packed + (D / 32 + d) * TILE, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, q + 16*D + 32*d, D * 2);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, S + t, KEYS * 4); _tile_stored(1, S + t + 16, KEYS * 4);
    _tile_stored(2, S + 16*KEYS + t, KEYS * 4); _tile_stored(3, S + 16*KEYS + t + 16, KEYS * 4);
  }
}

// O[r] += sum over t of P[r][t] value t, of STRIP rows and n tokens; n is a multiple of GROUP.
inline void weigh(const bf16* P, const bf16* packed, int n, float* O) {
  settle();
  for (int d = 0; d < D; d += 32) {
    float *upper = O + d, *lower = O + 16*D + d;
    _tile_loadd(0, upper, D * 4); _tile_loadd(1, upper + 16, D * 4);
    _tile_loadd(2, lower, D * 4); _tile_loadd(3, lower + 16, D * 4);
    const bf16* v = packed + d / 16 * TILE;
    for (int t = 0; t < n; t += GROUP, v += PACKED) {
      _tile_loadd(4, P + t, KEYS * 2);
      _tile_loadd(6, v, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, v + TILE, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, P + 16*KEYS + t, KEYS * 2);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, upper, D * 4); _tile_stored(1, upper + 16, D * 4);
    _tile_stored(2, lower, D * 4); _tile_stored(3, lower + 16, D * 4);
  }
}

// to[i][j] = row[j] at entry pair i, of 16 rows: a transpose of 16 x 16 numbers of 32 bits.
inline void transpose(const bf16* const* rows, int64_t at, bf16* to) {
  __m512i a[16], b[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(rows[i] + at);
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i+1]);
    b[i+1] = _mm512_unpackhi_epi32(a[i], a[i+1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    a[i] = _mm512_unpacklo_epi64(b[i], b[i+2]), a[i+1] = _mm512_unpackhi_epi64(b[i], b[i+2]);
    a[i+2] = _mm512_unpacklo_epi64(b[i+1], b[i+3]), a[i+3] = _mm512_unpackhi_epi64(b[i+1], b[i+3]);
  }
  // a[4*i + j] has column 4*lane + j of rows 4*i .. 4*i + 3.
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) {
    b[j] = _mm512_shuffle_i32x4(a[j], a[4+j], 0x88);
    b[4+j] = _mm512_shuffle_i32x4(a[j], a[4+j], 0xdd);
    b[8+j] = _mm512_shuffle_i32x4(a[8+j], a[12+j], 0x88);
    b[12+j] = _mm512_shuffle_i32x4(a[8+j], a[12+j], 0xdd);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; j++) {
    _mm512_store_si512(to + 32*j, _mm512_shuffle_i32x4(b[j], b[8+j], 0x88));
    _mm512_store_si512(to + 32*(8+j), _mm512_shuffle_i32x4(b[j], b[8+j], 0xdd));
    _mm512_store_si512(to + 32*(4+j), _mm512_shuffle_i32x4(b[4+j], b[12+j], 0x88));
    _mm512_store_si512(to + 32*(12+j), _mm512_shuffle_i32x4(b[4+j], b[12+j], 0xdd));
  }
}

// A group of tokens in the order of the tiles.
inline void pack(const bf16* const* keys, const bf16* const* values, bf16* key, bf16* value) {
  for (int half = 0; half < 2; half++)
    for (int d = 0; d < D; d += 32, key += TILE) transpose(keys + 16*half, d, key);
  alignas(64) uint16_t order[2][32];
  for (int i = 0; i < 32; i++) order[0][i] = i / 2 + i % 2 * 32, order[1][i] = order[0][i] + 16;
  const __m512i low = _mm512_load_si512(order[0]), high = _mm512_load_si512(order[1]);
  for (int d = 0; d < D; d += 32)
    for (int pair = 0; pair < 16; pair++) {
      const __m512i u = _mm512_loadu_si512(values[2*pair] + d);
      const __m512i v = _mm512_loadu_si512(values[2*pair + 1] + d);
      bf16* to = value + d / 16 * TILE + 32*pair;
      _mm512_store_si512(to, _mm512_permutex2var_epi16(u, low, v));
      _mm512_store_si512(to + TILE, _mm512_permutex2var_epi16(u, high, v));
    }
}
}  // namespace
