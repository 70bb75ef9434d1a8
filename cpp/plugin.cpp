#include "plugin.h"

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <set>
#include <thread>
#include <utility>

#include "Common/MediaSource.h"
#include "Common/config.h"
#include "Poller/EventPoller.h"
#include "Util/NoticeCenter.h"
#include "Util/logger.h"
#include "Util/mini.h"
#include "Util/onceToken.h"
#include "Util/util.h"
#include "rust/cxx.h"
#include "text.h"
#include "zlm-journal/src/ffi/bridge.rs.h"

using namespace toolkit;
using namespace mediakit;

namespace zlm_journal {

namespace {

const char kSection[] = "journal.";
const char kStatusApi[] = "getJournalStatus";
const char kRestoreApi[] = "restoreJournal";
const size_t kTroublesShown = 20;
const size_t kMostTroublesShown = 10000;
const std::string kDefaultVhost = "__defaultVhost__";

// The section appears in a fresh config.ini with the others, which set their defaults the same way.
onceToken s_defaults([] {
    for (const auto &setting : settings()) {
        mINI::Instance()[kSection + std::string(setting.name)] = std::string(setting.value);
    }
});

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

////////////////////////////////////////////////////////////// watching calls

struct Plugin::Add : ClientCall {
    using ClientCall::ClientCall;

