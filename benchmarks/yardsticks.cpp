// Reads memory and does as little else as possible: what a kernel's reading is measured against.
#include <algorithm>
#include <cstdint>
#include <cstring>

using Line = int32_t __attribute__((vector_size(64), aligned(4), may_alias));

// Reads n units of `bytes`, a multiple of 256: those named by ids, each prefetched while the one
// before it is read, or all in sequence where ids is null.
extern "C" int32_t sweep(const char* base, const int32_t* ids, int64_t n, int64_t bytes) {
  Line sum[4] = {};
  for (int64_t i = 0; i < n; i++) {
    const char* unit = base + (ids ? ids[i] : i) * bytes;
    const char* next = ids ? base + ids[std::min(i + 1, n - 1)] * bytes : nullptr;
    for (int64_t at = 0; at < bytes; at += 256)
      for (int j = 0; j < 256; j += 64) {
        if (next) __builtin_prefetch(next + at + j, 0, 3);
        sum[j / 64] += *(const Line*)(unit + at + j);
      }
  }
  const Line all = sum[0] + sum[1] + sum[2] + sum[3];
  int32_t folded = 0;
  for (int j = 0; j < 16; j++) folded += all[j];
  return folded;
}
