// The stand-in's proxies: pulls, pushes and FFmpeg sources. See ../README.md.
#ifndef ZLM_JOURNAL_STANDIN_PROXIES_H
#define ZLM_JOURNAL_STANDIN_PROXIES_H

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "streams.h"

class PlayerProxy : public std::enable_shared_from_this<PlayerProxy> {
public:
    using Ptr = std::shared_ptr<PlayerProxy>;

    PlayerProxy(mediakit::MediaTuple tuple, std::string url, int retries, int timeout_ms, bool auto_close)
        : tuple(std::move(tuple))
        , url(std::move(url))
        , _retries(retries)
        , _timeout_ms(timeout_ms)
        , _auto_close(auto_close)
        , _poller(toolkit::EventPollerPool::Instance().getPoller()) {}

    ~PlayerProxy() {
        stop();
        if (on_first) {
            on_first("player proxy close"); // an add is not left without its answer
        }
    }

    void play() {
        std::weak_ptr<PlayerProxy> weak = shared_from_this();
        auto poller = _poller;
        Connector::Instance().connect("PLAY", url, _timeout_ms, [weak, poller](const std::string &error, int fd) {
            poller->async([weak, error, fd] {
                if (auto self = weak.lock()) {
                    self->played(error, fd);
                } else if (fd >= 0) {
                    ::close(fd);
                }
            }, false);
        });
    }

    bool close() {
        stop();
        on_close();
        return true;
    }

    const mediakit::MediaTuple tuple;
    const std::string url;
    std::function<void(const std::string &error)> on_first;
    std::function<void()> on_close;
    std::atomic<bool> live{false};
    std::atomic<int64_t> retried{0};

private:
    void played(const std::string &error, int fd) {
        if (error.empty()) {
            _fd = fd;
            start();
        }
        const bool again = !error.empty() && retries();
        if (on_first) {
            auto first = std::move(on_first);
            on_first = nullptr;
            first(error);
        }
        if (!error.empty() && !again) {
            on_close();
        }
    }

    // False where it has given up.
    bool retries() {
        if (_retries == 0) {
            return false;
        }
        _retries -= _retries > 0;
        ++retried;
        std::weak_ptr<PlayerProxy> weak = shared_from_this();
        _poller->doDelayTask(1000, [weak]() -> uint64_t {
            auto self = weak.lock();
            // One that does nothing any more, where a test asks for that.
            const char *stalls = getenv("STANDIN_STALLS_OF");
            if (self && !(stalls && self->url.find(stalls) != std::string::npos)) {
                self->play();
            }
            return 0;
        });
        return true;
    }

    void start() {
        live = true;
        std::weak_ptr<PlayerProxy> weak = shared_from_this();
        auto stream = std::make_shared<Stream>(tuple, [weak] {
            auto self = weak.lock();
            return self && self->close();
        });
        std::atomic_store(&_stream, stream);
        watchIdle(_poller, stream->watched(), _auto_close);
        std::weak_ptr<mediakit::MediaSource> watched = stream->watched();
        _poller->doDelayTask(250, [weak, watched]() -> uint64_t {
            auto self = weak.lock();
            char byte;
            if (!self || !watched.lock() || !self->live) {
                return 0;
            }
            if (recv(self->_fd, &byte, 1, MSG_DONTWAIT) == 0) {
                self->stop();
                if (!self->retries()) {
                    self->on_close();
                }
                return 0;
            }
            return 250;
        });
    }

    void stop() {
        live = false;
        std::atomic_exchange(&_stream, std::shared_ptr<Stream>());
        const int fd = _fd.exchange(-1);
        if (fd >= 0) {
            ::close(fd);
        }
    }

    int _retries;
    const int _timeout_ms;
    const bool _auto_close;
    const toolkit::EventPoller::Ptr _poller;
    std::shared_ptr<Stream> _stream;
    std::atomic<int> _fd{-1};
};

// Sends a stream of this server to another; ends for good when that stream goes.
class PusherProxy : public std::enable_shared_from_this<PusherProxy> {
public:
    using Ptr = std::shared_ptr<PusherProxy>;

