// Which partitions a row reads, and on which pages they lie.
#pragma once
#include <vector>

#include "best.h"
#include "vector.h"

namespace {
inline void to_keys(const float* scores, Key* keys, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    const float x = scores[i] + 0.f;   // one zero
    int32_t b;
    memcpy(&b, &x, 4);
    const uint32_t key = uint32_t(b ^ ((b >> 31) | int32_t(0x80000000)));
    keys[i] = x == x ? key : NO_NUMBER;
  }
}

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
