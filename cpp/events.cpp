// Passes MediaServer's events to the journal. Events come while the server holds locks, so nothing of the server is
// called here. Decides nothing.
#include "Common/MediaSource.h"
#include "FFmpegSource.h"
#include "Player/PlayerProxy.h"
#include "Pusher/PusherProxy.h"
#include "Util/NoticeCenter.h"
#include "Util/logger.h"
#include "client_call.h"
#include "crash.h"
#include "plugin.h"
#include "pulls.h"
#include "text.h"

using namespace toolkit;
using namespace mediakit;

namespace zlm_journal {

// The hooks declare these classes without their headers.
static_assert(
    KindOf<PlayerProxy>::value == ZLM_JOURNAL_PULL && KindOf<PusherProxy>::value == ZLM_JOURNAL_PUSH
        && KindOf<FFmpegSource>::value == ZLM_JOURNAL_FFMPEG,
    "zlm_journal_hooks.h and zlm_journal.h number the kinds of proxy differently");

namespace {

template <typename Named>
zlm_journal_stream streamOf(const Named &named) {
    return {textOf(named.vhost), textOf(named.app), textOf(named.stream)};
}

// An error here is a bug of ours, or a name that is not UTF-8.
void check(int code, const char *what) {
    if (code != 0 && code != ZLM_JOURNAL_CODE_INVALID_HANDLE) {
        ErrorL << "journal: " << what << ": " << lastError();
    }
}

// The events of a proxy, on its poller. A late one, of a proxy that has just left the map, counts for the next proxy with
// its key.

void connected(int kind, const std::string &key) {
    check(zlm_journal_connected(plugin().journal, kind, textOf(key)), "a connect was not recorded");
}

void failed(int kind, const std::string &key, const std::string &error) {
    check(zlm_journal_failed(plugin().journal, kind, textOf(key), textOf(error)), "a failure was not recorded");
}

// The key of a pull is the name of its stream (addStreamProxy, server/WebApi.cpp).
std::string keyOf(const PlayerProxy &pull) {
    return pull.getMediaTuple().shortUrl();
}

const int kPull = KindOf<PlayerProxy>::value, kPush = KindOf<PusherProxy>::value;

// The interval at which a push is asked for its state: two atomic reads.
const uint64_t kLookMs = 5000;

} // namespace

void made(int kind, const std::string &key) noexcept {
    if (plugin().journal != 0) {
        uint64_t call = 0;
        check(zlm_journal_made(plugin().journal, kind, textOf(key), &call), "a new proxy was not recorded");
        crash::made(call);
    }
}

void ended(int kind, const std::string &key) noexcept {
    if (plugin().journal != 0) {
        if (kind == kPull) {
            pulls::left(key);
        }
        const int code = zlm_journal_ended(plugin().journal, kind, textOf(key), Scope::current());
        check(code, "the end of a proxy was not recorded");
    }
}

// Nothing else in MediaServer uses these callbacks of a pull.
void follow(const std::string &key, PlayerProxy &pull) noexcept {
    if (plugin().journal == 0) {
        return;
    }
    try {
        pulls::entered(key, pull);
        // It outlives its callbacks, and a pointer needs no memory of its own.
        const auto *const its = &pull;
        pull.setOnConnect([its](const TranslationInfo &) { connected(kPull, keyOf(*its)); });
        if (!kTellsFailures) {
            pull.setOnDisconnect([its] { failed(kPull, keyOf(*its), ""); });
        }
    } catch (const std::exception &error) {
        ErrorL << "journal: the events of a pull cannot be received: " << error.what();
    }
}

// A push reconnects by itself without an event. It counts its connects, and its status says whether the last one
// failed.
void follow(const std::string &key, PusherProxy &push) noexcept {
    if (plugin().journal == 0) {
        return;
    }
    try {
        const std::weak_ptr<PusherProxy> weak_push = push.shared_from_this();
        uint64_t known = 0;
        bool fails = false;
        push.getPoller()->doDelayTask(kLookMs, [key, weak_push, known, fails]() mutable -> uint64_t {
            const auto push = weak_push.lock();
            if (!push) {
                return 0;
            }
            const uint64_t tries = push->getRePublishCount();
            if (tries != known) {
                fails = true;
                for (; known != tries; ++known) {
                    failed(kPush, key, "");
                }
            } else if (fails && push->getStatus() == 0) {
                fails = false;
                connected(kPush, key);
            }
            return kLookMs;
        });
    } catch (const std::exception &error) {
        ErrorL << "journal: the events of a push cannot be received: " << error.what();
    }
}

void listenToEvents() {
    auto &center = NoticeCenter::Instance();
    void *const tag = &plugin();
    center.addListener(tag, Broadcast::kBroadcastNotFoundStream, [](BroadcastNotFoundStreamArgs) {
        const auto stream = streamOf(args);
        check(zlm_journal_stream_not_found(plugin().journal, &stream), "a player's request was not recorded");
    });
    center.addListener(tag, Broadcast::kBroadcastStreamNoneReader, [](BroadcastStreamNoneReaderArgs) {
        const auto stream = streamOf(sender.getMediaTuple());
        check(zlm_journal_stream_unwatched(plugin().journal, &stream), "a stream without viewers was not recorded");
    });
    center.addListener(tag, Broadcast::kBroadcastMediaChanged, [](BroadcastMediaChangedArgs) {
        const auto stream = streamOf(sender.getMediaTuple());
        const auto &schema = sender.getSchema();
        const int code = zlm_journal_stream_changed(plugin().journal, textOf(schema), &stream, bRegist);
        check(code, "a stream was not recorded");
    });
#ifdef BroadcastPlayerProxyFailedArgs
    center.addListener(tag, Broadcast::kBroadcastPlayerProxyFailed, [](BroadcastPlayerProxyFailedArgs) {
        failed(kPull, keyOf(sender), ex.what());
    });
#endif
}

} // namespace zlm_journal