    PusherProxy(const mediakit::MediaSource::Ptr &source, std::string url, int retries, int timeout_ms)
        : tuple(source->getMediaTuple())
        , url(std::move(url))
        , _source(source)
        , _retries(retries)
        , _timeout_ms(timeout_ms)
        , _poller(toolkit::EventPollerPool::Instance().getPoller()) {}

    ~PusherProxy() {
        stop();
        if (on_first) {
            on_first("pusher proxy close");
        }
    }

    void publish() {
        std::weak_ptr<PusherProxy> weak = shared_from_this();
        auto poller = _poller;
        Connector::Instance().connect("PUBLISH", url, _timeout_ms, [weak, poller](const std::string &error, int fd) {
            poller->async([weak, error, fd] {
                if (auto self = weak.lock()) {
                    self->published(error, fd);
                } else if (fd >= 0) {
                    ::close(fd);
                }
            }, false);
        });
    }

    const mediakit::MediaTuple tuple;
    const std::string url;
    std::function<void(const std::string &error)> on_first;
    std::function<void()> on_close;
    std::atomic<bool> live{false};
    std::atomic<int64_t> retried{0};

private:
    bool hasSource() const {
        auto source = _source.lock();
        return source
            && mediakit::MediaSource::find(source->getSchema(), tuple.vhost, tuple.app, tuple.stream) == source;
    }

    void published(const std::string &error, int fd) {
        if (error.empty()) {
            _fd = fd;
            live = true;
        }
        if (on_first) {
            // A first push that fails is not retried: whoever asked for it is told, and drops it.
            auto first = std::move(on_first);
            on_first = nullptr;
            first(error);
        } else if (!error.empty() && !retries()) {
            on_close();
        }
        if (error.empty()) {
            watch();
        }
    }

    void watch() {
        std::weak_ptr<PusherProxy> weak = shared_from_this();
        _poller->doDelayTask(50, [weak]() -> uint64_t {
            auto self = weak.lock();
            if (!self || !self->live) {
                return 0;
            }
            char byte;
            const bool fed = self->hasSource();
            if (fed && recv(self->_fd, &byte, 1, MSG_DONTWAIT) != 0) {
                return 50;
            }
            self->stop();
            if (!fed || !self->retries()) {
                self->on_close();
            }
            return 0;
        });
    }

    bool retries() {
        if (_retries == 0) {
            return false;
        }
        _retries -= _retries > 0;
        ++retried;
        std::weak_ptr<PusherProxy> weak = shared_from_this();
        _poller->doDelayTask(1000, [weak]() -> uint64_t {
            auto self = weak.lock();
            if (self && self->hasSource()) {
                self->publish();
            } else if (self) {
                self->on_close();
            }
            return 0;
        });
        return true;
    }

    void stop() {
        live = false;
        const int fd = _fd.exchange(-1);
        if (fd >= 0) {
            ::close(fd);
        }
    }

    const std::weak_ptr<mediakit::MediaSource> _source;
    int _retries;
    const int _timeout_ms;
    const toolkit::EventPoller::Ptr _poller;
    std::atomic<int> _fd{-1};
};

// A process that takes a stream from anywhere and pushes it to this server or to another.
class FFmpegSource : public std::enable_shared_from_this<FFmpegSource> {
public:
    using Ptr = std::shared_ptr<FFmpegSource>;

    FFmpegSource(std::string cmd_key, std::string src_url, std::string dst_url, int timeout_ms)
        : cmd_key(std::move(cmd_key))
        , src_url(std::move(src_url))
        , dst_url(std::move(dst_url))
        , _timeout_ms(timeout_ms)
        , _poller(toolkit::EventPollerPool::Instance().getPoller()) {}

    ~FFmpegSource() { stop(); }

    void play() {
        start();
        std::weak_ptr<FFmpegSource> weak = shared_from_this();
        const auto deadline = Clock::now() + std::chrono::milliseconds(_timeout_ms);
        _poller->doDelayTask(20, [weak, deadline]() -> uint64_t {
            auto self = weak.lock();
            if (!self) {
                return 0;
            }
            const bool is_here = StreamUrl(self->dst_url).host == "127.0.0.1";
            auto source = self->stream();
            if (is_here && source) {
                source->takeOver([weak] {
                    auto self = weak.lock();
                    return self && self->close();
                });
                self->answer("");
            } else if (!self->isRunning()) {
                self->answer("the process has ended");
            } else if (Clock::now() > deadline) {
                self->answer(is_here ? "play timeout" : "");
            } else {
                return 20;
            }
            return 0;
        });
    }

