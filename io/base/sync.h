// A mutex that Clang's thread-safety analysis understands, its lock and its condition variable.
// Thread-safe.
#pragma once

#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define CAISSON_THREAD_ATTRIBUTE(x) __attribute__((x))
#else
#define CAISSON_THREAD_ATTRIBUTE(x)
#endif
#define CAISSON_GUARDED_BY(x) CAISSON_THREAD_ATTRIBUTE(guarded_by(x))
#define CAISSON_REQUIRES(...) CAISSON_THREAD_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define CAISSON_EXCLUDES(...) CAISSON_THREAD_ATTRIBUTE(locks_excluded(__VA_ARGS__))

namespace caisson {

class CAISSON_THREAD_ATTRIBUTE(capability("mutex")) Mutex {
 public:
  void lock() CAISSON_THREAD_ATTRIBUTE(acquire_capability()) { mutex_.lock(); }
  void unlock() CAISSON_THREAD_ATTRIBUTE(release_capability()) { mutex_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

class CAISSON_THREAD_ATTRIBUTE(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) CAISSON_THREAD_ATTRIBUTE(acquire_capability(mutex))
      : mutex_(mutex) {
    mutex_.lock();
  }
  ~MutexLock() CAISSON_THREAD_ATTRIBUTE(release_capability()) { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// Waits in a loop: `while (!condition) cv.wait(mutex);`
class CondVar {
 public:
  void wait(Mutex& mutex) CAISSON_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }
  void notify_one() { condition_.notify_one(); }
  void notify_all() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace caisson
