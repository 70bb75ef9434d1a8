// Does what the journal asks of MediaServer: starts and ends proxies.
#include <atomic>
#include <exception>
#include <memory>

#include "Common/MediaSource.h"
#include "Poller/EventPoller.h"
#include "Util/logger.h"
#include "Util/mini.h"
#include "WebApi.h"
#include "client_call.h"
#include "crash.h"
#include "plugin.h"
#include "pulls.h"
#include "text.h"

using namespace toolkit;
using namespace mediakit;

namespace zlm_journal {

namespace {

// Answers for one of our adds exactly once: with its reply, or when the server drops it without one.
struct Start {
    explicit Start(uint64_t call)
        : call(call) {}
    ~Start() { answer(ZLM_JOURNAL_DROPPED, std::string()); }

    // Only the first answer counts.
    void answer(uint32_t outcome, const std::string &text) {
        if (!_answered.exchange(true)) {
            const zlm_journal_answer answer{sizeof answer, outcome, 0, textOf(text)};
            bool is_success = false;
            (void)zlm_journal_host_added(plugin().journal, call, &answer, &is_success);
            crash::answered(call, is_success);
        }
    }

    void blocked(uint32_t lacking) {
        _answered = true;
        crash::answered(call, false);
        (void)zlm_journal_host_blocked(plugin().journal, call, lacking);
    }

    const uint64_t call;

private:
    std::atomic<bool> _answered{false};
};

// A copy of what an add needs: the original is valid only during the callback.
struct Add {
    explicit Add(const zlm_journal_add &add)
        : key(stringOf(add.key))
        , seq(add.seq)
        , replace(add.replace)
        , add_api(stringOf(add.add_api))
        , remove_api(stringOf(add.remove_api))
        , schema(stringOf(add.schema))
        , vhost(stringOf(add.stream.vhost))
        , app(stringOf(add.stream.app))
        , stream(stringOf(add.stream.stream))
        , setting(stringOf(add.setting))
        , url(stringOf(add.url))
        , body(stringOf(add.body)) {}

    const std::string key;
    const uint64_t seq;
    const bool replace;
    const std::string add_api, remove_api;
    const std::string schema, vhost, app, stream;
    const std::string setting;
    const std::string url, body;
};

// What a change in place needs besides.
mINI argsOf(const zlm_journal_add &add) {
    mINI args;
    for (size_t i = 0; i < add.args_len; ++i) {
        args[stringOf(add.args[i].name)] = stringOf(add.args[i].value);
    }
    return args;
}

void remove(uint64_t call, const std::string &remove_api, const std::string &key) {
    const Scope scope(call);
    plugin().api->dispatch(
        remove_api, R"({"key":)" + Json::valueToQuotedString(key.c_str()) + "}", captureReply([](const Reply &) {}));
}

using StartPtr = std::shared_ptr<Start>;
using AddPtr = std::shared_ptr<const Add>;

void dispatch(const Add &add, const StartPtr &start) {
    const crash::Dispatch dispatch(start->call, add.seq);
    try {
        plugin().api->dispatch(add.add_api, add.body, captureReply([start](const Reply &reply) {
                                   start->answer(ZLM_JOURNAL_REPLIED, reply.body);
                               }));
    } catch (const ApiRetException &refusal) {
        start->answer(ZLM_JOURNAL_REFUSED, refusal.what());
    } catch (const std::exception &error) {
        start->answer(ZLM_JOURNAL_THREW, error.what());
    }
}

void replace(const AddPtr &add, const StartPtr &start) {
    const auto poller = pulls::pollerOf(add->key);
    remove(start->call, add->remove_api, add->key);
    if (poller) {
        // The sources of a pull go on its poller. A new pull that connects before would find their names taken.
        poller->async([add, start] { dispatch(*add, start); }, false);
    } else {
        dispatch(*add, start);
    }
}

void add(uint64_t call, const AddPtr &add) {
    const auto &api = *plugin().api;
    const auto start = std::make_shared<Start>(call);
    if (!api.has(add->add_api) || !api.has(add->remove_api)) {
        start->blocked(ZLM_JOURNAL_NO_API);
    } else if (!add->schema.empty() && !MediaSource::find(add->schema, add->vhost, add->app, add->stream)) {
        start->blocked(ZLM_JOURNAL_NO_STREAM);
    } else if (!add->setting.empty() && mINI::Instance().find(add->setting) == mINI::Instance().end()) {
        start->blocked(ZLM_JOURNAL_NO_SETTING);
    } else if (add->replace) {
        replace(add, start);
    } else {
        dispatch(*add, start);
    }
}

// Returns false if the pull has ended. Otherwise on its poller.
bool update(uint64_t call, const Add &add, const mINI &args) {
    const auto pull = pulls::find(add.key);
    if (!pull) {
        return false;
    }
    const crash::Dispatch dispatch(call, add.seq);
    const auto start = std::make_shared<Start>(call);
    const auto updated = [call] {
        (void)zlm_journal_host_updated(plugin().journal, call);
        crash::made(call);
    };
    pulls::update(pull, add.url, args, updated, [start](const SockException &error) {
        start->answer(error ? ZLM_JOURNAL_REFUSED : ZLM_JOURNAL_ACCEPTED, error.what());
    });
    return true;
}

// All on a poller, as for a client's call: that of the pull, or each in turn.

void hostAdd(void *, uint64_t call, const zlm_journal_add *borrowed) {
    const AddPtr owned = std::make_shared<Add>(*borrowed);
    EventPollerPool::Instance().getPoller(false)->async([call, owned] { add(call, owned); }, false);
}

void hostUpdate(void *, uint64_t call, const zlm_journal_add *borrowed) {
    const AddPtr owned = std::make_shared<Add>(*borrowed);
    const auto args = std::make_shared<const mINI>(argsOf(*borrowed));
    const auto its = pulls::pollerOf(owned->key);
    const auto poller = its ? its : EventPollerPool::Instance().getPoller(false);
    poller->async(
        [call, owned, args] {
            if (!update(call, *owned, *args)) {
                add(call, owned);
            }
        },
        false);
}

void hostRemove(void *, uint64_t call, zlm_journal_text remove_api, zlm_journal_text key_text) {
    const std::string api = stringOf(remove_api), key = stringOf(key_text);
    EventPollerPool::Instance().getPoller(false)->async(
        [call, api, key] {
            try {
                remove(call, api, key);
            } catch (const std::exception &error) {
                ErrorL << "journal: " << api << " " << key << ": " << error.what();
            }
            (void)zlm_journal_host_removed(plugin().journal, call);
        },
        false);
}

} // namespace

void startRestore() {
    const zlm_journal_host host{sizeof host, nullptr, hostAdd, pulls::canUpdate() ? hostUpdate : nullptr, hostRemove};
    if (zlm_journal_start(plugin().journal, &host) != 0) {
        ErrorL << "journal: the restore cannot be started: " << lastError();
    }
}

} // namespace zlm_journal
