#include "client_call.h"

#include <exception>
#include <functional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "Util/logger.h"
#include "plugin.h"
#include "text.h"

using namespace toolkit;
using namespace mediakit;

namespace zlm_journal {

namespace {

// Replies that may leave, by poller. Replies of one commit cost each poller one wake-up, after the last of them:
// pollers have priority over other threads, so each wake-up interrupts the thread that causes it.
class Outbox {
public:
    // Queues `send` for a later turn of the poller; wake() has to follow.
    void put(const EventPoller::Ptr &poller, std::function<void()> send) {
        std::lock_guard<std::mutex> lock(_mutex);
        auto &sends = _sends[poller.get()];
        if (sends.empty()) {
            _asleep.push_back(poller);
        }
        sends.push_back(std::move(send));
    }

    // Wakes all pollers for which something was put.
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
    // Those with replies that have not been woken yet.
    std::vector<EventPoller::Ptr> _asleep;
};

Outbox &outbox() {
    static auto *outbox = new Outbox;
    return *outbox;
}

} // namespace

ClientCall::ClientCall(const Invoker &client, const EventPoller::Ptr &poller)
    : _client(client)
    , _poller(poller) {}

bool ClientCall::begin(
    const std::string &name, const std::vector<zlm_journal_pair> &args, const Handler &handler, const Parser &parser,
    SockInfo &sender) {
    const std::string caller = sender.get_peer_ip() + ":" + std::to_string(sender.get_peer_port());
    const zlm_journal_request request{sizeof request, textOf(name), args.data(), args.size(), textOf(caller)};
    auto *context = new Ptr(shared_from_this());
    const zlm_journal_client client{sizeof client, context, go, done};
    zlm_journal_verdict verdict{sizeof verdict, ZLM_JOURNAL_PASS, false, 0};
    if (zlm_journal_call_open(plugin().journal, &request, &client, &verdict) != 0) {
        ErrorL << "journal: " << name << " is not journaled: " << lastError();
    }
    _number = verdict.call;
    switch (verdict.verdict) {
        case ZLM_JOURNAL_GO: {
            try {
                run(handler, parser, sender, verdict.settles);
            } catch (const ApiRetException &) {
                // MediaServer replies.
                std::lock_guard<std::mutex> lock(_mutex);
                _is_sent = true;
                throw;
            }
            return true;
        }
        // `go` queues the handler on this poller, for a later turn.
        case ZLM_JOURNAL_WAIT:
            _kept.reset(new Kept{handler, parser, static_cast<SocketHelper &>(sender).shared_from_this()});
            return true;
        case ZLM_JOURNAL_REFUSE: return true;
        default: delete context; return false;
    }
}

void ClientCall::go(void *context) {
    const Ptr call = *static_cast<Ptr *>(context);
    call->_poller->async([call] { call->runKept(); }, false);
}

// Runs a handler as WebApi.cpp does, for a call that we took over.
void ClientCall::runKept() {
    const std::unique_ptr<Kept> kept = std::move(_kept);
    try {
        run(kept->handler, kept->parser, *kept->sender, false);
    } catch (ApiRetException &refused) {
        // Behind its reply.
        const auto sender = kept->sender;
        const std::string why = refused.what();
        outbox().put(_poller, [sender, why] { sender->shutdown(SockException(Err_shutdown, why)); });
        outbox().wake();
    }
}

void ClientCall::run(const Handler &handler, const Parser &parser, SockInfo &sender, bool settles) {
    const auto self = shared_from_this();
    // Held by every copy of the invoker that the handler gets. If the last copy is destroyed and none was called, the
    // server has dropped the call.
    const std::shared_ptr<void> held(
        nullptr, [self](void *) { self->answered(ZLM_JOURNAL_DROPPED, API::OtherFailed, Reply(std::string())); });
    try {
        const Scope scope(_number);
        const auto reply_to_us =
            captureReply([self, held](Reply reply) { self->answered(ZLM_JOURNAL_REPLIED, 0, std::move(reply)); });
        handler(parser, reply_to_us, sender);
    } catch (ApiRetException &refused) {
        // Because of its secret or missing arguments: nothing was done.
        answered(ZLM_JOURNAL_REFUSED, refused.code(), Reply(refused.what()));
        (void)zlm_journal_call_settled(plugin().journal, _number);
        throw;
    } catch (const std::exception &error) {
        answered(ZLM_JOURNAL_THREW, API::Exception, Reply(error.what()));
    }
    if (settles) {
        settleWhenAllPollersHaveTurned();
    }
}

// Tasks that a handler has queued on a poller run before tasks that are queued there afterwards.
void ClientCall::settleWhenAllPollersHaveTurned() const {
    const auto number = _number;
    const std::shared_ptr<void> last(
        nullptr, [number](void *) { (void)zlm_journal_call_settled(plugin().journal, number); });
    EventPollerPool::Instance().for_each([&last](const TaskExecutor::Ptr &poller) {
        auto mine = last;
        poller->async([mine]() mutable { mine.reset(); }, false);
    });
}

// The first answer counts.
void ClientCall::answered(uint32_t outcome, int code, Reply reply) {
    const std::string text = std::move(reply.body);
    {
        std::lock_guard<std::mutex> lock(_mutex);
        if (_is_answered) {
            return;
        }
        _is_answered = true;
        _reply = std::move(reply);
    }
    const zlm_journal_answer answer{sizeof answer, outcome, code, textOf(text)};
    if (zlm_journal_call_answered(plugin().journal, _number, &answer) != 0) {
        // The journal failed, or was closed and has reported that: send the server's own answer.
        const std::string body = outcome == ZLM_JOURNAL_REPLIED
            ? text
            : R"({"code":)" + std::to_string(code) + R"(,"msg":)" + Json::valueToQuotedString(text.c_str()) + "}";
        const auto self = shared_from_this();
        outbox().put(_poller, [self, body] { self->send(body); });
        outbox().wake();
    }
}

// On the journal's thread, or within any call of the C API.
void ClientCall::done(void *context, zlm_journal_text body, bool more) {
    auto *const call = static_cast<Ptr *>(context);
    try {
        // The call, and what the server has bound to its invoker, must be destroyed on the poller too.
        const std::string text = stringOf(body);
        outbox().put((*call)->_poller, [call, text] {
            const std::unique_ptr<Ptr> its(call);
            (*its)->send(text);
        });
    } catch (const std::exception &error) {
        ErrorL << "journal: a reply was lost: " << error.what();
    }
    if (!more) {
        outbox().wake();
    }
}

void ClientCall::send(const std::string &body) {
    Reply reply;
    {
        std::lock_guard<std::mutex> lock(_mutex);
        if (_is_sent) {
            return;
        }
        _is_sent = true;
        reply = std::move(_reply);
    }
    _client(reply.status, reply.headers, body);
}

} // namespace zlm_journal
