// Which partitions a row reads, and on which pages they lie.
#pragma once
#include <vector>

#include "vector.h"

namespace {
// Scores as integers of the same order. What is no number comes last, and nothing is 0.
using Key = uint32_t __attribute__((may_alias));   // stands where the score stood
constexpr uint32_t FORCED = ~0u, NO_NUMBER = 1;
inline void to_keys(const float* scores, Key* keys, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    const float x = scores[i] + 0.f;   // one zero
    int32_t b;
    memcpy(&b, &x, 4);
    const uint32_t key = uint32_t(b ^ ((b >> 31) | int32_t(0x80000000)));
    keys[i] = x == x ? key : NO_NUMBER;
  }
}

// The k best of a stream of keys, exact; equal keys prefer the smaller index. Keeps index order.
struct Best {
  int64_t k, n = 0, cap;
  uint32_t floor = 0;
  std::vector<uint32_t> key;
  std::vector<int32_t> index;
  explicit Best(int64_t k)
      : k(k), cap(std::max<int64_t>(4 * k, 256)), key(cap + BLOCK), index(cap + BLOCK) {}

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

// Frames by page id, flat or in two levels: memory_tiers.base.TableView.
struct Table {
  const int32_t* cells;
  const int32_t* base;
  const uint64_t* bits;
  int64_t num_cells, num_pages;

  void prefetch(int64_t page) const {
    if (bits) __builtin_prefetch(bits + (page >> 6)), __builtin_prefetch(base + (page >> 6));
    else __builtin_prefetch(cells + page);
  }
  int32_t frame(int64_t page) const {
    if (!bits) return cells[page];
    const uint64_t word = bits[page >> 6], bit = 1ull << (page & 63);
    return word & bit ? cells[base[page >> 6] + __builtin_popcountll(word & (bit - 1))] : -1;
  }
};

struct Found { int64_t pages, wanted; };

// The pages of ascending partitions of `size` tokens of a row of `tokens`, with their live slots.
template <class Index>
Found to_pages(Index partition, int64_t count, int64_t size, int64_t tokens, int S,
               int64_t first_page, const Table& table, int64_t* pages, uint64_t* live) {
  Found found{0, 0};
  int64_t last = -1;
  for (int64_t i = 0; i < count; i++) {
    int64_t at = partition(i) * size;
    const int64_t end = std::min(at + size, tokens);
    found.wanted += end - at;
    while (at < end) {
      const int64_t page = at / S, slot = at - page * S, n = std::min(end - at, S - slot);
      if (page != last) {
        pages[found.pages] = first_page + page, live[found.pages++] = 0;
        table.prefetch(first_page + page);
      }
      live[found.pages - 1] |= (~0ull >> (64 - n)) << slot;
      last = page, at += n;
    }
  }
  return found;
}
}  // namespace