    // Both under the stream's lock.
    std::string stream;
    bool took_effect = false;
};

Plugin &Plugin::Instance() {
    static Plugin *plugin = new Plugin;
    return *plugin;
}

Plugin::Plugin() {
    for (const auto &row : kinds()) {
        _kinds.push_back(
            {std::string(row.name), std::string(row.add), std::string(row.remove), std::string(row.list),
             std::string(row.find)});
    }
}

bool Plugin::intercept(
    const Lookup &lookup, const Handler &handler, const Parser &parser, const Invoker &invoker, SockInfo &sender) {
    if (!_api) {
        return false;
    }
    _api->learn(lookup);
    const std::string name = apiName(parser);
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
        if (!adds && !removes && !closes) {
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
    const std::string key = add->arg("vhost") + "/" + add->arg("app") + "/" + add->arg("stream");
    add->stream = streamOfKey(key);
    const std::string force = add->arg("force");
    const bool forced = !force.empty() && force != "0" && force != "false";

    auto lock = _order.lock(add->stream);
    handler(parser, captureReply([add](Reply reply) { add->replied(std::move(reply)); }), sender);
    const auto reply = add->replyOr([this, &kind, add] {
        auto lock = _order.lock(add->stream);
        settle(kind, add);
    });

    // The server refuses a call from within its handler; whatever it answers later or from another thread is about
    // the first connect of a proxy that it has taken into its map.
    const bool refused = reply && reply->code() != 0 && add->answered_by == std::this_thread::get_id();
    if (!refused) {
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
    const bool is_last = add->took_effect && _order.finish(add->stream, add);
    if (!add->recorded && add->reply->code() == 0) {
        const Json::Value key = add->reply->json["data"]["key"];
        if (is_last && key.isString()) {
            record(add, ZLM_JOURNAL_ADD, kind, key.asString());
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
            _order.ended(streamOfKey(key));
            record(call, ZLM_JOURNAL_REMOVE, kind, key);
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

// The proxies that a close call can mean: of one stream by asking for it, of more from the server's list.
std::set<Plugin::Proxy> Plugin::proxiesMeant(const ClientCall &call, const std::set<std::string> &sources) const {
    const std::string vhost = call.arg("vhost"), app = call.arg("app"), stream = call.arg("stream");
    std::set<Proxy> meant;
    for (const auto &kind : _kinds) {
        if (!app.empty() && !stream.empty()) {
            // Also where it has no source now: it can have one by the time that the handler looks.
            auto keys = sources;
            keys.insert((vhost.empty() ? kDefaultVhost : vhost) + "/" + app + "/" + stream);
            for (const auto &key : keys) {
                if (_api->exists(kind.find, key)) {
                    meant.emplace(&kind, key);
                }
            }
            continue;
        }
        for (const auto &key : _api->keys(kind.list)) {
            const std::string rest = streamOfKey(key);
            const std::string end = "/" + stream;
            const bool same_vhost = vhost.empty() || key.compare(0, vhost.size() + 1, vhost + "/") == 0;
            const bool same_app = app.empty() || rest.compare(0, app.size() + 1, app + "/") == 0;
            const bool same_stream = stream.empty()
                || (rest.size() > end.size() && rest.compare(rest.size() - end.size(), end.size(), end) == 0);
            if (same_vhost && same_app && same_stream) {
                meant.emplace(&kind, key);
            }
        }
    }
    return meant;
}

void Plugin::onClose(
    const std::shared_ptr<ClientCall> &call, const Handler &handler, const Parser &parser, SockInfo &sender) {
    const std::string app = call->arg("app"), stream = call->arg("stream");
    std::vector<CallOrder::Lock> locks;
    if (!app.empty() && !stream.empty()) {
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
        for (const auto &proxy : before) {
            // Gone, or told to go: a server may let it go in a later turn.
            if (!after.count(proxy) || (all && sources.count(proxy.second))) {
                _order.ended(streamOfKey(proxy.second));
                record(call, ZLM_JOURNAL_REMOVE, *proxy.first, proxy.second);
            }
        }
    }
    call->complete();
}

// Under the lock of the key's stream: the order of these calls is that of the journal.
void Plugin::record(const std::shared_ptr<ClientCall> &call, uint32_t op, const Kind &kind, const std::string &key) {
    call->expect();
    std::vector<zlm_journal_pair> args;
    if (op == ZLM_JOURNAL_ADD) {
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

const Plugin::Kind *Plugin::kindOf(const std::string &name) const {
    for (const auto &kind : _kinds) {
        if (kind.name == name) {
            return &kind;
        }
    }
    return nullptr;
}

////////////////////////////////////////////////////////////// start and stop

void Plugin::open() {
    zlm_journal_set_log(log, nullptr);
    std::vector<std::pair<std::string, std::string>> section;
    for (const auto &pair : mINI::Instance()) {
        if (pair.first.compare(0, sizeof(kSection) - 1, kSection) == 0) {
            section.emplace_back(pair.first.substr(sizeof(kSection) - 1), pair.second);
        }
    }
    std::vector<zlm_journal_pair> pairs;
    for (const auto &setting : section) {
        pairs.push_back({textOf(setting.first), textOf(setting.second)});
    }
    const std::string base_dir = exeDir();
    const zlm_journal_options options{
        ZLM_JOURNAL_ABI,
        static_cast<uint32_t>(EventPollerPool::Instance().getExecutorSize()),
        pairs.data(),
        pairs.size(),
        textOf(base_dir),
    };
    const int result = zlm_journal_open(&options, &_journal);
    if (result == ZLM_JOURNAL_CODE_DISABLED) {
        return;
    }
    if (result != 0) {
        ErrorL << "journal: " << lastError() << ". The server runs without a journal";
        return;
    }
    const zlm_journal_handle journal = _journal;
    GET_CONFIG(std::string, api_secret, API::kSecret);
    api_regist(std::string("/index/api/") + kStatusApi, [journal](API_ARGS_MAP) {
        CHECK_SECRET();
        const std::string key = allArgs["key"], limit = allArgs["limit"];
        const size_t most = limit.empty() ? kTroublesShown : std::min<size_t>(atoll(limit.c_str()), kMostTroublesShown);
        val["data"] = parseObject(std::string(zlm_journal::status(journal, key, most)));
    });
    api_regist(std::string("/index/api/") + kRestoreApi, [journal](API_ARGS_MAP) {
        CHECK_SECRET();
        const std::string key = allArgs["key"];
        try {
            val["data"]["wanted"] = static_cast<Json::UInt64>(zlm_journal::restore_now(journal, key));
        } catch (const rust::Error &error) {
            val["code"] = API::OtherFailed;
            val["msg"] = std::string("journal: ") + error.what();
        }
    });
    _api.reset(new ApiCalls);
    listen();
}

void Plugin::restore() {
    if (_api && !_api->introduce(kStatusApi)) {
        ErrorL << "journal: nobody handles API calls: nothing is journaled or restored";
    }
}

void Plugin::close() {
    if (_api && zlm_journal_close(_journal) != 0) {
        ErrorL << "journal: " << lastError();
    }
    // The handle is kept: calls that come in from now on are answered with persisted:false.
}

void Plugin::log(void *, uint32_t level, zlm_journal_text line) {
    const std::string text = stringOf(line);
    switch (level) {
        case 1: ErrorL << text; break;
        case 2: WarnL << text; break;
        case 3: InfoL << text; break;
        default: DebugL << text; break;
    }
}

////////////////////////////////////////////////////////////// the hooks

bool intercept(
    const Lookup &lookup, const Handler &handler, const Parser &parser, const HttpResponseInvokerImp &invoker,
    SockInfo &sender) {
    return Plugin::Instance().intercept(lookup, handler, parser, invoker, sender);
}

void open() {
    Plugin::Instance().open();
}

void restore() {
    Plugin::Instance().restore();
}

void close() {
    Plugin::Instance().close();
}

} // namespace zlm_journal
