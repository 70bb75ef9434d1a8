// The plugin's part that does what the journal asks of MediaServer: start a proxy, end one.
#include <atomic>
#include <exception>
#include <map>

#include "Common/MediaSource.h"
#include "Poller/EventPoller.h"
#include "Util/logger.h"
#include "Util/mini.h"
#include "WebApi.h"
#include "client_call.h"
#include "crash.h"
#include "plugin.h"
#include "rust/cxx.h"
#include "text.h"
#include "zlm-journal/src/ffi/bridge.rs.h"

using namespace toolkit;
using namespace mediakit;

namespace zlm_journal {

std::vector<Kind> Kind::all() {
    std::vector<Kind> all;
    for (const auto &row : kinds()) {
        all.push_back(
            {std::string(row.name), std::string(row.add), std::string(row.remove), row.takes_named_stream,
             std::string(row.names_setting)});
    }
    return all;
}

namespace {

// Answers for an add of ours once: by its reply, or when the server has dropped it without one.
struct Start {
    Start(zlm_journal_handle journal, uint64_t call)
        : journal(journal)
        , call(call) {}
    ~Start() { answer(ZLM_JOURNAL_FAILED, "the server has dropped the call without an answer"); }

    // The first counts.
    void answer(uint32_t outcome, const std::string &reason) {
        if (_answered.exchange(true)) {
            return;
        }
        crash::answered(call, outcome == ZLM_JOURNAL_ACCEPTED);
        (void)zlm_journal_host_added(journal, call, outcome, textOf(reason));
    }

    const zlm_journal_handle journal;
    const uint64_t call;

private:
    std::atomic<bool> _answered{false};
};

using Args = std::map<std::string, std::string, StrCaseCompare>;

// The arguments of a call by its body.
Args argsOf(const std::string &body) {
    Args args;
    const Json::Value object = parseObject(body);
    for (const auto &name : object.getMemberNames()) {
        args[name] = object[name].asString();
    }
    return args;
}

} // namespace

// Why an add with these arguments can do no good now; empty where it can.
std::string Plugin::whatIsMissing(const Kind &kind, const std::string &body) const {
    if (!_api->has(kind.add) || !_api->has(kind.remove)) {
        return "this MediaServer lacks " + kind.add + " or " + kind.remove;
    }
    if (!kind.takes_named_stream && kind.names_setting.empty()) {
        return "";
    }
    auto args = argsOf(body);
    if (kind.takes_named_stream && !MediaSource::find(args["schema"], args["vhost"], args["app"], args["stream"])) {
        return "the stream that it takes, " + args["schema"] + "/" + args["vhost"] + "/" + args["app"] + "/"
            + args["stream"] + ", is not there";
    }
    const std::string setting = kind.names_setting.empty() ? std::string() : args[kind.names_setting];
    if (!setting.empty() && mINI::Instance().find(setting) == mINI::Instance().end()) {
        return "config.ini has no " + setting + ", which its argument " + kind.names_setting
            + " names: put it back, restart the server or call restoreJournal";
    }
    return "";
}

void Plugin::hostAdd(void *self, uint64_t call, const zlm_journal_add *add) {
    auto *plugin = static_cast<Plugin *>(self);
    const std::string kind = stringOf(add->kind), key = stringOf(add->key), body = stringOf(add->body);
    const uint64_t seq = add->seq;
    const bool replace = add->replace;
    // On a poller, as a client's call would be, and on each in turn.
    EventPollerPool::Instance().getPoller(false)->async(
        [plugin, call, kind, key, seq, replace, body] { plugin->start(call, kind, key, seq, replace, body); }, false);
}

void Plugin::start(
    uint64_t call, const std::string &kind_name, const std::string &key, uint64_t seq, bool replace,
    const std::string &body) const {
    const crash::Dispatch dispatch(call, seq);
    const auto start = std::make_shared<Start>(_journal, call);
    try {
        const Kind &kind = kindOf(kind_name);
        const std::string missing = whatIsMissing(kind, body);
        if (!missing.empty()) {
            start->answer(ZLM_JOURNAL_BLOCKED, missing);
            return;
        }
        if (replace) {
            end(call, kind, key);
        }
        _api->dispatch(kind.add, body, captureReply([start](const Reply &reply) {
                           const bool success = reply.code() == 0;
                           start->answer(
                               success ? ZLM_JOURNAL_ACCEPTED : ZLM_JOURNAL_FAILED, success ? "" : reply.message());
                       }));
    } catch (const ApiRetException &refusal) {
        start->answer(ZLM_JOURNAL_FAILED, refusal.what());
    } catch (const std::exception &error) {
        start->answer(ZLM_JOURNAL_THREW, error.what());
    }
}

void Plugin::hostRemove(void *self, uint64_t call, zlm_journal_text kind_text, zlm_journal_text key_text) {
    auto *plugin = static_cast<Plugin *>(self);
    const std::string kind = stringOf(kind_text), key = stringOf(key_text);
    EventPollerPool::Instance().getPoller(false)->async(
        [plugin, call, kind, key] {
            try {
                plugin->end(call, plugin->kindOf(kind), key);
            } catch (const std::exception &error) {
                ErrorL << "journal: the end of " << kind << " " << key << ": " << error.what();
            }
            (void)zlm_journal_host_removed(plugin->_journal, call);
        },
        false);
}

void Plugin::end(uint64_t call, const Kind &kind, const std::string &key) const {
    Json::Value args(Json::objectValue);
    args["key"] = key;
    const Scope scope(call);
    _api->dispatch(kind.remove, args.toStyledString(), captureReply([](const Reply &) {}));
}

const Kind &Plugin::kindOf(const std::string &name) const {
    for (const auto &kind : _kinds) {
        if (kind.name == name) {
            return kind;
        }
    }
    throw std::invalid_argument(name + " is not a kind of proxy");
}

} // namespace zlm_journal
