// Streams as the server has them: one source for each schema, whoever makes them, whoever watches, and what becomes of
// those that nobody watches.
#ifndef ZLM_JOURNAL_STANDIN_SOURCE_H
#define ZLM_JOURNAL_STANDIN_SOURCE_H

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "media/events.h"
#include "media/http.h"

namespace mediakit {

const std::string kDefaultVhost = "__defaultVhost__";

class MediaTuple {
public:
    MediaTuple() = default;
    MediaTuple(std::string vhost, std::string app, std::string stream, std::string params = "")
        : vhost(std::move(vhost))
        , app(std::move(app))
        , stream(std::move(stream))
        , params(std::move(params)) {}
    std::string shortUrl() const { return vhost + '/' + app + '/' + stream; }
    std::string vhost, app, stream, params;
};

class MediaInfo : public MediaTuple {
public:
    MediaInfo() = default;
    MediaInfo(std::string schema, const MediaTuple &tuple)
        : MediaTuple(tuple)
        , schema(std::move(schema)) {}
    std::string getUrl() const { return schema + "://" + shortUrl(); }
    std::string schema, host;
    uint16_t port = 0;
};

// With general.enableVhost=0 everybody is at home at one.
inline std::string vhostOf(const std::string &named) {
    GET_CONFIG(bool, enabled, "general.enableVhost");
    return enabled && !named.empty() ? named : kDefaultVhost;
}

class MediaSource;

// Whoever makes a stream.
class MediaSourceEvent {
public:
    virtual ~MediaSourceEvent() = default;
    virtual bool close(MediaSource &) { return false; }
    // None where it does not say.
    virtual toolkit::EventPoller::Ptr getOwnerPoller(MediaSource &) { return nullptr; }
};

// One who watches a source, for as long as this object is kept.
class MediaReader {
public:
    using Ptr = std::shared_ptr<MediaReader>;
    MediaReader(const std::shared_ptr<MediaSource> &source, toolkit::EventPoller::Ptr poller, std::function<void()> gone)
        : _source(source)
        , _poller(std::move(poller))
        , _gone(std::move(gone)) {}
    ~MediaReader();
    // Its source is no more: it is told on its own poller, at once where this is that.
    void detach() const { _poller->async(_gone); }

private:
    const std::weak_ptr<MediaSource> _source;
    const toolkit::EventPoller::Ptr _poller;
    const std::function<void()> _gone;
};

class MultiMediaSourceMuxer;

// Registered until it is destroyed: whoever holds one that was closed keeps it registered for so long.
class MediaSource : public std::enable_shared_from_this<MediaSource> {
public:
    using Ptr = std::shared_ptr<MediaSource>;

    MediaSource(std::string schema, const MediaTuple &tuple, const std::weak_ptr<MultiMediaSourceMuxer> &muxer)
        : _schema(std::move(schema))
        , _tuple(vhostOf(tuple.vhost), tuple.app, tuple.stream, tuple.params)
        , _muxer(muxer) {}
    ~MediaSource() {
        for (const auto &watching : _readers) {
            if (const auto reader = watching.lock()) {
                reader->detach();
            }
        }
        try {
            unregist();
        } catch (const std::exception &error) {
            WarnL << error.what();
        }
    }

    const std::string &getSchema() const { return _schema; }
    const MediaTuple &getMediaTuple() const { return _tuple; }
    std::string getUrl() const { return _schema + "://" + _tuple.shortUrl(); }
    std::shared_ptr<MultiMediaSourceMuxer> getMuxer() const { return _muxer.lock(); }
    int readerCount() const { return _reader_count; }

    // Of the stream, in whatever schema.
    int totalReaderCount();
    // Throws where whoever made the stream is gone.
    toolkit::EventPoller::Ptr getOwnerPoller();
    // On the owner's poller. Without `force` one that has readers stays.
    bool close(bool force);

    MediaReader::Ptr attach(const toolkit::EventPoller::Ptr &poller, std::function<void()> gone) {
        auto reader = std::make_shared<MediaReader>(shared_from_this(), poller, std::move(gone));
        {
            std::lock_guard<std::mutex> lock(_readers_mutex);
            size_t kept = 0;
            for (const auto &each : _readers) {
                if (!each.expired()) {
                    _readers[kept++] = each;
                }
            }
            _readers.resize(kept);
            _readers.push_back(reader);
        }
        onReaderChanged(++_reader_count);
        return reader;
    }
    void left() { onReaderChanged(--_reader_count); }
    void onReaderChanged(int count);

