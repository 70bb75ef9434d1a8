// The plugin's part that watches streams come and go: a player that waits for one has it started, and a proxy that
// MediaServer closed because nobody watched it is wanted no more.
#include <exception>
#include <utility>

#include "Common/MediaSource.h"
#include "Common/config.h"
#include "Poller/EventPoller.h"
#include "Util/NoticeCenter.h"
#include "Util/logger.h"
#include "plugin.h"
#include "rust/cxx.h"
#include "text.h"
#include "zlm-journal/src/ffi/bridge.rs.h"

using namespace toolkit;
using namespace mediakit;

namespace zlm_journal {

namespace {

// A stream that goes so long after nobody watched it any more was closed for that reason: at once with auto_close, or
// when the hook on_stream_none_reader has answered.
const std::chrono::seconds kIdleClose(15);
// When a source goes, its proxy may go in some later turn.
const uint64_t kLookAgainMs = 100;
const int kLooks = 8;

} // namespace

void Plugin::listen() {
    auto &center = NoticeCenter::Instance();
    center.addListener(this, Broadcast::kBroadcastNotFoundStream, [this](BroadcastNotFoundStreamArgs) {
        (void)zlm_journal_player_waits(_journal, textOf(args.shortUrl()));
    });
    center.addListener(this, Broadcast::kBroadcastStreamNoneReader, [this](BroadcastStreamNoneReaderArgs) {
        onNobodyWatches(sender.getMediaTuple().shortUrl());
    });
    center.addListener(this, Broadcast::kBroadcastMediaChanged, [this](BroadcastMediaChangedArgs) {
        const std::string stream = sender.getMediaTuple().shortUrl();
        (void)zlm_journal_source_moved(_journal, textOf(sender.getSchema() + "/" + stream), bRegist);
        if (!bRegist) {
            onSourceGone(stream);
        }
    });
}

void Plugin::onNobodyWatches(const std::string &stream) {
    const auto now = std::chrono::steady_clock::now();
    std::lock_guard<std::mutex> lock(_idle_mutex);
    while (!_idle_order.empty() && now - _idle_order.front().first > kIdleClose) {
        const auto it = _idle.find(_idle_order.front().second);
        if (it != _idle.end() && it->second == _idle_order.front().first) {
            _idle.erase(it);
        }
        _idle_order.pop_front();
    }
    _idle[stream] = now;
    _idle_order.emplace_back(now, stream);
}

// All ends of a proxy look alike to MediaServer; that nobody watched it is what tells this one from the others.
void Plugin::onSourceGone(const std::string &stream) {
    {
        std::lock_guard<std::mutex> lock(_idle_mutex);
        const auto it = _idle.find(stream);
        if (it == _idle.end() || std::chrono::steady_clock::now() - it->second > kIdleClose) {
            return;
        }
        _idle.erase(it);
    }
    // Not here: whoever tells us of this may hold locks of MediaServer's.
    const auto poller = EventPollerPool::Instance().getPoller(false);
    poller->async([this, poller, stream] { lookForIdleEnd(poller, stream, kLooks); }, false);
}

void Plugin::lookForIdleEnd(const EventPoller::Ptr &poller, const std::string &stream, int looks) {
    bool ended = true;
    try {
        for (const auto &proxy : makers(_journal, stream)) {
            const Kind *kind = kindOf(std::string(proxy.kind));
            ended = (!kind || hasEndedIdle(*kind, std::string(proxy.key))) && ended;
        }
    } catch (const std::exception &error) {
        ErrorL << "journal: what became of " << stream << " is not known: " << error.what();
        return;
    }
    if (!ended && looks > 1) {
        poller->doDelayTask(kLookAgainMs, [this, poller, stream, looks]() -> uint64_t {
            lookForIdleEnd(poller, stream, looks - 1);
            return 0;
        });
    }
}

// Tells the journal of a proxy that MediaServer has closed. False where it is wanted and still there.
bool Plugin::hasEndedIdle(const Kind &kind, const std::string &key) {
    auto lock = _order.lock(streamOfKey(key));
    if (!isWanted(kind, key, 0)) {
        return true;
    }
    if (_api->exists(kind, key)) {
        return false;
    }
    _order.ended(streamOfKey(key));
    InfoL << "journal: " << kind.name << " " << key << " was closed because nobody watched it";
    const std::string reason = "closed for lack of viewers", origin = "MediaServer";
    const zlm_journal_call record{
        ZLM_JOURNAL_CLOSED_IDLE, textOf(kind.name), textOf(key), nullptr, 0, textOf(origin), textOf(reason),
    };
    if (zlm_journal_record(_journal, &record, nullptr, nullptr) != 0) {
        ErrorL << "journal: the end of " << key << " is not journaled: " << lastError();
    }
    return true;
}

} // namespace zlm_journal