    bool close() {
        stop();
        on_close();
        return true;
    }

    const std::string cmd_key, src_url, dst_url;
    std::function<void(const std::string &error)> on_first;
    std::function<void()> on_close;

private:
    mediakit::MediaSource::Ptr stream() const {
        const auto tuple = StreamUrl(dst_url).tuple();
        return mediakit::MediaSource::find("rtmp", tuple.vhost, tuple.app, tuple.stream);
    }

    void answer(const std::string &error) {
        if (error.empty()) {
            keepRunning();
        }
        auto first = std::move(on_first);
        on_first = nullptr;
        first(error);
    }

    void keepRunning() {
        std::weak_ptr<FFmpegSource> weak = shared_from_this();
        _poller->doDelayTask(1000, [weak]() -> uint64_t {
            auto self = weak.lock();
            if (!self || self->_ended) {
                return 0;
            }
            if (!self->isRunning()) {
                self->start();
            }
            return 1000;
        });
    }

    void start() {
        auto &ini = toolkit::mINI::Instance();
        const auto own = ini.find(cmd_key);
        char line[4096];
        // As in the host, a template that is not there is replaced by the usual one.
        snprintf(line, sizeof(line), (own == ini.end() ? ini["ffmpeg.cmd"] : own->second).c_str(),
                 ini["ffmpeg.bin"].c_str(), src_url.c_str(), dst_url.c_str());
        std::istringstream words(line);
        std::vector<std::string> args;
        for (std::string word; words >> word;) {
            args.push_back(word);
        }
        std::vector<char *> argv;
        for (auto &arg : args) {
            argv.push_back(&arg[0]);
        }
        argv.push_back(nullptr);
        const pid_t child = fork();
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            execv(argv[0], argv.data());
            _exit(127);
        }
        _pid = child;
    }

    bool isRunning() {
        const pid_t pid = _pid;
        if (pid > 0 && waitpid(pid, nullptr, WNOHANG) != 0) {
            _pid = -1;
        }
        return _pid > 0;
    }

    void stop() {
        _ended = true;
        const pid_t pid = _pid.exchange(-1);
        if (pid > 0) {
            kill(pid, SIGKILL);
            waitpid(pid, nullptr, 0);
        }
    }

    const int _timeout_ms;
    const toolkit::EventPoller::Ptr _poller;
    std::atomic<pid_t> _pid{-1};
    std::atomic<bool> _ended{false};
};

// All proxies of a kind. Destructors run under the lock, as they may in the host: the glue has to live with that.
template <typename Proxy>
class Proxies {
public:
    using Ptr = std::shared_ptr<Proxy>;

    Ptr find(const std::string &key) {
        std::lock_guard<std::recursive_mutex> lock(_mutex);
        auto it = _map.find(key);
        return it == _map.end() ? nullptr : it->second;
    }
    void insert(const std::string &key, Ptr proxy) {
        std::lock_guard<std::recursive_mutex> lock(_mutex);
        _map.emplace(key, std::move(proxy));
    }
    size_t erase(const std::string &key) {
        std::lock_guard<std::recursive_mutex> lock(_mutex);
        auto it = _map.find(key);
        if (it == _map.end()) {
            return 0;
        }
        // Its destructor may come back here.
        const Ptr last = std::move(it->second);
        _map.erase(it);
        return 1;
    }
    void clear() {
        std::lock_guard<std::recursive_mutex> lock(_mutex);
        std::map<std::string, Ptr> last;
        last.swap(_map);
    }
    void forEach(const std::function<void(const std::string &, const Ptr &)> &each) {
        std::lock_guard<std::recursive_mutex> lock(_mutex);
        for (const auto &pair : _map) {
            each(pair.first, pair.second);
        }
    }

private:
    std::recursive_mutex _mutex;
    std::map<std::string, Ptr> _map;
};

#endif