    // Throws where there is another one of that name.
    void regist() {
        {
            std::lock_guard<std::recursive_mutex> lock(mutex());
            auto &entry = all()[_schema + "/" + _tuple.shortUrl()];
            if (entry.first.lock()) {
                throw std::invalid_argument("media source already existed:" + getUrl());
            }
            entry = {shared_from_this(), this};
        }
        NOTICE_EMIT(BroadcastMediaChangedArgs, Broadcast::kBroadcastMediaChanged, true, *this);
    }

    // Each that matches what is given, as it is given; nothing given is any.
    static void for_each_media(
        const std::function<void(const Ptr &)> &each, const std::string &schema = "", const std::string &vhost = "",
        const std::string &app = "", const std::string &stream = "") {
        std::vector<Ptr> found;
        const auto take = [&found](const std::weak_ptr<MediaSource> &weak) {
            if (auto source = weak.lock()) {
                found.push_back(std::move(source));
            }
        };
        {
            std::lock_guard<std::recursive_mutex> lock(mutex());
            if (!schema.empty() && !vhost.empty() && !app.empty() && !stream.empty()) {
                const auto it = all().find(schema + "/" + MediaTuple(vhost, app, stream).shortUrl());
                if (it != all().end()) {
                    take(it->second.first);
                }
            } else {
                for (const auto &entry : all()) {
                    // It cannot be destroyed yet: for that it has to come out of here.
                    const auto &source = *entry.second.second;
                    if ((schema.empty() || schema == source._schema) && (vhost.empty() || vhost == source._tuple.vhost)
                        && (app.empty() || app == source._tuple.app)
                        && (stream.empty() || stream == source._tuple.stream)) {
                        take(entry.second.first);
                    }
                }
            }
        }
        for (const auto &source : found) {
            each(source);
        }
    }

    // One stream: nothing where it has no app or name.
    static Ptr find(
        const std::string &schema, const std::string &vhost, const std::string &app, const std::string &stream) {
        Ptr found;
        if (!app.empty() && !stream.empty()) {
            for_each_media([&found](const Ptr &source) { found = source; }, schema, vhostOf(vhost), app, stream);
        }
        return found;
    }

private:
    void unregist() {
        {
            std::lock_guard<std::recursive_mutex> lock(mutex());
            const auto it = all().find(_schema + "/" + _tuple.shortUrl());
            if (it == all().end() || it->second.second != this) {
                return;
            }
            all().erase(it);
        }
        NOTICE_EMIT(BroadcastMediaChangedArgs, Broadcast::kBroadcastMediaChanged, false, *this);
    }

    static std::recursive_mutex &mutex() {
        static auto *mutex = new std::recursive_mutex;
        return *mutex;
    }
    // By "schema/vhost/app/stream".
    static std::map<std::string, std::pair<std::weak_ptr<MediaSource>, MediaSource *>> &all() {
        static auto *all = new std::map<std::string, std::pair<std::weak_ptr<MediaSource>, MediaSource *>>;
        return *all;
    }

    const std::string _schema;
    const MediaTuple _tuple;
    const std::weak_ptr<MultiMediaSourceMuxer> _muxer;
    std::mutex _readers_mutex;
    std::vector<std::weak_ptr<MediaReader>> _readers;
    std::atomic<int> _reader_count{0};
};

inline MediaReader::~MediaReader() {
    if (const auto source = _source.lock()) {
        source->left();
    }
}

struct ProtocolOption {
    bool auto_close = false;
    bool makes_sources = true;
    // Not empty: the name that the stream gets instead of its own.
    std::string stream_replace;
};

// A stream while it is there. Its maker keeps it, and lets it go to end the stream.
class MultiMediaSourceMuxer : public MediaSourceEvent, public std::enable_shared_from_this<MultiMediaSourceMuxer> {
public:
    using Ptr = std::shared_ptr<MultiMediaSourceMuxer>;

    MultiMediaSourceMuxer(MediaTuple tuple, const ProtocolOption &option)
        : _tuple(renamed(std::move(tuple), option))
        , _option(option)
        , _poller(toolkit::EventPollerPool::Instance().getPoller()) {}

    // Throws where there is such a stream already. Makes no source of the schema that its maker passes on.
    void start(const std::weak_ptr<MediaSourceEvent> &maker, const std::string &passed_on = "") {
        setDelegate(maker);
        for (const auto schema : {"rtmp", "rtsp"}) {
            if (schema != passed_on) {
                auto source = make(schema);
                std::lock_guard<std::mutex> lock(_mutex);
                _sources.push_back(std::move(source));
            }
        }
        _sources.front()->onReaderChanged(0);
    }

