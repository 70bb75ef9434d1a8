// A push: sends a stream of this server to another, and ends for good when that stream goes.
#ifndef ZLM_JOURNAL_STANDIN_PUSHER_PROXY_H
#define ZLM_JOURNAL_STANDIN_PUSHER_PROXY_H

#include "connection.h"

namespace mediakit {

// One that is destroyed before its first result leaves its add without an answer: so does the host's.
class PusherProxy : public std::enable_shared_from_this<PusherProxy> {
public:
    using Ptr = std::shared_ptr<PusherProxy>;
    using Told = std::function<void(const toolkit::SockException &)>;

    PusherProxy(const MediaSource::Ptr &source, int retry_count)
        : _source(source)
        , _retry_count(retry_count)
        , _poller(toolkit::EventPollerPool::Instance().getPoller()) {}

    void setTimeoutMs(int timeout_ms) { _timeout_ms = timeout_ms; }
    void setPushCallbackOnce(Told told) { _on_publish = std::move(told); }
    void setOnClose(Told told) { _on_close = std::move(told); }

    // On its poller.
    void publish(const std::string &url) {
        {
            std::lock_guard<std::mutex> lock(_mutex);
            _url = url;
        }
        connect();
    }

    // None when it is gone.
    MediaSource::Ptr getSrc() const { return _source.lock(); }
    std::string getUrl() const {
        std::lock_guard<std::mutex> lock(_mutex);
        return _url;
    }
    toolkit::EventPoller::Ptr getPoller() const { return _poller; }
    // 0 while it is pushed, and after a loss until a connect fails.
    int getStatus() const { return _status; }
    uint64_t getRePublishCount() const { return _republish_count; }

private:
    void connect() {
        const std::weak_ptr<PusherProxy> weak = shared_from_this();
        const auto tell = [weak](void (PusherProxy::*what)(const toolkit::SockException &)) -> Told {
            return [weak, what](const toolkit::SockException &error) {
                if (const auto self = weak.lock()) {
                    (self.get()->*what)(error);
                }
            };
        };
        _connection = nullptr;
        const auto connection = Connection::open(
            _poller, "PUBLISH", getUrl(), _timeout_ms, tell(&PusherProxy::published), tell(&PusherProxy::lost));
        _connection = connection;
    }

    void published(const toolkit::SockException &result) {
        const auto source = getSrc();
        const auto error = result || source ? result : released();
        if (error) {
            _connection = nullptr;
        } else {
            // From here on it is one of the source's readers.
            const std::weak_ptr<PusherProxy> weak = shared_from_this();
            _reader = source->attach(_poller, [weak] {
                if (const auto self = weak.lock()) {
                    self->_connection = nullptr;
                    self->lost(released());
                }
            });
        }
        if (_on_publish) {
            _on_publish(error);
            _on_publish = nullptr;
        }
        if (!error) {
            _status = 0;
            _failed = 0;
        } else {
            _status = 1;
            retry(error);
        }
    }

    void lost(const toolkit::SockException &error) {
        _reader = nullptr;
        retry(error);
    }

    void retry(const toolkit::SockException &error) {
        if (getSrc() && (_retry_count < 0 || _failed < _retry_count)) {
            ++_republish_count;
            const std::weak_ptr<PusherProxy> weak = shared_from_this();
            const auto pause = pauseMs(_failed++);
            _poller->doDelayTask(pause, [weak, pause]() -> uint64_t {
                const auto self = weak.lock();
                if (self && self->getSrc()) {
                    self->connect();
                } else if (self && lacks("push_end")) {
                    WarnL << "media source (schema) and  push url not match";
                    return pause;
                } else if (self) {
                    self->_on_close(released());
                }
                return 0;
            });
        } else {
            _on_close(error);
        }
    }

    static toolkit::SockException released() {
        return toolkit::SockException(toolkit::Err_other, "the media source was released");
    }

    const std::weak_ptr<MediaSource> _source;
    const int _retry_count;
    const toolkit::EventPoller::Ptr _poller;
    int _timeout_ms = 10000;
    // It is listed before it publishes, by whatever thread asks.
    mutable std::mutex _mutex;
    std::string _url;
    Told _on_publish, _on_close = [](const toolkit::SockException &) {};
    int _failed = 0;
    std::atomic<int> _status{1};
    std::atomic<uint64_t> _republish_count{0};
    Connection::Ptr _connection;
    MediaReader::Ptr _reader;
};

} // namespace mediakit

#endif
