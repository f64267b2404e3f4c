#include "pool.h"

#include <pthread.h>
#include <sched.h>

#include <chrono>
#include <thread>

namespace ventris {
namespace {

constexpr auto kSpinBeforeSleep = std::chrono::microseconds(100);
constexpr int kSpinsBeforeYield = 4000;

void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

std::atomic<Pool*> instance{nullptr};
std::mutex* instance_lock = new std::mutex;

// The child has the parent's memory but none of its threads: forget the pool (and leak it), and take a new
// lock in case another thread held the old one.
void forget_after_fork() {
  instance.store(nullptr);
  instance_lock = new std::mutex;
}

}  // namespace

void Worker::wait() const {
  for (int spins = 0; job_.done_.value.load(std::memory_order_acquire) < before_; ++spins) {
    if (spins < kSpinsBeforeYield)
      relax();
    else
      sched_yield();
  }
}

Pool& Pool::shared() {
  Pool* pool = instance.load();
  if (pool) return *pool;
  std::lock_guard<std::mutex> guard(*instance_lock);
  static const int registered = pthread_atfork(nullptr, nullptr, forget_after_fork);
  (void)registered;
  if (!instance.load()) instance.store(new Pool);
  return *instance.load();
}

void Pool::run(const std::shared_ptr<Job>& job) {
  if (job->threads() > 1) {
    std::lock_guard<std::mutex> guard(state_);
    for (; started_ < job->threads(); ++started_) std::thread(&Pool::serve, this, started_).detach();
    current_ = job;
    generation_.fetch_add(1);
  }
  changed_.notify_all();
  Worker worker(*job, 0);
  job->work(worker);
  if (job->threads() > 1) {
    std::lock_guard<std::mutex> guard(state_);
    current_.reset();
  }
}

void Pool::serve(int index) {
  uint64_t seen = 0;
  for (;;) {
    await_change(seen);
    std::shared_ptr<Job> job;
    {
      std::lock_guard<std::mutex> guard(state_);
      seen = generation_.load();
      job = current_;
    }
    if (!job || index >= job->threads()) continue;
    Worker worker(*job, index);
    job->work(worker);
  }
}

void Pool::await_change(uint64_t seen) {
  auto deadline = std::chrono::steady_clock::now() + kSpinBeforeSleep;
  while (std::chrono::steady_clock::now() < deadline) {
    for (int spins = 0; spins < 32; ++spins) {
      if (generation_.load() != seen) return;
      relax();
    }
  }
  std::unique_lock<std::mutex> guard(state_);
  changed_.wait(guard, [&] { return generation_.load() != seen; });
}

}  // namespace ventris
