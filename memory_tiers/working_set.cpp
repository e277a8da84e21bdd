// Counts the pages of a step towards the working sets of their sequences, in one pass.
//
// Latest use lies in segments of 64 pages: the segment of group g is directory[g], and 0 is nobody's.
// counts [window, sequences]: pages whose latest use was in a step, by step modulo window.
#include <cstdint>

extern "C" int64_t use_pages(const int64_t* pages, int64_t num_pages, const int32_t* directory,
                             int32_t* latest, int64_t* counts, int64_t now, int64_t window,
                             int64_t pages_per_sequence, int64_t sequences) {
  for (int64_t i = 0; i < num_pages; i++)
    if (directory[pages[i] >> 6] == 0) return i + 1;   // a segment has to be made first
  int64_t owner = 0, last = -1;
  for (int64_t i = 0; i < num_pages; i++) {
    const int64_t page = pages[i], place = page / pages_per_sequence;
    if (place != last) last = place, owner = place % sequences;
    int32_t& used = latest[(int64_t(directory[page >> 6]) << 6) + (page & 63)];
    if (used > now - window) counts[(used % window) * sequences + owner]--;
    counts[(now % window) * sequences + owner]++;
    used = int32_t(now);
  }
  return 0;
}
