// The frames of lowest rank, lowest first, the lower frame first among equals.
//
// A sample tells below which rank they probably lie, so that one pass leaves little to sort; where
// the sample misled, a second pass takes all.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace {
using Entry = std::pair<int64_t, int64_t>;
constexpr int64_t EMPTY = std::numeric_limits<int64_t>::max();
constexpr int64_t STRIDE = 16, LEAST = 4096;   // one frame of so many is sampled; fewer are not

// A rank that probably more than `count` frames do not exceed.
int64_t guess(const int64_t* rank, const uint8_t* pinned, int64_t num_frames, int64_t count) {
  std::vector<int64_t> sample;
  for (int64_t f = 0; f < num_frames; f += STRIDE) if (!pinned[f]) sample.push_back(rank[f]);
  const int64_t place = count / STRIDE * 5 / 4 + 16;
  if (place >= int64_t(sample.size())) return EMPTY - 1;
  std::nth_element(sample.begin(), sample.begin() + place, sample.end());
  return std::min(sample[place], EMPTY - 1);
}

void collect(const int64_t* rank, const uint8_t* pinned, int64_t num_frames, int64_t most,
             std::vector<Entry>& found) {
  found.clear();
  for (int64_t f = 0; f < num_frames; f++)
    if (rank[f] <= most && !pinned[f]) found.push_back({rank[f], f});
}
}  // namespace

extern "C" int64_t lowest(const int64_t* rank, const uint8_t* pinned, int64_t num_frames,
                          int64_t count, int64_t* frames) {
  std::vector<Entry> found;
  const int64_t most = num_frames < LEAST ? EMPTY - 1 : guess(rank, pinned, num_frames, count);
  collect(rank, pinned, num_frames, most, found);
  if (int64_t(found.size()) < count && most < EMPTY - 1)
    collect(rank, pinned, num_frames, EMPTY - 1, found);
  const int64_t num = std::min<int64_t>(count, found.size());
  std::nth_element(found.begin(), found.begin() + num, found.end());
  std::sort(found.begin(), found.begin() + num);
  for (int64_t i = 0; i < num; i++) frames[i] = found[i].second;
  return num;
}
