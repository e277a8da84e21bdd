// Copies pages between frames of two pools in memory.
//
// Stores stream past the caches where the frames are aligned: a line that is overwritten whole
// need not be read first, and the pages of a large copy do not push out what is in use.
#include <algorithm>
#include <cstdint>
#include <cstring>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {
constexpr int64_t LINE = 64;
constexpr int64_t AHEAD = 2;   // pages between the prefetch and the copy

inline void stream_line(char* to, const char* from) {
#if defined(__AVX512F__)
  _mm512_stream_si512((__m512i*)to, _mm512_loadu_si512(from));
#elif defined(__AVX2__)
  for (int i = 0; i < 2; i++)
    _mm256_stream_si256((__m256i*)to + i, _mm256_loadu_si256((const __m256i*)from + i));
#elif defined(__SSE2__)
  for (int i = 0; i < 4; i++)
    _mm_stream_si128((__m128i*)to + i, _mm_loadu_si128((const __m128i*)from + i));
#else
  memcpy(to, from, LINE);
#endif
}

inline void stream_page(char* to, const char* from, const char* next, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += LINE) {
    __builtin_prefetch(next + at, 0, 3);
    stream_line(to + at, from + at);
  }
}

inline void finish_streams() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

bool outside(const int64_t* frames, int64_t count, int64_t num_frames) {
  bool found = false;
  for (int64_t i = 0; i < count; i++) found |= uint64_t(frames[i]) >= uint64_t(num_frames);
  return found;
}
}

// Returns 1, having done nothing, when a frame is outside of its pool.
extern "C" int64_t copy_frames(
    const char* source, const int64_t* from, char* target, const int64_t* to, int64_t count,
    int64_t bytes, int64_t num_source, int64_t num_target, int threads) {
  if (outside(from, count, num_source) || outside(to, count, num_target)) return 1;
  const bool streams = bytes % LINE == 0 && (uintptr_t)target % LINE == 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < count; i++) {
      char* page = target + to[i] * bytes;
      const char* content = source + from[i] * bytes;
      if (streams)
        stream_page(page, content, source + from[std::min(i + AHEAD, count - 1)] * bytes, bytes);
      else
        memcpy(page, content, bytes);
    }
    finish_streams();
  }
  return 0;
}
