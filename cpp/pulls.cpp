#include "pulls.h"

#include <mutex>
#include <type_traits>
#include <unordered_map>
#include <utility>

using namespace toolkit;
using namespace mediakit;

namespace zlm_journal {
namespace pulls {

namespace {

struct Pull {
    std::weak_ptr<PlayerProxy> proxy;
    EventPoller::Ptr poller;
};

struct Running {
    std::mutex mutex;
    std::unordered_map<std::string, Pull> pulls;
};

// Never destroyed: pollers outlive main().
Running &running() {
    static auto *running = new Running;
    return *running;
}

// Without PlayerProxy::update (8.0).
template <typename Pull, typename = void>
struct Updater {
    static const bool kCan = false;
    static void update(Pull &, const std::string &, const mINI &, const std::function<void()> &) {}
};

template <typename Pull>
struct Updater<Pull, decltype(std::declval<Pull &>().update(std::string(), mINI()))> {
    static const bool kCan = true;

    // What is told when the connection ends is protected.
    struct Access : Pull {
        static void lost(Pull &pull, const SockException &why) { (pull.*(&Access::onShutdown))(why); }
    };

    static void update(Pull &pull, const std::string &url, const mINI &args, const std::function<void()> &updated) {
        pull.update(url, args);
        // A connection that plays ends as if it was lost, so that its tracks leave the muxer. That is not an error. One
        // that has no result yet gets one, which is: whoever waits for it is answered. Both let the pull try again after
        // its usual pause, unless it has connected before: a connect that takes longer is then begun again.
        const auto status = pull.getStatusStr();
        if (status == "playing") {
            Access::lost(pull, SockException());
        } else if (status == "connecting") {
            Access::lost(pull, SockException(Err_shutdown, "its arguments were changed"));
        }
        updated();
    }
};

} // namespace

bool canUpdate() {
    return Updater<PlayerProxy>::kCan;
}

void entered(const std::string &key, PlayerProxy &pull) {
    std::lock_guard<std::mutex> lock(running().mutex);
    running().pulls[key] = Pull{pull.shared_from_this(), pull.getPoller()};
}

void left(const std::string &key) {
    std::lock_guard<std::mutex> lock(running().mutex);
    running().pulls.erase(key);
}

std::shared_ptr<PlayerProxy> find(const std::string &key) {
    std::lock_guard<std::mutex> lock(running().mutex);
    const auto it = running().pulls.find(key);
    const bool is_here = it != running().pulls.end() && it->second.poller->isCurrentThread();
    return is_here ? it->second.proxy.lock() : nullptr;
}

EventPoller::Ptr pollerOf(const std::string &key) {
    std::lock_guard<std::mutex> lock(running().mutex);
    const auto it = running().pulls.find(key);
    return it == running().pulls.end() ? nullptr : it->second.poller;
}

void update(
    const std::shared_ptr<PlayerProxy> &pull, const std::string &url, const mINI &args,
    const std::function<void()> &updated, const std::function<void(const SockException &)> &connected) {
    Updater<PlayerProxy>::update(*pull, url, args, updated);
    pull->setPlayCallbackOnce(connected);
    pull->play(url);
}

} // namespace pulls
} // namespace zlm_journal
