// The plugin's part that watches clients' calls go by: those that make and end proxies are journaled, and those of the
// journal's own are carried out.
#include <exception>
#include <set>
#include <thread>
#include <utility>

#include "Common/MediaSource.h"
#include "Common/config.h"
#include "Poller/EventPoller.h"
#include "Util/logger.h"
#include "Util/util.h"
#include "plugin.h"
#include "rust/cxx.h"
#include "text.h"
#include "zlm-journal/src/ffi/bridge.rs.h"

using namespace toolkit;
using namespace mediakit;

namespace zlm_journal {

namespace {

const std::string kDefaultVhost = "__defaultVhost__";

// Longer bodies have items, and no arguments.
const size_t kMostArgBytes = 4096;

// MediaServer looks into any body for arguments, on the poller. Of the calls that take a body those are in the URL, so it
// need not see 10,000 items.
Parser withoutItems(const Parser &parser) {
    Parser without = parser;
    if (without.content().size() > kMostArgBytes || without.content()[0] == '[') {
        without.setContent("{}");
    }
    return without;
}

// The request whose handler runs on this thread, where it is one of our own API calls: the handler sees arguments alone,
// and we need the body.
struct RequestAtHand;
thread_local const RequestAtHand *t_request = nullptr;

struct RequestAtHand {
    explicit RequestAtHand(const Parser &parser)
        : args(withoutItems(parser))
        , body(parser.content()) {
        t_request = this;
    }
    ~RequestAtHand() { t_request = nullptr; }

    const Parser args;
    const std::string &body;
};

// The dispatch table does not tell upper from lower case.
bool isSame(const std::string &a, const std::string &b) {
    return strcasecmp(a.c_str(), b.c_str()) == 0;
}

std::string apiName(const Parser &parser) {
    static const std::string prefix = "/index/api/";
    const std::string path = parser.url();
    return isSame(path.substr(0, prefix.size()), prefix) ? path.substr(prefix.size()) : std::string();
}

} // namespace

struct Plugin::Add : ClientCall {
    using ClientCall::ClientCall;

