#include "api_calls.h"

#include <algorithm>
#include <stdexcept>

#include "Common/config.h"
#include "Http/HttpFileManager.h"
#include "Util/NoticeCenter.h"

using namespace toolkit;
using namespace mediakit;

namespace zlm_journal {

namespace {

// The caller of an in-process call.
class InProcessCaller : public SocketHelper {
public:
    using SocketHelper::SocketHelper;

    // No `override`: which get_peer_ip() the base class has depends on the version of ZLToolKit, and marking only some
    // functions is a warning.

    // An address that http.allow_ip_range allows, whatever that is.
    std::string get_peer_ip() const {
        // The last one that was allowed.
        thread_local std::string allowed = "127.0.0.1";
        if (HttpFileManager::isIPAllowed(allowed)) {
            return allowed;
        }
        // "a, b - c, …": the end of a range is allowed, unless the server cannot parse the range or it is empty.
        GET_CONFIG(std::string, ranges, "http.allow_ip_range");
        for (size_t at = 0; at < ranges.size();) {
            const size_t end = std::min(ranges.find_first_of(",-", at), ranges.size());
            const size_t from = ranges.find_first_not_of(" \t", at);
            if (from < end) {
                const std::string ip = ranges.substr(from, ranges.find_last_not_of(" \t", end - 1) + 1 - from);
                if (HttpFileManager::isIPAllowed(ip)) {
                    return allowed = ip;
                }
            }
            at = end + 1;
        }
        return "127.0.0.1";
    }
    std::string get_peer_ip() { return static_cast<const InProcessCaller *>(this)->get_peer_ip(); }

    // The socket is never connected, so it receives nothing.
    void onRecv(const Buffer::Ptr &) {}
    void onError(const SockException &) {}
    void onManager() {}
};

} // namespace

Reply::Reply(std::string body)
    : body(std::move(body)) {
    headers.emplace("Content-Type", "application/json; charset=utf-8");
}

Invoker captureReply(const std::function<void(Reply)> &done) {
    return HttpResponseInvokerImp::HttpResponseInvokerLambda0(
        [done](int status, const StrCaseMap &headers, const HttpBody::Ptr &body) {
            Reply reply;
            reply.status = status;
            reply.headers = headers;
            while (body && body->remainSize() > 0) {
                auto piece = body->readData(body->remainSize());
                if (!piece || piece->size() == 0) {
                    break;
                }
                reply.body.append(piece->data(), piece->size());
            }
            done(std::move(reply));
        });
}

ApiCalls::ApiCalls()
    : _caller(std::make_shared<InProcessCaller>(Socket::createSocket(EventPollerPool::Instance().getPoller(false)))) {}

bool ApiCalls::isOurs(SockInfo &sender) {
    return dynamic_cast<InProcessCaller *>(&sender) != nullptr;
}

bool ApiCalls::introduce(const std::string &name) {
    bool consumed = false;
    auto parser = request(name, "{}");
    auto invoker = captureReply([](const Reply &) {});
    NOTICE_EMIT(
        BroadcastHttpRequestArgs, Broadcast::kBroadcastHttpRequest, parser, invoker, consumed,
        static_cast<SockInfo &>(*_caller));
    return consumed;
}

void ApiCalls::learn(const Lookup &lookup) {
    std::call_once(_learned, [&] { _lookup = lookup; });
}

Parser ApiCalls::request(const std::string &name, const std::string &body) const {
    GET_CONFIG(std::string, secret, API::kSecret);
    const std::string secret_arg = "{\"secret\":" + Json::valueToQuotedString(secret.c_str());
    // `body` is "{}" or "{…}".
    const std::string content = secret_arg + (body.size() > 2 ? "," : "") + body.substr(1);
    const std::string text = "POST " + (kApiPrefix + name)
        + " HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(content.size()) + "\r\n\r\n"
        + content;
    Parser parser;
    parser.parse(text.data(), text.size());
    return parser;
}

void ApiCalls::dispatch(const std::string &name, const std::string &body, const Invoker &invoker) const {
    const Handler handler = _lookup ? _lookup(kApiPrefix + name) : Handler();
    if (!handler) {
        throw std::runtime_error("this server has no API " + name);
    }
    handler(request(name, body), invoker, *_caller);
}

bool ApiCalls::has(const std::string &name) const {
    return _lookup && _lookup(kApiPrefix + name);
}

} // namespace zlm_journal
