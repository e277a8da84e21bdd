// The frames of lowest rank in one pass, lowest first, the lower frame first among equals.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

extern "C" int64_t lowest(const int64_t* rank, const uint8_t* pinned, int64_t num_frames,
                          int64_t count, int64_t* found) {
  constexpr int64_t empty = std::numeric_limits<int64_t>::max();
  using Entry = std::pair<int64_t, int64_t>;
  std::vector<Entry> best;
  const int64_t room = std::max<int64_t>(2 * count, 256);
  best.reserve(room);
  Entry limit{empty, -1};   // nothing from here on can be among the lowest
  for (int64_t f = 0; f < num_frames; f++) {
    if (rank[f] > limit.first || pinned[f]) continue;
    const Entry entry{rank[f], f};
    if (entry >= limit) continue;
    best.push_back(entry);
    if (int64_t(best.size()) == room) {
      std::nth_element(best.begin(), best.begin() + count - 1, best.end());
      best.resize(count), limit = best.back();
    }
  }
  const int64_t num = std::min<int64_t>(count, best.size());
  std::partial_sort(best.begin(), best.begin() + num, best.end());
  for (int64_t i = 0; i < num; i++) found[i] = best[i].second;
  return num;
}
