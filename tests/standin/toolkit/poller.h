// The threads of the stand-in: each poller runs its tasks one after the other, in the order they came, besides what its
// sockets and timers bring.
#ifndef ZLM_JOURNAL_STANDIN_POLLER_H
#define ZLM_JOURNAL_STANDIN_POLLER_H

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "toolkit/ini.h"

namespace toolkit {

using Clock = std::chrono::steady_clock;

class TaskExecutor {
public:
    using Ptr = std::shared_ptr<TaskExecutor>;
    virtual ~TaskExecutor() = default;
    // may_sync: runs the task at once, within this call, where this is the executor's own thread. What it throws then
    // comes out of here; otherwise it is logged and ends nothing.
    virtual void async(std::function<void()> task, bool may_sync = true) = 0;
};

class EventPoller : public TaskExecutor, public std::enable_shared_from_this<EventPoller> {
public:
    using Ptr = std::shared_ptr<EventPoller>;

    class DelayTask {
    public:
        using Ptr = std::shared_ptr<DelayTask>;
        explicit DelayTask(std::function<uint64_t()> task)
            : _task(std::move(task)) {}
        void cancel() { _cancelled = true; }

    private:
        friend class EventPoller;
        const std::function<uint64_t()> _task;
        std::atomic<bool> _cancelled{false};
    };

    static Ptr create() {
        auto poller = std::make_shared<EventPoller>();
        std::thread([poller] { poller->run(); }).detach();
        return poller;
    }

    EventPoller() {
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.fd = _wake;
        epoll_ctl(_epoll, EPOLL_CTL_ADD, _wake, &event);
    }

    bool isCurrentThread() const { return current() == this; }

    void async(std::function<void()> task, bool may_sync = true) override {
        if (may_sync && isCurrentThread()) {
            task();
            return;
        }
        std::lock_guard<std::mutex> lock(_mutex);
        if (_tasks.empty()) {
            eventfd_write(_wake, 1);
        }
        _tasks.push_back(std::move(task));
    }

    // Runs the task after so many milliseconds, and again after as many as it returns, until that is 0.
    DelayTask::Ptr doDelayTask(uint64_t delay_ms, std::function<uint64_t()> task) {
        const auto delayed = std::make_shared<DelayTask>(std::move(task));
        const auto due = Clock::now() + std::chrono::milliseconds(delay_ms);
        async([this, delayed, due] { _delayed.emplace(due, delayed); });
        return delayed;
    }

    using OnEvent = std::function<void(uint32_t events)>;

    // These three are for the poller's own thread.
    void addEvent(int fd, uint32_t events, OnEvent on_event) {
        _events[fd] = std::make_shared<OnEvent>(std::move(on_event));
        control(EPOLL_CTL_ADD, fd, events);
    }
    void modifyEvent(int fd, uint32_t events) { control(EPOLL_CTL_MOD, fd, events); }
    // Nobody is told any more of what this descriptor brings, and it is closed.
    void closeEvent(int fd) {
        control(EPOLL_CTL_DEL, fd, 0);
        _events.erase(fd);
        ::close(fd);
    }

    static EventPoller *&current() {
        static thread_local EventPoller *poller = nullptr;
        return poller;
    }

private:
    void control(int what, int fd, uint32_t events) {
        epoll_event event{};
        event.events = events;
        event.data.fd = fd;
        epoll_ctl(_epoll, what, fd, &event);
    }

    // Nothing that a task throws ends the poller.
    template <typename Task>
    static void guarded(const Task &task) {
        try {
            task();
        } catch (const std::exception &error) {
            ErrorL << "a task threw: " << error.what();
        }
    }

    void run() {
        current() = this;
        epoll_event events[256];
        while (true) {
            const int count = epoll_wait(_epoll, events, 256, runDelayed());
            for (int n = 0; n < count; ++n) {
                if (events[n].data.fd == _wake) {
                    runTasks();
                    continue;
                }
                const auto it = _events.find(events[n].data.fd);
                if (it != _events.end()) {
                    const auto on_event = it->second;
                    const uint32_t what = events[n].events;
                    guarded([&] { (*on_event)(what); });
                }
            }
        }
    }

    void runTasks() {
        std::deque<std::function<void()>> tasks;
        {
            std::lock_guard<std::mutex> lock(_mutex);
            eventfd_t calls;
            (void)eventfd_read(_wake, &calls);
            tasks.swap(_tasks);
        }
        // Each is let go when it has run: what it keeps alive may end with it.
        for (; !tasks.empty(); tasks.pop_front()) {
            guarded(tasks.front());
        }
    }

    // How many milliseconds there are to the next; -1 where there is none.
    int runDelayed() {
        while (!_delayed.empty() && _delayed.begin()->first <= Clock::now()) {
            const auto delayed = _delayed.begin()->second;
            _delayed.erase(_delayed.begin());
            if (delayed->_cancelled) {
                continue;
            }
            guarded([&] {
                const uint64_t again = delayed->_task();
                if (again > 0) {
                    _delayed.emplace(Clock::now() + std::chrono::milliseconds(again), delayed);
                }
            });
        }
        if (_delayed.empty()) {
            return -1;
        }
        const auto left = _delayed.begin()->first - Clock::now();
        return std::max<int64_t>(0, std::chrono::duration_cast<std::chrono::milliseconds>(left).count() + 1);
    }

    const int _epoll = epoll_create1(EPOLL_CLOEXEC);
    const int _wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    std::mutex _mutex;
    std::deque<std::function<void()>> _tasks;
    // Of the poller's own thread:
    std::multimap<Clock::time_point, DelayTask::Ptr> _delayed;
    std::unordered_map<int, std::shared_ptr<OnEvent>> _events;
};

class EventPollerPool {
public:
    // Before the first use.
    static void setPoolSize(size_t size) { poolSize() = size; }

    static EventPollerPool &Instance() {
        static EventPollerPool *pool = new EventPollerPool;
        return *pool;
    }

    // The one whose thread this is; where there is none, or any is wanted, each in turn: a fair stand-in for the least
    // loaded, and one in N is the caller's own, on which async() acts at once.
    EventPoller::Ptr getPoller(bool prefer_current_thread = true) {
        if (prefer_current_thread && EventPoller::current()) {
            return EventPoller::current()->shared_from_this();
        }
        return _pollers[_next++ % _pollers.size()];
    }

    void for_each(const std::function<void(const TaskExecutor::Ptr &)> &each) {
        for (const auto &poller : _pollers) {
            each(poller);
        }
    }

    size_t getExecutorSize() const { return _pollers.size(); }

private:
    EventPollerPool() {
        for (size_t n = 0; n < std::max<size_t>(1, poolSize()); ++n) {
            _pollers.push_back(EventPoller::create());
        }
    }

    static size_t &poolSize() {
        static size_t size = std::thread::hardware_concurrency();
        return size;
    }

    std::vector<EventPoller::Ptr> _pollers;
    std::atomic<size_t> _next{0};
};

} // namespace toolkit

#endif
