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

    ClientCall(zlm_journal_handle journal, const Invoker &client, const toolkit::EventPoller::Ptr &poller);

    // Takes the call in, with all that its handler finds, on the poller of its connection. False where it is none of the
    // journal's; then nothing has happened. True: it was handed to the handler, or will be, or was refused. What the handler
    // refuses at once is thrown, as it would be without us.
    bool begin(
        const std::string &name, const std::vector<zlm_journal_pair> &args, const Handler &handler,
        const mediakit::Parser &parser, toolkit::SockInfo &sender);

private:
    struct Answer;
    // What a call that waits for its turn will be run with. A connection is to end on its own poller: nothing else here
    // holds it.
    struct Kept {
        Handler handler;
        mediakit::Parser parser;
        std::shared_ptr<toolkit::SocketHelper> sender;
    };

    void run(const Handler &handler, const mediakit::Parser &parser, toolkit::SockInfo &sender, bool settles);
    void runKept();
    void settleWhenAllPollersHaveTurned() const;
    // `reply` has the text of the answer, and the status and headers that the journal's reply is sent with.
    void answered(uint32_t outcome, int code, Reply reply);
    // To the client, on the poller of its connection.
    void send(const std::string &body);

    static void go(void *context);
    static void done(void *context, zlm_journal_text body, bool more);

    const zlm_journal_handle _journal;
    const Invoker _client;
    const toolkit::EventPoller::Ptr _poller;
    uint64_t _number = 0;
    std::unique_ptr<Kept> _kept;

    std::mutex _mutex;
    bool _is_answered = false;
    // By us or by somebody else.
    bool _is_sent = false;
    // Status and headers.
    Reply _reply{std::string()};
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
