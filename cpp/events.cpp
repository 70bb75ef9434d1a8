// The plugin's part that passes on what MediaServer tells of its proxies and streams. Whoever tells holds locks of the
// server's, so nothing of the server's is called here. Decides nothing: the journal does.
#include "Common/MediaSource.h"
#include "Common/config.h"
#include "FFmpegSource.h"
#include "Player/PlayerProxy.h"
#include "Pusher/PusherProxy.h"
#include "Util/NoticeCenter.h"
#include "Util/logger.h"
#include "crash.h"
#include "plugin.h"
#include "text.h"

using namespace toolkit;
using namespace mediakit;

namespace zlm_journal {

// The hooks name these classes without their headers.
static_assert(
    KindOf<PlayerProxy>::number == ZLM_JOURNAL_PULL && KindOf<PusherProxy>::number == ZLM_JOURNAL_PUSH
        && KindOf<FFmpegSource>::number == ZLM_JOURNAL_FFMPEG,
    "zlm_journal_hooks.h numbers the kinds of proxy otherwise than zlm_journal.h");

namespace {

template <typename Named>
zlm_journal_stream streamOf(const Named &named) {
    return {textOf(named.vhost), textOf(named.app), textOf(named.stream)};
}

// What is refused is a defect of ours, or a name that is no text.
void check(int code, const char *what) {
    if (code != 0 && code != ZLM_JOURNAL_CODE_INVALID_HANDLE) {
        ErrorL << "journal: " << what << ": " << lastError();
    }
}

} // namespace

void Plugin::made(int kind, const std::string &key) const noexcept {
    if (_journal != 0) {
        uint64_t call = 0;
        check(zlm_journal_made(_journal, kind, textOf(key), &call), "a new proxy was not taken note of");
        crash::made(call);
    }
}

void Plugin::ended(int kind, const std::string &key) const noexcept {
    if (_journal != 0) {
        check(zlm_journal_ended(_journal, kind, textOf(key), Scope::current()), "an end was not taken note of");
    }
}

// Nobody else in MediaServer uses these callbacks of a pull, which run on its poller. A late one, of a proxy that has just
// left the map, is taken for the next one of its key.
void Plugin::follow(const std::string &key, PlayerProxy &pull) const noexcept {
    const zlm_journal_handle journal = _journal;
    if (journal == 0) {
        return;
    }
    try {
        pull.setOnConnect([journal, key](const TranslationInfo &) {
            check(zlm_journal_pull_connected(journal, textOf(key)), "a connect was not taken note of");
        });
        if (!tellsFailures()) {
            pull.setOnDisconnect([journal, key] {
                check(zlm_journal_pull_failed(journal, textOf(key), zlm_journal_text()), "a failure was not taken note of");
            });
        }
    } catch (const std::exception &error) {
        ErrorL << "journal: a pull is not followed: " << error.what();
    }
}

void Plugin::listen() {
    auto &center = NoticeCenter::Instance();
    center.addListener(this, Broadcast::kBroadcastNotFoundStream, [this](BroadcastNotFoundStreamArgs) {
        const auto stream = streamOf(args);
        check(zlm_journal_stream_not_found(_journal, &stream), "a player was not taken note of");
    });
    center.addListener(this, Broadcast::kBroadcastStreamNoneReader, [this](BroadcastStreamNoneReaderArgs) {
        const auto stream = streamOf(sender.getMediaTuple());
        check(zlm_journal_stream_unwatched(_journal, &stream), "a stream without viewers was not taken note of");
    });
    center.addListener(this, Broadcast::kBroadcastMediaChanged, [this](BroadcastMediaChangedArgs) {
        const auto stream = streamOf(sender.getMediaTuple());
        const auto &schema = sender.getSchema();
        check(zlm_journal_stream_changed(_journal, textOf(schema), &stream, bRegist), "a stream was not taken note of");
    });
#ifdef BroadcastBeforeHttpRequestArgs
    center.addListener(this, Broadcast::kBroadcastBeforeHttpRequest, [this](BroadcastBeforeHttpRequestArgs) {
        (void)body;
        expectItems(parser, sender);
    });
#endif
#ifdef BroadcastPlayerProxyFailedArgs
    center.addListener(this, Broadcast::kBroadcastPlayerProxyFailed, [this](BroadcastPlayerProxyFailedArgs) {
        const std::string key = sender.getMediaTuple().shortUrl(), error = ex.what();
        check(zlm_journal_pull_failed(_journal, textOf(key), textOf(error)), "a failure was not taken note of");
    });
#endif
}

bool Plugin::tellsFailures() {
#ifdef BroadcastPlayerProxyFailedArgs
    return true;
#else
    return false;
#endif
}

////////////////////////////////////////////////////////////// the hooks

void made(int kind, const std::string &key) noexcept {
    Plugin::Instance().made(kind, key);
}

void follow(const std::string &key, PlayerProxy &proxy) noexcept {
    Plugin::Instance().follow(key, proxy);
}

void ended(int kind, const std::string &key) noexcept {
    Plugin::Instance().ended(kind, key);
}

} // namespace zlm_journal
