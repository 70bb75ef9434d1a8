#include "client_call.h"

#include <exception>
#include <functional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "Util/logger.h"
#include "text.h"

using namespace toolkit;
using namespace mediakit;

namespace zlm_journal {

namespace {

thread_local uint64_t t_call = 0;

// Replies that may leave, by the poller that they leave on. Acknowledged together, they cost each poller one wake-up, after
// the last: pollers come before other threads, so that each wake-up interrupts whoever causes it.
class Outbox {
public:
    // Not the caller does the work, but the poller, in a turn of its own, once it is woken.
    void put(const EventPoller::Ptr &poller, std::function<void()> send) {
        std::lock_guard<std::mutex> lock(_mutex);
        auto &sends = _sends[poller.get()];
        if (sends.empty()) {
            _asleep.push_back(poller);
        }
        sends.push_back(std::move(send));
    }

    // All pollers for which something was put.
    void wake() {
        std::vector<EventPoller::Ptr> asleep;
        {
            std::lock_guard<std::mutex> lock(_mutex);
            asleep.swap(_asleep);
        }
        for (const auto &poller : asleep) {
            auto *const key = poller.get();
            poller->async([this, key] { flush(key); }, false);
        }
    }

private:
    void flush(EventPoller *poller) {
        std::vector<std::function<void()>> sends;
        {
            std::lock_guard<std::mutex> lock(_mutex);
            sends.swap(_sends[poller]);
        }
        for (const auto &send : sends) {
            try {
                send();
            } catch (const std::exception &error) {
                ErrorL << "journal: a reply was lost: " << error.what();
            }
        }
    }

    std::mutex _mutex;
    // Pollers live as long as the process.
    std::unordered_map<EventPoller *, std::vector<std::function<void()>>> _sends;
    // Those with replies, which nobody has woken for them yet.
    std::vector<EventPoller::Ptr> _asleep;
};

Outbox &outbox() {
    static auto *outbox = new Outbox;
    return *outbox;
}

std::string quoted(const std::string &text) {
    return Json::valueToQuotedString(text.c_str());
}

// `body` is the text of a JSON object: the same with one more member. Nothing is written anew: replies are many.
std::string withMember(const std::string &body, const std::string &name, const std::string &value) {
    const auto end = body.rfind('}');
    auto last = end == std::string::npos || end == 0 ? std::string::npos : body.find_last_not_of(" \t\r\n", end - 1);
    if (last == std::string::npos) {
        return body;
    }
    const bool is_empty = body[last] == '{';
    return body.substr(0, last + 1) + (is_empty ? "" : ",") + "\n\t" + quoted(name) + " : " + value + "\n}\n";
}

// What a reply says of the journal.
std::string journalMember(uint64_t seq, bool is_there, const std::string &error) {
    return "{ \"seq\" : " + std::to_string(seq) + ", \"persisted\" : " + (is_there ? "true" : "false")
        + (!error.empty() ? ", \"error\" : " + quoted(error)
               : is_there ? ""
                          : ", \"pending\" : true")
        + " }";
}

} // namespace

Scope::Scope(uint64_t call)
    : _before(t_call) {
    t_call = call;
}

Scope::~Scope() {
    t_call = _before;
}

uint64_t Scope::current() {
    return t_call;
}

// Held by every copy of the invoker that a handler was given: when the last one is gone and none was called, the server
// has dropped the call.
struct ClientCall::Answer {
    explicit Answer(ClientCall::Ptr call)
        : call(std::move(call)) {}
    ~Answer() { call->answered(nullptr); }

