// One client's call on its way through: it is handed to MediaServer's handler when its turn comes, waits for the reply
// and for the journal's word on it, and then sends the reply on. Knows nothing of what is journaled.
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

    // `closes`: its handler leaves work on other pollers, which its reply does not wait for.
    ClientCall(zlm_journal_handle journal, const Invoker &client, const toolkit::EventPoller::Ptr &poller, bool closes);

    // Takes the call in, with all that its handler finds, on the poller of its connection. False where it is none of the
    // journal's; then nothing has happened. True: it was handed to the handler, or will be, or was refused. What the handler
    // refuses at once is thrown, as it would be without us.
    bool begin(
        const std::string &name, const std::vector<zlm_journal_pair> &args, const Handler &handler,
        const mediakit::Parser &parser, toolkit::SockInfo &sender);

    // What a client is told of a call that does not count, in the words of MediaServer's own refusals.
    static Reply refusal(const std::string &why);

private:
    struct Answer;
    // What a call that waits for its turn will be run with. A connection is to end on its own poller: nothing else here
    // holds it.
    struct Kept {
        Handler handler;
        mediakit::Parser parser;
        std::shared_ptr<toolkit::SocketHelper> sender;
    };

    void run(const Handler &handler, const mediakit::Parser &parser, toolkit::SockInfo &sender);
    void runKept();
    void settleWhenAllPollersHaveTurned() const;
    void answered(std::unique_ptr<Reply> reply);
    void send();
    // To the client, on the poller of its connection.
    void reply(const Reply &reply) const;

    void take(const zlm_journal_ack &ack);

    static void go(void *context);
    static void done(void *context, const zlm_journal_ack *ack);

    const zlm_journal_handle _journal;
    const Invoker _client;
    const toolkit::EventPoller::Ptr _poller;
    const bool _closes;
    uint64_t _number = 0;
    std::unique_ptr<Kept> _kept;

    std::mutex _mutex;
    bool _is_answered = false;
    // Somebody else answers the client.
    bool _is_thrown = false;
    bool _is_sent = false;
    std::unique_ptr<Reply> _reply;
    // What the reply says of the journal, as JSON; nothing where it says nothing.
    std::string _journal_member;
    // Not empty: on_error=reject, and this is why.
    std::string _undone;
};

// While it lives, what this thread ends in MediaServer is the doing of that call.
class Scope {
public:
    explicit Scope(uint64_t call);
    ~Scope();
    // The call of this thread, 0 where there is none.
    static uint64_t current();

private:
    const uint64_t _before;
};

} // namespace zlm_journal

#endif
