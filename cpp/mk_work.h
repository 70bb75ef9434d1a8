// What the host over ZLMediaKit's C API does on a thread of its own, and what it waits for at its end.
#ifndef ZLM_JOURNAL_MK_WORK_H
#define ZLM_JOURNAL_MK_WORK_H

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

namespace zlm_journal {
namespace mk {

// A thread that does what it is given, in order, or later. Every function may be called from any thread.
class Work {
public:
    using Task = std::function<void()>;
    using Clock = std::chrono::steady_clock;

    Work()
        : _thread([this] { run(); }) {}
    ~Work() { end(); }

    void queue(Task task) { queueIn(Clock::duration::zero(), std::move(task)); }

    void queueIn(Clock::duration pause, Task task) {
        {
            const std::lock_guard<std::mutex> lock(_mutex);
            if (_has_ended) {
                return;
            }
            // Those of one moment stay in order.
            _tasks.emplace(Clock::now() + pause, std::move(task));
        }
        _changed.notify_one();
    }

    // As soon as `is_so`, which is asked again and again, or after some seconds in any case.
    void queueWhen(std::function<bool()> is_so, Task task) { ask(std::move(is_so), std::move(task), kAsks); }

    // Waits for the task that is being done, and drops the others. Not on this thread.
    void end() {
        std::multimap<Clock::time_point, Task> dropped;
        {
            const std::lock_guard<std::mutex> lock(_mutex);
            _has_ended = true;
            dropped.swap(_tasks);
        }
        _changed.notify_one();
        if (_thread.joinable()) {
            _thread.join();
        }
    }

private:
    static const int kAsks = 1000;

    void ask(std::function<bool()> is_so, Task task, int left) {
        if (left == 0 || is_so()) {
            return queue(std::move(task));
        }
        queueIn(std::chrono::milliseconds(5), [this, is_so, task, left] { ask(is_so, task, left - 1); });
    }

    void run() {
        std::unique_lock<std::mutex> lock(_mutex);
        while (!_has_ended) {
            if (_tasks.empty()) {
                _changed.wait(lock);
                continue;
            }
            const auto next = _tasks.begin();
            if (next->first > Clock::now()) {
                const auto when = next->first;
                _changed.wait_until(lock, when);
                continue;
            }
            const Task task = std::move(next->second);
            _tasks.erase(next);
            lock.unlock();
            task();
            lock.lock();
        }
    }

    std::mutex _mutex;
    std::condition_variable _changed;
    std::multimap<Clock::time_point, Task> _tasks;
    bool _has_ended = false;
    // The last member: it uses the others.
    std::thread _thread;
};

// How many there are of something.
class Count {
public:
    // One of them.
    class Hold {
    public:
        explicit Hold(Count &count)
            : _count(count) {
            _count.add(1);
        }
        ~Hold() { _count.add(-1); }
        Hold(const Hold &) = delete;
        Hold &operator=(const Hold &) = delete;

    private:
        Count &_count;
    };

    // Returns false if there still are some after that time.
    bool waitForNone(std::chrono::seconds most) {
        std::unique_lock<std::mutex> lock(_mutex);
        return _none.wait_for(lock, most, [this] { return _count == 0; });
    }

private:
    void add(int change) {
        const std::lock_guard<std::mutex> lock(_mutex);
        _count += change;
        if (_count == 0) {
            _none.notify_all();
        }
    }

    std::mutex _mutex;
    std::condition_variable _none;
    int _count = 0;
};

} // namespace mk
} // namespace zlm_journal

#endif