    // What comes is passed on by its maker, whose source it is: the stream outlives it, and it the stream.
    MediaSource::Ptr passOn(const std::string &schema) {
        auto source = make(schema);
        std::lock_guard<std::mutex> lock(_mutex);
        _passed_on = source;
        return source;
    }

    const ProtocolOption &getOption() const { return _option; }

    // Who is asked to close it. An FFmpeg source puts itself before the connection that brings its stream.
    void setDelegate(const std::weak_ptr<MediaSourceEvent> &delegate) {
        std::lock_guard<std::mutex> lock(_mutex);
        _delegate = delegate;
    }
    std::shared_ptr<MediaSourceEvent> getDelegate() const {
        std::lock_guard<std::mutex> lock(_mutex);
        return _delegate.lock();
    }

    bool close(MediaSource &sender) override {
        const auto delegate = getDelegate();
        return delegate && delegate->close(sender);
    }
    toolkit::EventPoller::Ptr getOwnerPoller(MediaSource &sender) override {
        const auto delegate = getDelegate();
        const auto poller = delegate ? delegate->getOwnerPoller(sender) : nullptr;
        return poller ? poller : _poller;
    }

    int totalReaderCount() const {
        std::lock_guard<std::mutex> lock(_mutex);
        int count = 0;
        for (const auto &source : _sources) {
            count += source->readerCount();
        }
        const auto passed_on = _passed_on.lock();
        return count + (passed_on ? passed_on->readerCount() : 0);
    }

    // On the owner's poller. When nobody watches any more, or nobody came, that is told once, after a while.
    void onReaderChanged(MediaSource &sender, int count) {
        if (_idle) {
            _idle->cancel();
            _idle = nullptr;
        }
        if (count > 0 || totalReaderCount() > 0) {
            return;
        }
        GET_CONFIG(std::string, record_app, "record.appName");
        GET_CONFIG(int, delay_ms, "general.streamNoneReaderDelayMS");
        const bool is_recording = sender.getMediaTuple().app == record_app;
        const std::weak_ptr<MediaSource> weak = sender.shared_from_this();
        _idle = getOwnerPoller(sender)->doDelayTask(std::max(1, delay_ms), [weak, is_recording]() -> uint64_t {
            const auto source = weak.lock();
            if (!source || source->totalReaderCount() > 0) {
                return 0;
            }
            bool closes = is_recording;
            if (!is_recording) {
                NOTICE_EMIT(BroadcastStreamNoneReaderArgs, Broadcast::kBroadcastStreamNoneReader, *source);
                const auto muxer = source->getMuxer();
                closes = muxer && muxer->getOption().auto_close;
            }
            if (closes) {
                WarnL << "nobody watches " << source->getUrl() << ": it is closed";
                source->getOwnerPoller()->async([source] { source->close(false); });
            }
            return 0;
        });
    }

private:
    static MediaTuple renamed(MediaTuple tuple, const ProtocolOption &option) {
        if (!option.stream_replace.empty()) {
            tuple.stream = option.stream_replace;
        }
        return tuple;
    }

    MediaSource::Ptr make(const std::string &schema) {
        auto source = std::make_shared<MediaSource>(schema, _tuple, shared_from_this());
        source->regist();
        return source;
    }

    const MediaTuple _tuple;
    const ProtocolOption _option;
    const toolkit::EventPoller::Ptr _poller;
    mutable std::mutex _mutex;
    std::weak_ptr<MediaSourceEvent> _delegate;
    std::vector<MediaSource::Ptr> _sources;
    std::weak_ptr<MediaSource> _passed_on;
    toolkit::EventPoller::DelayTask::Ptr _idle;
};

inline int MediaSource::totalReaderCount() {
    const auto muxer = getMuxer();
    return muxer ? muxer->totalReaderCount() : readerCount();
}

inline toolkit::EventPoller::Ptr MediaSource::getOwnerPoller() {
    if (const auto muxer = getMuxer()) {
        return muxer->getOwnerPoller(*this);
    }
    throw std::runtime_error("MediaSource::getOwnerPoller failed: " + getUrl());
}

inline bool MediaSource::close(bool force) {
    const auto muxer = getMuxer();
    return muxer && (force || totalReaderCount() == 0) && muxer->close(*this);
}

inline void MediaSource::onReaderChanged(int count) {
    try {
        const std::weak_ptr<MediaSource> weak = shared_from_this();
        getOwnerPoller()->async([weak, count] {
            const auto self = weak.lock();
            const auto muxer = self ? self->getMuxer() : nullptr;
            if (muxer) {
                muxer->onReaderChanged(*self, count);
            }
        });
    } catch (const std::exception &) {
        // Its maker is gone: nobody cares.
    }
}

} // namespace mediakit

#endif
