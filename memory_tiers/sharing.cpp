// Takes frames in order, of each owner no more than it has to give, until there are enough.
#include <cstdint>

extern "C" int64_t take_within(const int64_t* frames, int64_t num_frames, const int64_t* owner,
                               int64_t* left, int64_t count, int64_t* taken) {
  int64_t num = 0;
  for (int64_t i = 0; i < num_frames && num < count; i++)
    if (left[owner[frames[i]]] > 0) left[owner[frames[i]]]--, taken[num++] = frames[i];
  return num;
}
