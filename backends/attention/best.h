// The best of a stream of scores.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

namespace {
// Scores as integers of the same order. What is no number comes last, and nothing is 0.
using Key = uint32_t __attribute__((may_alias));   // stands where the score stood
constexpr uint32_t FORCED = ~0u, NO_NUMBER = 1;

// The k best of a stream of keys, exact; equal keys prefer the smaller index. Keeps index order.
struct Best {
  int64_t k, n = 0, cap;
  uint32_t floor = 0;
  std::vector<uint32_t> key;
  std::vector<int32_t> index;
  explicit Best(int64_t k)
      : k(k), cap(std::max<int64_t>(4 * k, 256)), key(cap + 16), index(cap + 16) {}

  int64_t above(uint32_t x) const {   // how many are larger
    int32_t count = 0;
    for (int64_t i = 0; i < n; i++) count += key[i] > x;
    return count;
  }
  void shrink() {
    if (n <= k) return;
    uint32_t low = 1, high = FORCED;   // the k-th largest, by bisection
    while (low < high) {
      const uint32_t middle = low + (high - low) / 2;
      const int64_t larger = above(middle);
      if (larger > k) low = middle + 1;
      else high = middle;
      if (larger == k) low = middle;
    }
    int64_t ties = k - above(low), kept = 0;
    for (int64_t i = 0; i < n; i++) {
      const bool equal = key[i] == low, keep = key[i] > low || (equal && ties > 0);
      ties -= equal, key[kept] = key[i], index[kept] = index[i], kept += keep;
    }
    n = kept, floor = low;
  }
  void add(const Key* keys, int64_t total) {
    for (int64_t i = 0; i < total; i += 16) {
      const int count = std::min<int64_t>(16, total - i);
      bool any = count < 16;
      if (!any) for (int j = 0; j < 16; j++) any |= keys[i+j] > floor;
      if (!any) continue;
      for (int j = 0; j < count; j++)
        key[n] = keys[i+j], index[n] = int32_t(i + j), n += keys[i+j] > floor;
      if (n >= cap) shrink();
    }
    shrink();
  }
};
}  // namespace
