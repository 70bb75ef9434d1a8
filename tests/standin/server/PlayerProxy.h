// A pull: plays a stream of another server, and has it here.
#ifndef ZLM_JOURNAL_STANDIN_PLAYER_PROXY_H
#define ZLM_JOURNAL_STANDIN_PLAYER_PROXY_H

#include "connection.h"

namespace mediakit {

struct TranslationInfo {};

class PlayerProxy : public MediaSourceEvent, public std::enable_shared_from_this<PlayerProxy> {
public:
    using Ptr = std::shared_ptr<PlayerProxy>;
    using Told = std::function<void(const toolkit::SockException &)>;

    PlayerProxy(MediaTuple tuple, const ProtocolOption &option, int retry_count)
        : _tuple(std::move(tuple))
        , _option(option)
        , _retry_count(retry_count)
        , _poller(toolkit::EventPollerPool::Instance().getPoller()) {}

    ~PlayerProxy() override {
        // An add is not left without its answer.
        if (_on_play) {
            try {
                _on_play(toolkit::SockException(toolkit::Err_shutdown, "player proxy close"));
            } catch (const std::exception &error) {
                WarnL << error.what();
            }
        }
    }

    void setTimeoutMs(int timeout_ms) { _timeout_ms = timeout_ms; }
    void setPlayCallbackOnce(Told told) { _on_play = std::move(told); }
    void setOnClose(Told told) { _on_close = std::move(told); }
    // At each success, and at each connect that fails and is tried again.
    void setOnConnect(std::function<void(const TranslationInfo &)> told) { _on_connect = std::move(told); }
    void setOnDisconnect(std::function<void()> told) { _on_disconnect = std::move(told); }

    // On its poller.
    void play(const std::string &url) {
        {
            std::lock_guard<std::mutex> lock(_mutex);
            _url = url;
            _status_str = "connecting";
        }
        _failed = 0;
        connect();
    }

    // On its poller. For its next connect.
    void update(const std::string &url, const toolkit::mINI &args) {
        const auto timeout = args.find("protocol_timeout_ms");
        _timeout_ms = timeout == args.end() ? 10000 : timeout->second.as<int>();
        std::lock_guard<std::mutex> lock(_mutex);
        _url = url;
    }

    const MediaTuple &getMediaTuple() const { return _tuple; }
    std::string getUrl() const {
        std::lock_guard<std::mutex> lock(_mutex);
        return _url;
    }
    toolkit::EventPoller::Ptr getPoller() const { return _poller; }
    // 0 from its first success on, whatever becomes of it.
    int getStatus() const { return _status; }
    std::string getStatusStr() const {
        std::lock_guard<std::mutex> lock(_mutex);
        return _status_str;
    }
    uint64_t getRePullCount() const { return _repull_count; }

    bool close(MediaSource &) override {
        _muxer = nullptr;
        _connection = nullptr;
        _on_close(toolkit::SockException(toolkit::Err_shutdown, "closed by user"));
        return true;
    }
    toolkit::EventPoller::Ptr getOwnerPoller(MediaSource &) override { return _poller; }

protected:
    // Its connection has ended; without an error if that was wanted.
    void onShutdown(const toolkit::SockException &error) {
        if (error) {
            tellFailed(error);
        }
        answer(error);
        setStatus(std::string("play shutdown: ") + error.what());
        _passed_on = nullptr;
        GET_CONFIG(bool, reset_when_replay, "general.resetWhenRePlay");
        if (reset_when_replay) {
            _muxer = nullptr;
        }
        if (mayRetry()) {
            ++_repull_count;
            again();
        } else {
            _on_close(error);
        }
    }

private:
    void connect() {
        const std::weak_ptr<PlayerProxy> weak = shared_from_this();
        const auto tell = [weak](void (PlayerProxy::*what)(const toolkit::SockException &)) -> Told {
            return [weak, what](const toolkit::SockException &error) {
                if (const auto self = weak.lock()) {
                    (self.get()->*what)(error);
                }
            };
        };
        // What it was before ends first, as in the host.
        _connection = nullptr;
        _passed_on = nullptr;
        const auto connection = Connection::open(
            _poller, "PLAY", getUrl(), _timeout_ms, tell(&PlayerProxy::played), tell(&PlayerProxy::onShutdown), [weak] {
                if (const auto self = weak.lock()) {
                    self->flows();
                }
            });
        _connection = connection;
    }