    const ClientCall::Ptr call;
};

ClientCall::ClientCall(zlm_journal_handle journal, const Invoker &client, const EventPoller::Ptr &poller, bool closes)
    : _journal(journal)
    , _client(client)
    , _poller(poller)
    , _closes(closes) {}

Reply ClientCall::refusal(const std::string &why) {
    return Reply(-1, "journal: " + why); // API::OtherFailed
}

bool ClientCall::begin(
    const std::string &name, const std::vector<zlm_journal_pair> &args, const Handler &handler, const Parser &parser,
    SockInfo &sender) {
    const std::string caller = sender.get_peer_ip() + ":" + std::to_string(sender.get_peer_port());
    const zlm_journal_request request{textOf(name), args.data(), args.size(), textOf(caller)};
    auto *context = new Ptr(shared_from_this());
    const zlm_journal_client client{context, go, done};
    uint32_t verdict = ZLM_JOURNAL_PASS;
    const int code = zlm_journal_call_open(_journal, &request, &client, &_number, &verdict);
    if (code == 0 && verdict != ZLM_JOURNAL_PASS) {
        if (verdict == ZLM_JOURNAL_GO) {
            run(handler, parser, sender);
        } else {
            // Whoever tells it to go queues that on this poller, for a later turn.
            _kept.reset(new Kept{handler, parser, static_cast<SocketHelper &>(sender).shared_from_this()});
        }
        return true;
    }
    delete context;
    if (code == 0) {
        return false;
    }
    const std::string error = lastError();
    if (code == ZLM_JOURNAL_CODE_CLOSED || code == ZLM_JOURNAL_CODE_INVALID_HANDLE || code == ZLM_JOURNAL_CODE_PANIC) {
        // The call is carried out all the same, and is told that it is not on disk.
        ErrorL << "journal: " << name << " is not journaled: " << error;
        run(handler, parser, sender);
    } else {
        reply(refusal(error));
    }
    return true;
}

void ClientCall::go(void *context) {
    const Ptr call = *static_cast<Ptr *>(context);
    call->_poller->async([call] { call->runKept(); }, false);
}

// As WebApi.cpp runs a handler, for a call that it has handed over to us.
void ClientCall::runKept() {
    const std::unique_ptr<Kept> kept = std::move(_kept);
    try {
        run(kept->handler, kept->parser, *kept->sender);
    } catch (ApiRetException &refused) {
        reply(Reply(refused.code(), refused.what()));
        const auto sender = kept->sender;
        const std::string why = refused.what();
        _poller->async([sender, why] { sender->shutdown(SockException(Err_shutdown, why)); }, false);
    }
}

void ClientCall::run(const Handler &handler, const Parser &parser, SockInfo &sender) {
    const auto answer = std::make_shared<Answer>(shared_from_this());
    try {
        const Scope scope(_number);
        handler(
            parser, captureReply([answer](Reply reply) {
                answer->call->answered(std::unique_ptr<Reply>(new Reply(std::move(reply))));
            }),
            sender);
    } catch (const ApiRetException &) {
        // Nothing was done: it is refused for its secret or for what it lacks, or its stream is not there.
        {
            std::lock_guard<std::mutex> lock(_mutex);
            _is_thrown = true;
        }
        answered(nullptr);
        (void)zlm_journal_call_settled(_journal, _number);
        throw;
    } catch (const std::exception &error) {
        // It may have done half of it, so its reply waits for the disk as any other.
        answered(std::unique_ptr<Reply>(new Reply(-400, error.what()))); // API::Exception
    }
    if (_closes) {
        settleWhenAllPollersHaveTurned();
    }
}

// What a handler has queued on a poller runs before what is queued there after it.
void ClientCall::settleWhenAllPollersHaveTurned() const {
    const auto journal = _journal;
    const auto number = _number;
    const std::shared_ptr<void> last(
        nullptr, [journal, number](void *) { (void)zlm_journal_call_settled(journal, number); });
    EventPollerPool::Instance().for_each([&last](const TaskExecutor::Ptr &poller) {
        auto mine = last;
        poller->async([mine]() mutable { mine.reset(); }, false);
    });
}

// The server's reply, or none where there will be none. The first counts.
void ClientCall::answered(std::unique_ptr<Reply> reply) {
    const bool success = reply && reply->code() == 0;
    {
        std::lock_guard<std::mutex> lock(_mutex);
        if (_is_answered) {
            return;
        }
        _is_answered = true;
        _reply = std::move(reply);
    }
    if (_number == 0 || zlm_journal_call_answered(_journal, _number, success) != 0) {
        {
            std::lock_guard<std::mutex> lock(_mutex);
            _journal_member = journalMember(0, false, "the journal is closed: the server is stopping");
        }
        const auto self = shared_from_this();
        outbox().put(_poller, [self] { self->send(); });
        outbox().wake();
    }
}

// On the journal's thread, or within any call of it.
void ClientCall::done(void *context, const zlm_journal_ack *ack) {
    auto *const call = static_cast<Ptr *>(context);
    try {
        (*call)->take(*ack);
        // The call, and what the server has bound to its invoker, end on the poller as well.
        outbox().put((*call)->_poller, [call] {
            const std::unique_ptr<Ptr> its(call);
            (*its)->send();
        });
    } catch (const std::exception &error) {
        ErrorL << "journal: a reply was lost: " << error.what();
    }
    if (!ack->more) {
        outbox().wake();
    }
}

void ClientCall::take(const zlm_journal_ack &ack) {
    const std::string error(ack.error.data ? ack.error.data : "", ack.error.len);
    std::lock_guard<std::mutex> lock(_mutex);
    if (ack.undone) {
        _undone = error;
    }
    if (ack.is_journaled) {
        _journal_member = journalMember(ack.seq, ack.persisted == ZLM_JOURNAL_PERSISTED, error);
    }
}

void ClientCall::send() {
    std::unique_ptr<Reply> its;
    std::string member, undone;
    {
        std::lock_guard<std::mutex> lock(_mutex);
        if (_is_sent || _is_thrown) {
            return;
        }
        _is_sent = true;
        its = std::move(_reply);
        member = _journal_member;
        undone = _undone;
    }
    if (!its) {
        its.reset(new Reply(refusal("the server has dropped this call, or stops, without an answer to it")));
    }
    if (!undone.empty()) {
        its->body = refusal(undone).body;
    }
    if (!member.empty()) {
        its->body = withMember(its->body, "journal", member);
    }
    reply(*its);
}

void ClientCall::reply(const Reply &reply) const {
    _client(reply.status, reply.headers, reply.body);
}

} // namespace zlm_journal
