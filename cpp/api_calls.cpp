#include "api_calls.h"

#include <atomic>
#include <chrono>
#include <future>
#include <stdexcept>

#include "Common/config.h"
#include "Util/NoticeCenter.h"

using namespace toolkit;
using namespace mediakit;

namespace zlm_journal {

namespace {

const char kPrefix[] = "/index/api/";
const int kException = -400;

} // namespace

Json::Value parseObject(const std::string &text) {
    static const Json::CharReaderBuilder builder;
    std::unique_ptr<Json::CharReader> reader(builder.newCharReader());
    Json::Value root;
    std::string errors;
    const bool good = reader->parse(text.data(), text.data() + text.size(), &root, &errors);
    return good && root.isObject() ? root : Json::Value();
}

int Reply::code() const {
    return json.isObject() && json["code"].isInt() ? json["code"].asInt() : kException;
}

std::string Reply::message() const {
    return json.isObject() && json["msg"].isString() ? json["msg"].asString() : std::string();
}

Invoker captureReply(std::function<void(Reply)> done) {
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
            reply.json = parseObject(reply.body);
            done(std::move(reply));
        });
}

InProcessCaller::Ptr InProcessCaller::create() {
    return Ptr(new InProcessCaller(Socket::createSocket(EventPollerPool::Instance().getPoller(false))));
}

std::string InProcessCaller::get_peer_ip() const {
    // "a,b-c,…": no check of the list can refuse its own first address.
    GET_CONFIG(std::string, ranges, "http.allow_ip_range");
    const std::string first = ranges.substr(0, ranges.find_first_of(",-"));
    return first.empty() ? "127.0.0.1" : first;
}

ApiCalls::ApiCalls()
    : _caller(InProcessCaller::create()) {}

bool ApiCalls::isOurs(SockInfo &sender) {
    return dynamic_cast<InProcessCaller *>(&sender) != nullptr;
}

bool ApiCalls::introduce(const std::string &name) {
    bool consumed = false;
    auto parser = request(name, "{}");
    auto invoker = captureReply([](Reply) {});
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
    const std::string text = "POST " + (kPrefix + name)
        + " HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(content.size())
        + "\r\n\r\n" + content;
    Parser parser;
    parser.parse(text.data(), text.size());
    return parser;
}

void ApiCalls::dispatch(const std::string &name, const std::string &body, const Invoker &invoker) const {
    const Handler handler = _lookup ? _lookup(kPrefix + name) : Handler();
    if (!handler) {
        throw std::runtime_error("this server has no API " + name);
    }
    handler(request(name, body), invoker, *_caller);
}

bool ApiCalls::exists(const std::string &find, const std::string &key) const {
    Json::Value args;
    args["key"] = key;
    Json::StreamWriterBuilder builder;
    builder["indentation"] = "";
    auto code = std::make_shared<std::atomic<int>>(0);
    try {
        dispatch(find, Json::writeString(builder, args), captureReply([code](Reply reply) { *code = reply.code(); }));
    } catch (const std::exception &) {
        return false;
    }
    return *code == 0;
}

Json::Value ApiCalls::list(const std::string &list) const {
    auto replied = std::make_shared<std::promise<Reply>>();
    auto reply = replied->get_future();
    dispatch(list, "{}", captureReply([replied](Reply reply) { replied->set_value(std::move(reply)); }));
    if (reply.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
        throw std::runtime_error(list + " did not answer at once");
    }
    Reply list_reply = reply.get();
    if (list_reply.code() != 0) {
        throw std::runtime_error(list + " failed: " + list_reply.message());
    }
    return std::move(list_reply.json["data"]);
}

std::vector<std::string> ApiCalls::keys(const std::string &list) const {
    std::vector<std::string> keys;
    for (const auto &item : this->list(list)) {
        if (item.isObject() && item["key"].isString()) {
            keys.push_back(item["key"].asString());
        }
    }
    return keys;
}

} // namespace zlm_journal