    void played(const toolkit::SockException &error) {
        if (error) {
            tellFailed(error);
            setStatus(std::string("play failed: ") + error.what());
        }
        answer(error);
        if (!error) {
            _status = 0;
            _failed = 0;
            ++_timer;
            setStatus("playing");
            if (_on_connect) {
                _on_connect(TranslationInfo());
            }
            _has_media = false;
            const std::weak_ptr<Connection> of = _connection;
            const std::weak_ptr<PlayerProxy> weak = shared_from_this();
            _poller->doDelayTask(kMediaTimeoutMs, [weak, of]() -> uint64_t {
                const auto self = weak.lock();
                if (self && !self->_has_media && self->_connection && self->_connection == of.lock()) {
                    self->_connection = nullptr;
                    self->onShutdown(toolkit::SockException(toolkit::Err_timeout, "receive media timeout"));
                }
                return 0;
            });
        } else if (mayRetry()) {
            if (_on_disconnect) {
                _on_disconnect();
            }
            again();
        } else {
            _on_close(error);
        }
    }

    void flows() {
        _has_media = true;
        const auto schema = getUrl().substr(0, 4);
        if (!_muxer) {
            _muxer = std::make_shared<MultiMediaSourceMuxer>(_tuple, _option);
            if (_option.makes_sources) {
                _muxer->start(shared_from_this(), schema);
            }
        }
        if (_option.makes_sources && !_passed_on && (schema == "rtsp" || schema == "rtmp")) {
            _passed_on = _muxer->passOn(schema);
        }
    }

    void tellFailed(const toolkit::SockException &error) {
        if (!lacks("PlayerProxyFailed")) {
            NOTICE_EMIT(BroadcastPlayerProxyFailedArgs, Broadcast::kBroadcastPlayerProxyFailed, *this, error);
        }
    }

    void answer(const toolkit::SockException &error) {
        if (_on_play) {
            _on_play(error);
            _on_play = nullptr;
        }
    }

    bool mayRetry() const { return _retry_count < 0 || _failed < _retry_count; }

    void again() {
        const std::weak_ptr<PlayerProxy> weak = shared_from_this();
        const int timer = ++_timer;
        _poller->doDelayTask(pauseMs(_failed++), [weak, timer]() -> uint64_t {
            const auto self = weak.lock();
            if (self && self->_timer == timer) {
                self->connect();
            }
            return 0;
        });
    }

    void setStatus(std::string status) {
        std::lock_guard<std::mutex> lock(_mutex);
        _status_str = std::move(status);
    }

    // The player's `media_timeout_ms`.
    static const int kMediaTimeoutMs = 5000;

    const MediaTuple _tuple;
    const ProtocolOption _option;
    const int _retry_count;
    const toolkit::EventPoller::Ptr _poller;
    int _timeout_ms = 10000;
    Told _on_play, _on_close = [](const toolkit::SockException &) {};
    std::function<void(const TranslationInfo &)> _on_connect;
    std::function<void()> _on_disconnect;
    int _failed = 0;
    // The pause before its next connect; the last one counts, until it has connected.
    int _timer = 0;
    bool _has_media = false;
    std::atomic<int> _status{1};
    std::atomic<uint64_t> _repull_count{0};
    // It is listed before it plays, by whatever thread asks.
    mutable std::mutex _mutex;
    std::string _url, _status_str;
    Connection::Ptr _connection;
    MultiMediaSourceMuxer::Ptr _muxer;
    // Of the protocol that it is pulled by. It goes when it connects again, whatever becomes of the others, and comes with
    // the first media (`rtsp.directProxy`, `rtmp.directProxy`).
    MediaSource::Ptr _passed_on;
};

} // namespace mediakit

#endif
