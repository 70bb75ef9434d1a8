// One client's call: passes it to MediaServer's handler when its turn comes, waits for the reply and for the journal,
// and then sends the reply. Does not know what is journaled.
#ifndef ZLM_JOURNAL_CLIENT_CALL_H
#define ZLM_JOURNAL_CLIENT_CALL_H

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "Poller/EventPoller.h"
#include "api_calls.h"
#include "zlm_journal.h"

namespace zlm_journal {

class ClientCall : public std::enable_shared_from_this<ClientCall> {
public:
    using Ptr = std::shared_ptr<ClientCall>;

    ClientCall(const Invoker &client, const toolkit::EventPoller::Ptr &poller);

    // Takes over the call with all its arguments, on the poller of its connection. Returns false if the journal does
    // not want it; then nothing has happened. Returns true if it was or will be passed to the handler, or was refused.
    // Throws what the handler throws when it refuses at once.
    bool begin(
        const std::string &name, const std::vector<zlm_journal_pair> &args, const Handler &handler,
        const mediakit::Parser &parser, toolkit::SockInfo &sender);

private:
    // What a waiting call will be run with. Nothing else here holds the connection, which must be destroyed on its own
    // poller.
    struct Kept {
        Handler handler;
        mediakit::Parser parser;
        std::shared_ptr<toolkit::SocketHelper> sender;
    };

    void run(const Handler &handler, const mediakit::Parser &parser, toolkit::SockInfo &sender, bool settles);
    void runKept();
    void settleWhenAllPollersHaveTurned() const;
    // `reply` has the text of the answer, and the status and headers for the journal's reply.
    void answered(uint32_t outcome, int code, Reply reply);
    // Sends the reply to the client, on the poller of its connection.
    void send(const std::string &body);

    static void go(void *context);
    static void done(void *context, zlm_journal_text body, bool more);

    const Invoker _client;
    const toolkit::EventPoller::Ptr _poller;
    uint64_t _number = 0;
    std::unique_ptr<Kept> _kept;

    std::mutex _mutex;
    bool _is_answered = false;
    // By us or by others.
    bool _is_sent = false;
    // Status and headers.
    Reply _reply{std::string()};
};

// While it exists, proxies that this thread removes in MediaServer count as removed by that call.
class Scope {
public:
    explicit Scope(uint64_t call)
        : _before(slot()) {
        slot() = call;
    }
    ~Scope() { slot() = _before; }

    // The call of this thread, or 0.
    static uint64_t current() { return slot(); }

private:
    static uint64_t &slot() {
        thread_local uint64_t call = 0;
        return call;
    }

    const uint64_t _before;
};

} // namespace zlm_journal

#endif
