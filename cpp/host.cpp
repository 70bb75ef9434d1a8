// The plugin's part that does what the journal asks of MediaServer: start a proxy, end one, tell which there are.
#include <exception>
#include <map>

#include "Common/MediaSource.h"
#include "Poller/EventPoller.h"
#include "Util/logger.h"
#include "WebApi.h"
#include "plugin.h"
#include "text.h"

using namespace toolkit;
using namespace mediakit;

namespace zlm_journal {

namespace {

// Whether the stream of a key "vhost/app/stream" is there.
bool hasSource(const std::string &key) {
    const auto app = key.find('/');
    const auto stream = app == std::string::npos ? app : key.find('/', app + 1);
    if (stream == std::string::npos) {
        return false;
    }
    bool found = false;
    MediaSource::for_each_media(
        [&found](const MediaSource::Ptr &) { found = true; }, "", key.substr(0, app),
        key.substr(app + 1, stream - app - 1), key.substr(stream + 1));
    return found;
}

// Whether one of the server's list does what it is for.
bool plays(const Kind &kind, const Json::Value &item) {
    const auto &status = item["status"];
    if (status.isInt() && status.asInt() == 0) {
        return true;
    }
    // A stream that is there plays, whatever a version means by its status.
    const std::string stream = kind.streamOf(item);
    return stream.empty() ? !status.isInt() : hasSource(stream);
}

// The arguments of a call by its body.
Args argsOf(const std::string &body) {
    std::map<std::string, std::string, StrCaseCompare> args;
    const Json::Value object = parseObject(body);
    for (const auto &name : object.getMemberNames()) {
        args[name] = object[name].asString();
    }
    return [args](const std::string &name) {
        const auto it = args.find(name);
        return it == args.end() ? std::string() : it->second;
    };
}

} // namespace

void Plugin::hostAdd(void *self, uint64_t call, const zlm_journal_add *add) {
    auto *plugin = static_cast<Plugin *>(self);
    const Kind *kind = plugin->kindOf(stringOf(add->kind));
    if (!kind) {
        return;
    }
    const std::string key = stringOf(add->key), body = stringOf(add->body);
    const uint64_t seq = add->seq;
    const bool anew = add->anew;
    // On a poller, as a client's call would be, and on each in turn.
    EventPollerPool::Instance().getPoller(false)->async(
        [plugin, call, kind, key, seq, anew, body] { plugin->startAgain(call, *kind, key, seq, anew, body); });
}

void Plugin::startAgain(
    uint64_t call, const Kind &kind, const std::string &key, uint64_t seq, bool anew, const std::string &body) {
    const zlm_journal_handle journal = _journal;
    const auto answer = [journal, call](uint32_t outcome, const std::string &reason) {
        (void)zlm_journal_host_added(journal, call, outcome, textOf(reason));
    };
    try {
        auto lock = _order.lock(streamOfKey(key));
        if (!isWanted(kind, key, seq)) {
            answer(ZLM_JOURNAL_UNWANTED, "");
            return;
        }
        if (!anew && kind.is_supported && _api->exists(kind, key)) {
            answer(ZLM_JOURNAL_PRESENT, "");
            return;
        }
        const std::string missing = kind.whatIsMissing(argsOf(body));
        if (!missing.empty()) {
            answer(ZLM_JOURNAL_BLOCKED, missing);
            return;
        }
        if (anew) {
            end(kind, key);
        }
        _api->dispatch(kind.add, body, captureReply([answer](Reply reply) {
            answer(reply.code() == 0 ? ZLM_JOURNAL_ACCEPTED : ZLM_JOURNAL_FAILED, reply.message());
        }));
    } catch (const ApiRetException &refusal) {
        answer(ZLM_JOURNAL_FAILED, refusal.what());
    } catch (const std::exception &error) {
        answer(ZLM_JOURNAL_THREW, error.what());
    }
}

bool Plugin::isWanted(const Kind &kind, const std::string &key, uint64_t seq) const {
    bool wanted = false;
    return zlm_journal_wants(_journal, textOf(kind.name), textOf(key), seq, &wanted) == 0 && wanted;
}

void Plugin::hostRemove(void *self, zlm_journal_text kind_text, zlm_journal_text key_text) {
    auto *plugin = static_cast<Plugin *>(self);
    const Kind *kind = plugin->kindOf(stringOf(kind_text));
    if (!kind) {
        return;
    }
    const std::string key = stringOf(key_text);
    EventPollerPool::Instance().getPoller(false)->async([plugin, kind, key] { plugin->endAgain(*kind, key); });
}

void Plugin::endAgain(const Kind &kind, const std::string &key) {
    try {
        auto lock = _order.lock(streamOfKey(key));
        // Someone may have added it anew.
        if (isWanted(kind, key, 0)) {
            return;
        }
        _order.ended(streamOfKey(key));
        end(kind, key);
    } catch (const std::exception &error) {
        ErrorL << "journal: " << kind.remove << " of " << key << ": " << error.what();
    }
}

// Under the lock of the key's stream.
void Plugin::end(const Kind &kind, const std::string &key) const {
    Json::Value args(Json::objectValue);
    args["key"] = key;
    _api->dispatch(kind.remove, args.toStyledString(), captureReply([](Reply) {}));
}

void Plugin::hostList(void *self, uint64_t call, zlm_journal_text kind_text) {
    auto *plugin = static_cast<Plugin *>(self);
    const zlm_journal_handle journal = plugin->_journal;
    const auto failed = [journal, call](const std::string &reason) {
        (void)zlm_journal_host_listed(journal, call, nullptr, 0, textOf(reason));
    };
    const Kind *kind = plugin->kindOf(stringOf(kind_text));
    if (!kind) {
        failed("no such kind of proxy");
        return;
    }
    if (!kind->is_supported) {
        (void)zlm_journal_host_listed(journal, call, nullptr, 0, textOf(""));
        return;
    }
    try {
        // On this thread, not a poller: the list of 10,000 proxies takes a while to write.
        const auto list = plugin->_api->list(*kind);
        std::vector<std::string> keys;
        std::vector<zlm_journal_proxy> proxies;
        for (const auto &item : list) {
            keys.push_back(item["key"].asString());
            const auto &retries = item[item.isMember("rePullCount") ? "rePullCount" : "rePublishCount"];
            proxies.push_back({{}, plays(*kind, item), retries.isInt64() ? retries.asInt64() : -1});
        }
        for (size_t n = 0; n < keys.size(); ++n) {
            proxies[n].key = textOf(keys[n]);
        }
        (void)zlm_journal_host_listed(journal, call, proxies.data(), proxies.size(), textOf(""));
    } catch (const std::exception &error) {
        failed(error.what());
    }
}

} // namespace zlm_journal
