// Events and who listens to them.
#ifndef ZLM_JOURNAL_STANDIN_NOTICE_H
#define ZLM_JOURNAL_STANDIN_NOTICE_H

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "toolkit/ini.h"

namespace toolkit {

// The listeners of each event: functions of the types that the event's macro names. They are called on the thread that
// emits the event, without the lock.
class NoticeCenter {
public:
    static NoticeCenter &Instance() {
        static NoticeCenter *center = new NoticeCenter;
        return *center;
    }

    template <typename Listener>
    void addListener(void *tag, const std::string &event, Listener &&listener) {
        add(tag, event, &std::decay<Listener>::type::operator(), listener);
    }

    void delListener(void *tag, const std::string &event) {
        std::lock_guard<std::mutex> lock(_mutex);
        auto &listeners = _listeners[event];
        for (auto it = listeners.begin(); it != listeners.end();) {
            it = it->first == tag ? listeners.erase(it) : it + 1;
        }
    }

    template <typename... Types, typename... Args>
    void emit(const std::string &event, Args &&...args) {
        std::vector<std::pair<void *, std::shared_ptr<void>>> listeners;
        {
            std::lock_guard<std::mutex> lock(_mutex);
            listeners = _listeners[event];
        }
        for (const auto &listener : listeners) {
            (*static_cast<std::function<void(Types...)> *>(listener.second.get()))(args...);
        }
    }

private:
    template <typename Listener, typename... Types>
    void add(void *tag, const std::string &event, void (Listener::*)(Types...) const, const Listener &listener) {
        std::lock_guard<std::mutex> lock(_mutex);
        _listeners[event].emplace_back(tag, std::make_shared<std::function<void(Types...)>>(listener));
    }

    std::mutex _mutex;
    std::map<std::string, std::vector<std::pair<void *, std::shared_ptr<void>>>> _listeners;
};

template <typename Signature>
struct Emit;
template <typename... Types>
struct Emit<void(Types...)> {
    template <typename... Args>
    static void emit(const std::string &event, Args &&...args) {
        NoticeCenter::Instance().emit<Types...>(event, std::forward<Args>(args)...);
    }
};

} // namespace toolkit

#define NOTICE_EMIT(types, ...) ::toolkit::Emit<void(types)>::emit(__VA_ARGS__)

#endif
