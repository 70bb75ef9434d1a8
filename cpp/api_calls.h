// Calls of MediaServer's API from inside the process: builds requests, passes them to the server's own handlers and
// reads the replies, as if a client had sent them. Knows nothing of the journal.
#ifndef ZLM_JOURNAL_API_CALLS_H
#define ZLM_JOURNAL_API_CALLS_H

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "WebApi.h"
#include "zlm_journal_hooks.h"

namespace zlm_journal {

using Invoker = mediakit::HttpSession::HttpResponseInvoker;
using Headers = mediakit::HttpSession::KeyValue;

// The paths of all API calls begin with it.
const char kApiPrefix[] = "/index/api/";

// A reply that is held back from its client.
struct Reply {
    int status = 200;
    Headers headers;
    std::string body;

    Reply() = default;
    // A JSON reply.
    explicit Reply(std::string body);
};

// An invoker that passes on the whole reply, on the thread on which it comes.
Invoker captureReply(const std::function<void(Reply)> &done);

// Calls through the server's dispatch table.
class ApiCalls {
public:
    ApiCalls();

    // Whether an object of this class made the call.
    static bool isOurs(toolkit::SockInfo &sender);

    // Calls the API `name` through the event that clients' calls take, so that the hook sees it on a poller thread.
    // False if nothing handles API calls.
    bool introduce(const std::string &name);
    // Takes the dispatch table from the hook. Call it at every API call, before the functions below; only the first has
    // an effect.
    void learn(const Lookup &lookup);
    bool has(const std::string &name) const;

    // Runs the handler of the API `name` on this thread. `body` has the arguments, one JSON object. Throws what the
    // handler throws, and std::runtime_error if there is no such API.
    void dispatch(const std::string &name, const std::string &body, const Invoker &invoker) const;

private:
    mediakit::Parser request(const std::string &name, const std::string &body) const;

    const std::shared_ptr<toolkit::SocketHelper> _caller;
    std::once_flag _learned;
    Lookup _lookup;
};

} // namespace zlm_journal

#endif
