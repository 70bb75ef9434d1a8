// MediaServer's API, called from inside the process: requests are built, handed to the server's own handlers and
// their replies read, as if a client had sent them. Knows nothing of the journal.
#ifndef ZLM_JOURNAL_API_CALLS_H
#define ZLM_JOURNAL_API_CALLS_H

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "WebApi.h"
#include "zlm_journal_hooks.h"

namespace zlm_journal {

using Invoker = mediakit::HttpSession::HttpResponseInvoker;
using Headers = mediakit::HttpSession::KeyValue;

// A reply on its way to a client, held back.
struct Reply {
    int status = 200;
    Headers headers;
    std::string body;

    Reply() = default;
    // One of JSON.
    explicit Reply(std::string body);
};

// An invoker that hands over the whole reply, on whatever thread it comes.
Invoker captureReply(const std::function<void(Reply)> &done);

// Stands for the caller of an in-process call.
class InProcessCaller : public toolkit::SocketHelper {
public:
    using Ptr = std::shared_ptr<InProcessCaller>;

    static Ptr create();

    // None is marked `override`: which of the first two the base has depends on the version of ZLToolKit, and a mix of
    // marked and unmarked ones is a warning.

    // An address that http.allow_ip_range lets pass, whatever it is.
    std::string get_peer_ip() const;
    std::string get_peer_ip() { return static_cast<const InProcessCaller *>(this)->get_peer_ip(); }

    // A socket that is never connected receives nothing.
    void onRecv(const toolkit::Buffer::Ptr &) {}
    void onError(const toolkit::SockException &) {}
    void onManager() {}

private:
    using SocketHelper::SocketHelper;
};

// The dispatch table from inside.
class ApiCalls {
public:
    ApiCalls();

    // True for a call that an object of this class has made.
    static bool isOurs(toolkit::SockInfo &sender);

    // Sends the server one call, of the API `name`, through the same event that a client's call takes, so that it
    // passes by the hook on a poller thread. False where nobody handles API calls.
    bool introduce(const std::string &name);
    // The dispatch table as the hook sees it. To be told at every call, before any of the below; the first time counts.
    void learn(const Lookup &lookup);
    // Whether the server has an API of this name.
    bool has(const std::string &name) const;

    // Runs the handler of the API `name` on this thread with the arguments in `body`, one JSON object. Throws what the
    // handler throws, and std::runtime_error where there is no such API.
    void dispatch(const std::string &name, const std::string &body, const Invoker &invoker) const;

private:
    mediakit::Parser request(const std::string &name, const std::string &body) const;

    InProcessCaller::Ptr _caller;
    std::once_flag _learned;
    Lookup _lookup;
};

} // namespace zlm_journal

#endif
