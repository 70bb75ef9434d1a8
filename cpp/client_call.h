// One client's call on its way through: it waits for the server's reply and for the journal's acknowledgements, in
// whatever order and on whatever threads they come, and then sends the reply on. Knows nothing of what is journaled.
#ifndef ZLM_JOURNAL_CLIENT_CALL_H
#define ZLM_JOURNAL_CLIENT_CALL_H

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "Poller/EventPoller.h"
#include "api_calls.h"
#include "zlm_journal.h"

namespace zlm_journal {

struct ClientCall : std::enable_shared_from_this<ClientCall> {
    ClientCall(const mediakit::Parser &parser, const Invoker &invoker, toolkit::SockInfo &sender, std::string name)
        : client(invoker)
        , poller(toolkit::EventPollerPool::Instance().getPoller())
        , origin(sender.get_peer_ip() + ":" + std::to_string(sender.get_peer_port()))
        , reason(std::move(name)) {
        for (const auto &arg : getAllArgs(parser)) {
            args[arg.first] = arg.second;
        }
    }

    std::string arg(const std::string &name) const {
        auto it = args.find(name);
        return it == args.end() ? std::string() : it->second;
    }

    // Takes the server's reply instead of the client. Called from within whatever locks the server holds, so what
    // follows from a late reply is done in a turn of its own.
    void replied(Reply its) {
        std::lock_guard<std::mutex> lock(mutex);
        if (reply) {
            return; // there is but one
        }
        reply = std::make_shared<Reply>(std::move(its));
        answered_by = std::this_thread::get_id();
        if (late) {
            poller->async(std::move(late), false);
        }
    }

    // The reply, or none; then `then` is run on the call's poller once it is there.
    std::shared_ptr<Reply> replyOr(std::function<void()> then) {
        std::lock_guard<std::mutex> lock(mutex);
        if (!reply) {
            late = std::move(then);
        }
        return reply;
    }

    // Expects one more change to be acknowledged before the reply may leave.
    void expect() {
        std::lock_guard<std::mutex> lock(mutex);
        ++outstanding;
        recorded = true;
    }

    void acknowledged(const zlm_journal_ack &ack) {
        {
            std::lock_guard<std::mutex> lock(mutex);
            --outstanding;
            seq = ack.seq > seq ? ack.seq : seq;
            soon = soon || ack.persisted == ZLM_JOURNAL_PERSISTED_SOON;
            if (ack.persisted == ZLM_JOURNAL_NOT_PERSISTED) {
                error = std::string(ack.error.data, ack.error.len);
            }
            undone = undone || ack.undone;
        }
        sendIfComplete();
    }

    // What a client is told of a call that does not count, in the words of MediaServer's own refusals.
    static Json::Value refusal(const std::string &why) {
        Json::Value root(Json::objectValue);
        root["code"] = -1; // API::OtherFailed
        root["msg"] = "journal: " + why;
        return root;
    }

    // Refuses the call before the server has seen it.
    void refuse(const std::string &why) const {
        Headers headers;
        headers.emplace("Content-Type", "application/json; charset=utf-8");
        client(200, headers, refusal(why).toStyledString());
    }

    // No more change will be expected.
    void complete() {
        {
            std::lock_guard<std::mutex> lock(mutex);
            completed = true;
        }
        sendIfComplete();
    }

    // Lets the reply go once the server has given it and the journal has answered for all of it. On the poller of the
    // call and in a turn of its own: no thread that only told us something spends time on it, no lock is held.
    void sendIfComplete() {
        {
            std::lock_guard<std::mutex> lock(mutex);
            if (!reply || !completed || outstanding > 0 || sent) {
                return;
            }
            sent = true;
        }
        auto self = shared_from_this();
        poller->async([self] { self->send(); }, false);
    }

    void send() {
        std::string body = reply->body;
        Json::Value &root = reply->json;
        if (undone) {
            root = refusal(error);
        }
        if ((recorded || !error.empty()) && root.isObject()) {
            Json::Value journal;
            journal["seq"] = static_cast<Json::UInt64>(seq);
            journal["persisted"] = error.empty() && !soon;
            if (!error.empty()) {
                journal["error"] = error;
            } else if (soon) {
                journal["pending"] = true;
            }
            root["journal"] = journal;
            body = root.toStyledString();
        }
        client(reply->status, reply->headers, body);
    }

    const Invoker client;
    const toolkit::EventPoller::Ptr poller;
    const std::string origin;
    const std::string reason;
    std::map<std::string, std::string, mediakit::StrCaseCompare> args;

    std::mutex mutex;
    std::shared_ptr<Reply> reply;
    std::thread::id answered_by;
    std::function<void()> late;
    int outstanding = 0;
    bool recorded = false;
    bool completed = false;
    bool sent = false;
    bool soon = false;
    bool undone = false;
    uint64_t seq = 0;
    std::string error;
};

} // namespace zlm_journal

#endif
