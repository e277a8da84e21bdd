// Moves pages between a file and a pool in memory: several requests at one time, and a checksum of
// each page while it is in the caches.
//
// A request is a run of consecutive frames of the file; its pages may lie anywhere in the pool.
#include <sys/uio.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace {
constexpr uint64_t KEY_STEP = 0x9e3779b97f4a7c15;   // odd, so that each word of a page has its key

struct Job {
  int fd;
  bool writes;
  char* pool;
  const int64_t *frames, *places, *bounds;
  int64_t num_requests, bytes;
  uint64_t* sums;       // by frame
  uint8_t* failed;      // by page of the batch
  std::atomic<int64_t> next{0}, done{0};
  std::atomic<int> error{0};

  bool finished() const { return done == num_requests; }
  char* page(int64_t i) const { return pool + places[i] * bytes; }
};

uint64_t mixed(uint64_t word, uint64_t key) {
  const uint64_t keyed = word + key;
  return (keyed & 0xffffffff) * (keyed >> 32) + keyed;
}

uint64_t checksum(const char* page, int64_t bytes) {
  const int64_t words = bytes / 8;
  uint64_t sum = 0, key = KEY_STEP, word;
  for (int64_t i = 0; i < words; i++, key += KEY_STEP) {
    memcpy(&word, page + 8 * i, 8);
    sum += mixed(word, key);
  }
  if (bytes % 8 == 0) return sum;
  word = 0;
  memcpy(&word, page + 8 * words, bytes % 8);
  return sum + mixed(word, key);
}

// Where the pages lie in memory, neighbours joined.
std::vector<iovec> parts_of(const Job& job, int64_t start, int64_t stop) {
  std::vector<iovec> parts;
  for (int64_t i = start; i < stop; i++) {
    char* page = job.page(i);
    if (!parts.empty() && (char*)parts.back().iov_base + parts.back().iov_len == page)
      parts.back().iov_len += job.bytes;
    else
      parts.push_back({page, size_t(job.bytes)});
  }
  return parts;
}

// Whether all the bytes of a run of frames were moved.
bool move_run(Job& job, int64_t start, int64_t stop) {
  const std::vector<iovec> parts = parts_of(job, start, stop);
  const int64_t offset = job.frames[start] * job.bytes;
  ssize_t moved;
  do {
    moved = job.writes ? pwritev(job.fd, parts.data(), parts.size(), offset)
                       : preadv(job.fd, parts.data(), parts.size(), offset);
  } while (moved < 0 && errno == EINTR);
  if (moved < 0) job.error = errno;
  return moved == (stop - start) * job.bytes;
}

void serve(Job& job, int64_t start, int64_t stop) {
  if (job.writes)   // first: a page whose write fails is then damaged, never an older one
    for (int64_t i = start; i < stop; i++)
      job.sums[job.frames[i]] = checksum(job.page(i), job.bytes);
  if (!move_run(job, start, stop)) {
    if (stop - start > 1) {   // one by one, to lose no neighbour of what cannot be moved
      for (int64_t i = start; i < stop; i++) serve(job, i, i + 1);
      return;
    }
    job.failed[start] = 1;
  } else if (!job.writes) {
    for (int64_t i = start; i < stop; i++)
      job.failed[i] = checksum(job.page(i), job.bytes) != job.sums[job.frames[i]];
  }
}

// Whether this call finished the job. Nothing of it is touched without a claimed request, since
// the caller goes on as soon as every request is done.
bool work(Job& job) {
  bool last = false;
  for (int64_t i; (i = job.next++) < job.num_requests;) {
    serve(job, job.bounds[i], job.bounds[i+1]);
    last = ++job.done == job.num_requests;
  }
  return last;
}

// Threads that sleep between jobs: a new thread waits a time slice on a busy machine. Whoever
// wakes too late for a job leaves it alone, and nobody waits for it.
class Workers {
  std::mutex mutex;
  std::condition_variable wake, finished;
  std::shared_ptr<Job> job;
  bool closing = false;
  std::vector<std::thread> threads;

  void run() {
    std::shared_ptr<Job> mine;
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex);
        wake.wait(lock, [&] { return closing || job != mine; });
        if (closing) return;
        mine = job;
      }
      if (work(*mine)) {
        std::lock_guard<std::mutex> lock(mutex);
        finished.notify_all();
      }
    }
  }

 public:
  explicit Workers(int count) {
    try {
      while (int(threads.size()) < count) threads.emplace_back(&Workers::run, this);
    } catch (const std::system_error&) {
      // No more threads are to be had: those that are here serve, at least the caller's.
    }
  }

  ~Workers() {
    {
      std::lock_guard<std::mutex> lock(mutex);
      closing = true;
    }
    wake.notify_all();
    for (std::thread& thread : threads) thread.join();
  }

  void serve_all(const std::shared_ptr<Job>& all) {
    if (all->num_requests > 1 && !threads.empty()) {
      {
        std::lock_guard<std::mutex> lock(mutex);
        job = all;
      }
      const int64_t more = std::min<int64_t>(all->num_requests - 1, threads.size());
      for (int64_t i = 0; i < more; i++) wake.notify_one();
    }
    if (work(*all)) return;
    std::unique_lock<std::mutex> lock(mutex);
    finished.wait(lock, [&] { return all->finished(); });
  }
};
}

// The caller serves too, so that `in_flight` is one more than the threads.
extern "C" void* open_workers(int in_flight) { return new Workers(in_flight - 1); }

extern "C" void close_workers(void* workers) { delete static_cast<Workers*>(workers); }

// Returns the last error number of the system, 0 when there was none; a short read has none.
extern "C" int move_pages(
    void* workers, int fd, int writes, char* pool, const int64_t* frames, const int64_t* places,
    const int64_t* bounds, int64_t num_requests, int64_t bytes, uint64_t* sums, uint8_t* failed) {
  const std::shared_ptr<Job> job(new Job{
      fd, bool(writes), pool, frames, places, bounds, num_requests, bytes, sums, failed});
  static_cast<Workers*>(workers)->serve_all(job);
  return job->error;
}
