// Which of the calls on one stream took effect last: what makes the journal end in the state that the server ended in
// when calls race. Knows nothing of HTTP, ZLMediaKit or the journal.
//
// A call takes effect while its handler runs, and may be answered much later (an add, after the first connect).
// Handlers of calls on one stream therefore run one at a time, under the stream's lock, and the journal is told under
// that same lock. An add remembers that it was the last to take effect; when its answer comes and a later call has
// taken effect meanwhile, it has nothing to say any more.
#ifndef ZLM_JOURNAL_CALL_ORDER_H
#define ZLM_JOURNAL_CALL_ORDER_H

#include <array>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

namespace zlm_journal {

// "app/stream" of a key "vhost/app/stream".
inline std::string streamOfKey(const std::string &key) {
    const auto slash = key.find('/');
    return slash == std::string::npos ? key : key.substr(slash + 1);
}

class CallOrder {
public:
    // Held for as long as a handler of MediaServer runs, never for a disk; and never waited for by one who holds a
    // lock of MediaServer's, whose handlers take theirs under this one.
    using Lock = std::unique_lock<std::mutex>;

    // Keeps every other call on the stream ("app/stream") out.
    Lock lock(const std::string &stream) { return Lock(stripeOf(stream).mutex); }

    // Keeps every call on any stream out.
    std::vector<Lock> lockAll() {
        std::vector<Lock> locks;
        for (auto &stripe : _stripes) {
            locks.emplace_back(stripe.mutex);
        }
        return locks;
    }

    // An unanswered add has taken effect. Under the stream's lock, as all below.
    void effective(const std::string &stream, const std::shared_ptr<void> &add) {
        stripeOf(stream).adds[stream] = add;
    }

    // True where nothing has taken effect since; the add is then forgotten.
    bool finish(const std::string &stream, const std::shared_ptr<void> &add) {
        auto &adds = stripeOf(stream).adds;
        auto it = adds.find(stream);
        if (it == adds.end() || it->second != add) {
            return false;
        }
        adds.erase(it);
        return true;
    }

    // A call that ends the stream's proxy has taken effect.
    void ended(const std::string &stream) { stripeOf(stream).adds.erase(stream); }

private:
    struct Stripe {
        std::mutex mutex;
        std::unordered_map<std::string, std::shared_ptr<void>> adds;
    };

    Stripe &stripeOf(const std::string &stream) {
        return _stripes[std::hash<std::string>()(stream) % _stripes.size()];
    }

    std::array<Stripe, 32> _stripes;
};

} // namespace zlm_journal

#endif