    // All under the stream's lock.
    std::string stream;
    bool took_effect = false;
    // The server had the proxy already.
    bool again = false;
};

bool Plugin::intercept(
    const Lookup &lookup, const Handler &handler, const Parser &parser, const Invoker &invoker, SockInfo &sender) {
    if (!_api) {
        return false;
    }
    _api->learn(lookup, _kinds);
    const std::string name = apiName(parser);
    if (_operations.count(name)) {
        const RequestAtHand at_hand(parser);
        handler(at_hand.args, invoker, sender);
        return true;
    }
    if (ApiCalls::isOurs(sender)) {
        // What restore() has sent: everything is in place now.
        const zlm_journal_host host{this, hostAdd, hostRemove, hostList};
        if (zlm_journal_start(_journal, &host) != 0) {
            ErrorL << "journal: no restore: " << lastError();
        }
        return false;
    }
    const bool closes = isSame(name, "close_stream") || isSame(name, "close_streams");
    for (const auto &kind : _kinds) {
        const bool adds = isSame(name, kind.add), removes = isSame(name, kind.remove);
        if (!kind.is_supported || (!adds && !removes && !closes)) {
            continue;
        }
        const auto call = adds ? std::make_shared<Add>(parser, invoker, sender, name)
                               : std::make_shared<ClientCall>(parser, invoker, sender, name);
        if (zlm_journal_admit(_journal) != 0) {
            call->refuse(lastError());
        } else if (adds) {
            onAdd(kind, std::static_pointer_cast<Add>(call), handler, parser, sender);
        } else if (removes) {
            onRemove(kind, call, handler, parser, sender);
        } else {
            onClose(call, handler, parser, sender);
        }
        return true;
    }
    return false;
}

void Plugin::onAdd(
    const Kind &kind, const std::shared_ptr<Add> &add, const Handler &handler, const Parser &parser,
    SockInfo &sender) {
    const std::string key = kind.keyOf([&add](const std::string &name) { return add->arg(name); });
    add->stream = streamOfKey(key);
    const std::string force = add->arg("force");
    const bool forced = !force.empty() && force != "0" && force != "false";

    auto lock = _order.lock(add->stream);
    add->again = kind.again_is_success && _api->exists(kind, key);
    handler(parser, captureReply([add](Reply reply) { add->replied(std::move(reply)); }), sender);
    const auto reply = add->replyOr([this, &kind, add] {
        auto lock = _order.lock(add->stream);
        settle(kind, add);
    });

    // The server refuses a call from within its handler; whatever it answers later or from another thread is about
    // the first connect of a proxy that it has taken into its map.
    const bool refused = reply && reply->code() != 0 && add->answered_by == std::this_thread::get_id();
    if (!refused && !add->again) {
        add->took_effect = true;
        _order.effective(add->stream, add);
        // A forced proxy stays whatever becomes of that connect, so it is journaled now; any other once it plays.
        if (forced) {
            record(add, ZLM_JOURNAL_ADD, kind, key);
        }
    }
    if (reply) {
        settle(kind, add);
    }
}

// The server has answered. Under the stream's lock.
void Plugin::settle(const Kind &kind, const std::shared_ptr<Add> &add) {
    const bool is_last = add->again || (add->took_effect && _order.finish(add->stream, add));
    if (!add->recorded && add->reply->code() == 0) {
        const Json::Value key = add->reply->json["data"]["key"];
        if (is_last && key.isString()) {
            record(add, add->again ? ZLM_JOURNAL_ADD_AGAIN : ZLM_JOURNAL_ADD, kind, key.asString());
        } else {
            add->error = is_last ? "the server named no key" : "another call ended or replaced it before this answer";
        }
    }
    add->complete();
}

void Plugin::onRemove(
    const Kind &kind, const std::shared_ptr<ClientCall> &call, const Handler &handler, const Parser &parser,
    SockInfo &sender) {
    const std::string key = call->arg("key");
    const auto settle = [this, &kind, call, key] {
        if (call->reply->code() == 0) {
            // Also where the server had no such proxy: one that it has lost is not wanted any more either.
            ends(call, Proxy(&kind, key));
        }
        call->complete();
    };
    auto lock = _order.lock(streamOfKey(key));
    handler(parser, captureReply([call](Reply reply) { call->replied(std::move(reply)); }), sender);
    const auto reply = call->replyOr([this, key, settle] {
        auto lock = _order.lock(streamOfKey(key));
        settle();
    });
    if (reply) {
        settle();
    }
}

// What the server has of a kind; nothing where it does not say.
std::vector<Json::Value> Plugin::listed(const Kind &kind) const {
    try {
        return _api->list(kind);
    } catch (const std::exception &error) {
        ErrorL << "journal: " << error.what();
        return {};
    }
}

// The proxies that a close call can mean, each with its stream.
std::map<Plugin::Proxy, std::string> Plugin::proxiesMeant(
    const ClientCall &call, const std::set<std::string> &sources) const {
    const std::string vhost = call.arg("vhost"), app = call.arg("app"), stream = call.arg("stream");
    const bool is_one = !app.empty() && !stream.empty();
    auto streams = sources;
    if (is_one) {
        // Also where it has no source now: it can have one by the time that the handler looks.
        streams.insert((vhost.empty() ? kDefaultVhost : vhost) + "/" + app + "/" + stream);
    }
    const auto matches = [&](const std::string &of) {
        const std::string rest = streamOfKey(of), end = "/" + stream;
        return (vhost.empty() || of.compare(0, vhost.size() + 1, vhost + "/") == 0)
            && (app.empty() || rest.compare(0, app.size() + 1, app + "/") == 0)
            && (stream.empty()
                || (rest.size() > end.size() && rest.compare(rest.size() - end.size(), end.size(), end) == 0));
    };
    std::map<Proxy, std::string> meant;
    for (const auto &kind : _kinds) {
        if (!kind.is_supported) {
            continue;
        }
        if (is_one && kind.key_is_stream) {
            for (const auto &key : streams) {
                if (_api->exists(kind, key)) {
                    meant.emplace(Proxy(&kind, key), key);
                }
            }
        } else if (kind.key_is_stream || !kind.stream_url.empty()) {
            for (const auto &item : listed(kind)) {
                const std::string of = kind.streamOf(item);
                if (!of.empty() && (is_one ? streams.count(of) > 0 : matches(of))) {
                    meant.emplace(Proxy(&kind, item["key"].asString()), of);
                }
            }
        }
    }
    return meant;
}

void Plugin::onClose(
    const std::shared_ptr<ClientCall> &call, const Handler &handler, const Parser &parser, SockInfo &sender) {
    const std::string app = call->arg("app"), stream = call->arg("stream");
    const bool is_one = !app.empty() && !stream.empty();
    std::vector<CallOrder::Lock> locks;
    if (is_one) {
        locks.push_back(_order.lock(app + "/" + stream));
    } else {
        locks = _order.lockAll();
    }

    std::set<std::string> sources;
    MediaSource::for_each_media(
        [&sources](const MediaSource::Ptr &source) { sources.insert(source->getMediaTuple().shortUrl()); },
        call->arg("schema"), call->arg("vhost"), app, stream);
    const auto before = proxiesMeant(*call, sources);
    handler(parser, captureReply([call](Reply reply) { call->replied(std::move(reply)); }), sender);
    const auto reply = call->replyOr([call] { call->complete(); });
    if (!reply) {
        ErrorL << "journal: " << call->reason << " did not answer at once: what it closes is not journaled";
        return;
    }
    if (reply->code() == 0) {
        const Json::Value &root = reply->json;
        // close_streams says how many of how many it closed, close_stream has closed the one it was asked for.
        const bool all = !root["count_hit"].isInt() || root["count_closed"].asInt() == root["count_hit"].asInt();
        const bool none = root["count_closed"].isInt() && root["count_closed"].asInt() == 0;
        const auto after = none ? before : proxiesMeant(*call, sources);
        std::vector<Proxy> others;
        for (const auto &each : before) {
            const Proxy &proxy = each.first;
            // Gone, or told to go: a server may let it go in a later turn.
            if (after.count(proxy) && !(all && sources.count(each.second))) {
                continue;
            }
            // The lock at hand is that of the stream, which is not every proxy's own.
            if (is_one && !proxy.first->key_is_stream) {
                others.push_back(proxy);
            } else {
                ends(call, proxy);
            }
        }
        locks.clear();
        for (const auto &proxy : others) {
            auto lock = _order.lock(streamOfKey(proxy.second));
            ends(call, proxy);
        }
    }
    call->complete();
}

// A call has ended a proxy. Under its lock.
void Plugin::ends(const std::shared_ptr<ClientCall> &call, const Proxy &proxy) {
    _order.ended(streamOfKey(proxy.second));
    record(call, ZLM_JOURNAL_REMOVE, *proxy.first, proxy.second);
}

// Under the lock of the key's stream: the order of these calls is that of the journal.
void Plugin::record(const std::shared_ptr<ClientCall> &call, uint32_t op, const Kind &kind, const std::string &key) {
    call->expect();
    std::vector<zlm_journal_pair> args;
    if (op == ZLM_JOURNAL_ADD || op == ZLM_JOURNAL_ADD_AGAIN) {
        for (const auto &arg : call->args) {
            args.push_back({textOf(arg.first), textOf(arg.second)});
        }
    }
    const zlm_journal_call record{
        op,           textOf(kind.name),    textOf(key),         args.data(),
        args.size(), textOf(call->origin), textOf(call->reason),
    };
    auto *context = new std::shared_ptr<ClientCall>(call);
    const auto done = [](void *context, const zlm_journal_ack *ack) {
        std::unique_ptr<std::shared_ptr<ClientCall>> call(static_cast<std::shared_ptr<ClientCall> *>(context));
        try {
            (*call)->acknowledged(*ack);
        } catch (const std::exception &error) {
            ErrorL << "journal: a reply was lost: " << error.what();
        }
    };
    if (zlm_journal_record(_journal, &record, done, context) != 0) {
        ErrorL << "journal: " << call->reason << " of " << key << " is not journaled: " << lastError();
    }
}

const Kind *Plugin::kindOf(const std::string &name) const {
    for (const auto &kind : _kinds) {
        if (kind.name == name) {
            return &kind;
        }
    }
    return nullptr;
}

// Has the journal carry out the request at hand, on a thread of its own, since that waits for the disk.
void Plugin::operate(const std::string &name, const Headers &headers, SockInfo &sender, const Invoker &invoker) {
    if (!t_request) {
        throw std::logic_error(name + " was not called through the hook");
    }
    rust::Vec<rust::String> names, values;
    for (const auto &arg : getAllArgs(t_request->args)) {
        names.push_back(rust::String::lossy(arg.first));
        values.push_back(rust::String::lossy(arg.second));
    }
    const std::string body = t_request->body;
    const std::string origin = sender.get_peer_ip() + ":" + std::to_string(sender.get_peer_port());
    const auto poller = EventPollerPool::Instance().getPoller();
    Headers reply_headers = headers;
    // Held from here on, and by the thread until its reply is on its way.
    const std::shared_ptr<void> under_way(nullptr, [this](void *) {
        std::lock_guard<std::mutex> lock(_operating_mutex);
        --_operating;
        _operated.notify_all();
    });
    {
        std::lock_guard<std::mutex> lock(_operating_mutex);
        ++_operating;
    }
    std::thread([this, name, names, values, body, origin, poller, reply_headers, invoker, under_way]() mutable {
        std::string reply;
        try {
            const rust::Slice<const uint8_t> bytes(reinterpret_cast<const uint8_t *>(body.data()), body.size());
            const auto answer =
                zlm_journal::operate(_journal, name, std::move(names), std::move(values), bytes, origin);
            reply = std::string(answer.body);
            reply_headers["Content-Type"] = std::string(answer.content_type);
        } catch (const std::exception &error) {
            reply = ClientCall::refusal(error.what()).toStyledString();
        }
        poller->async([invoker, reply_headers, reply] { invoker(200, reply_headers, reply); }, false);
    }).detach();
}

} // namespace zlm_journal
