// A small thread pool for runs of many short parallel sections.
//
// A run is one program that every worker walks: the same sections in the same order. Within a section the
// workers take chunks of units, first from a range of their own (so each reads one contiguous stretch of
// memory), then from the others' ranges. A section ends when all its *units* are done, not when all workers
// have arrived: a worker that the operating system has put aside delays nobody unless it holds a chunk, and
// when it comes back it finds the finished sections empty and catches up in a microsecond.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace ventris {

constexpr int kMaxThreads = 64;

class Worker;

// One run. It must own (or share) whatever its sections' unit counts are read from, because a late worker
// may still walk it after the caller has returned.
class Job {
 public:
  explicit Job(int threads) : threads_(std::clamp(threads, 1, kMaxThreads)) {}
  virtual ~Job() = default;
  virtual void work(Worker& worker) = 0;
  int threads() const { return threads_; }

 private:
  friend class Worker;
  struct alignas(64) Counter {
    std::atomic<int64_t> value{0};
  };
  const int threads_;
  Counter done_;
  // Next unit of each worker's range. Units are numbered through all sections of the run, so the counters
  // only ever grow and need no reset between sections.
  Counter next_[kMaxThreads];
};

// One thread's view of a run.
class Worker {
 public:
  Worker(Job& job, int index) : job_(job), index_(index) {}

  int index() const { return index_; }

  // Call `body(begin, end)` for stretches that together cover 0 .. units - 1, and return when all are done.
  // A stretch has at most `most` units; the stretches shrink towards the end of a range.
  template <class Body>
  void section(int64_t units, int64_t most, Body&& body) {
    const int threads = job_.threads_;
    int64_t mine = 0;
    for (int turn = 0; turn < threads; ++turn) {
      int owner = (index_ + turn) % threads;
      int64_t first = before_ + units * owner / threads;
      int64_t last = before_ + units * (owner + 1) / threads;
      int64_t begin, end;
      while (take(owner, first, last, most, begin, end)) {
        body(begin - before_, end - before_);
        mine += end - begin;
      }
    }
    before_ += units;
    if (mine > 0) job_.done_.value.fetch_add(mine, std::memory_order_acq_rel);
    wait();
  }

 private:
  bool take(int owner, int64_t first, int64_t last, int64_t most, int64_t& begin, int64_t& end) {
    std::atomic<int64_t>& next = job_.next_[owner].value;
    int64_t seen = next.load(std::memory_order_relaxed);
    do {
      begin = std::max(seen, first);
      if (begin >= last) return false;
      end = begin + std::clamp((last - begin + 2) / 3, (int64_t)1, most);
    } while (!next.compare_exchange_weak(seen, end, std::memory_order_relaxed));
    return true;
  }

  void wait() const;

  Job& job_;
  const int index_;
  int64_t before_ = 0;  // units of all sections up to here
};

// The threads, shared by all decoders of the process.
class Pool {
 public:
  // The process's pool; a forked child gets a fresh one, since threads do not survive a fork.
  static Pool& shared();

  // Held by a caller from the preparation of a run to its end: one run at a time.
  std::mutex& calls() { return calls_; }

  // Walk the run with its number of threads, the caller's included; returns when it is complete.
  void run(const std::shared_ptr<Job>& job);

 private:
  void serve(int index);
  void await_change(uint64_t seen);

  std::mutex calls_;
  std::mutex state_;
  std::condition_variable changed_;
  std::atomic<uint64_t> generation_{0};
  std::shared_ptr<Job> current_;
  int started_ = 1;  // the caller is worker 0
};

}  // namespace ventris
