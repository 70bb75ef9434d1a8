// Streams of the stand-in, and the connections that they come and go by. See ../README.md.
#ifndef ZLM_JOURNAL_STANDIN_STREAMS_H
#define ZLM_JOURNAL_STANDIN_STREAMS_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "standin.h"

using Clock = std::chrono::steady_clock;

// scheme://[user@]host:port/app/stream
struct StreamUrl {
    explicit StreamUrl(const std::string &url) {
        const auto scheme = url.find("://");
        const auto begin = scheme == std::string::npos ? 0 : scheme + 3;
        const auto slash = std::min(url.find('/', begin), url.size());
        std::string authority = url.substr(begin, slash - begin);
        // Whoever logs in is let in.
        authority.erase(0, authority.rfind('@') + 1);
        const auto colon = authority.find(':');
        host = authority.substr(0, colon);
        path = url.substr(std::min(slash + 1, url.size()));
        address.sin_family = AF_INET;
        address.sin_port = htons(static_cast<uint16_t>(colon == std::string::npos ? 0 : atoi(authority.c_str() + colon + 1)));
        good = colon != std::string::npos && inet_pton(AF_INET, host.c_str(), &address.sin_addr) == 1;
    }

    mediakit::MediaTuple tuple() const {
        const auto slash = path.find('/');
        return {"__defaultVhost__", path.substr(0, slash), slash == std::string::npos ? "" : path.substr(slash + 1)};
    }

    bool good;
    std::string host;
    // "app/stream"
    std::string path;
    sockaddr_in address{};
};

// A stream while it is there: one source for each schema that it can be had by.
class Stream {
public:
    Stream(const mediakit::MediaTuple &tuple, const std::function<bool()> &close) {
        for (const auto schema : {"rtmp", "rtsp"}) {
            _sources.push_back(std::make_shared<mediakit::MediaSource>(schema, tuple, close));
        }
        for (const auto &source : _sources) {
            {
                std::lock_guard<std::mutex> lock(mediakit::MediaSource::mutex());
                mediakit::MediaSource::all()[source->getSchema() + "/" + tuple.shortUrl()] = source;
            }
            NOTICE_EMIT(BroadcastMediaChangedArgs, mediakit::Broadcast::kBroadcastMediaChanged, true, *source);
        }
    }
    ~Stream() {
        for (const auto &source : _sources) {
            {
                std::lock_guard<std::mutex> lock(mediakit::MediaSource::mutex());
                mediakit::MediaSource::all().erase(source->getSchema() + "/" + source->getMediaTuple().shortUrl());
            }
            NOTICE_EMIT(BroadcastMediaChangedArgs, mediakit::Broadcast::kBroadcastMediaChanged, false, *source);
        }
    }
    Stream(const Stream &) = delete;

    // What players over HTTP and RTMP watch.
    const mediakit::MediaSource::Ptr &watched() const { return _sources.front(); }

private:
    std::vector<mediakit::MediaSource::Ptr> _sources;
};

// Tells, once, of a stream that nobody has watched for as long as the ini says, and closes it where that is asked for.
inline void watchIdle(
    const toolkit::EventPoller::Ptr &poller, const std::weak_ptr<mediakit::MediaSource> &watched, bool auto_close) {
    const int delay_ms = std::max(1, atoi(toolkit::mINI::Instance()["general.streamNoneReaderDelayMS"].c_str()));
    auto idle_since = std::make_shared<Clock::time_point>(Clock::now());
    poller->doDelayTask(250, [watched, delay_ms, idle_since, auto_close]() -> uint64_t {
        const auto source = watched.lock();
        if (!source) {
            return 0;
        }
        if (source->readers > 0) {
            *idle_since = Clock::time_point::max();
        } else if (*idle_since == Clock::time_point::max()) {
            *idle_since = Clock::now();
        } else if (Clock::now() - *idle_since > std::chrono::milliseconds(delay_ms)) {
            *idle_since = Clock::now() + std::chrono::hours(1000);
            NOTICE_EMIT(BroadcastStreamNoneReaderArgs, mediakit::Broadcast::kBroadcastStreamNoneReader, *source);
            if (auto_close) {
                source->close(false);
                return 0;
            }
        }
        return 250;
    });
}

// Connects to other servers, all on one thread.
class Connector {
public:
    // Told once: an empty text when the other side has sent something (then `fd` is the connection), or what is wrong.
    using Done = std::function<void(const std::string &error, int fd)>;

    static Connector &Instance() {
        static Connector *connector = new Connector;
        return *connector;
    }

    // `verb`: PLAY or PUBLISH.
    void connect(const std::string &verb, const std::string &url, int timeout_ms, Done done) {
        const StreamUrl to(url);
        const int fd = to.good ? socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0) : -1;
        if (fd < 0) {
            done("the url names no server", -1);
            return;
        }
        (void)::connect(fd, reinterpret_cast<const sockaddr *>(&to.address), sizeof(to.address));
        std::lock_guard<std::mutex> lock(_mutex);
        _waiting.push_back({fd, verb + " " + to.path + "\n", Clock::now() + std::chrono::milliseconds(timeout_ms),
                            std::move(done)});
        eventfd_write(_wake, 1);
    }

private:
    struct Waiting {
        int fd;
        std::string unsaid;
        Clock::time_point deadline;
        Done done;
    };

    Connector() {
        std::thread([this] { run(); }).detach();
    }

    void run() {
        std::vector<Waiting> waiting;
        while (true) {
            {
                std::lock_guard<std::mutex> lock(_mutex);
                for (auto &one : _waiting) {
                    waiting.push_back(std::move(one));
                }
                _waiting.clear();
            }
            std::vector<pollfd> fds;
            for (const auto &one : waiting) {
                fds.push_back({one.fd, static_cast<short>(one.unsaid.empty() ? POLLIN : POLLOUT), 0});
            }
            fds.push_back({_wake, POLLIN, 0});
            ::poll(fds.data(), fds.size(), 20);
            eventfd_t calls;
            (void)eventfd_read(_wake, &calls);
            std::vector<Waiting> still;
            for (size_t n = 0; n < waiting.size(); ++n) {
                auto &one = waiting[n];
                char byte;
                if (fds[n].revents == POLLOUT
                    && send(one.fd, one.unsaid.data(), one.unsaid.size(), MSG_NOSIGNAL) == ssize_t(one.unsaid.size())) {
                    one.unsaid.clear();
                    still.push_back(std::move(one));
                } else if (fds[n].revents && one.unsaid.empty() && recv(one.fd, &byte, 1, 0) == 1) {
                    one.done("", one.fd);
                } else if (fds[n].revents || Clock::now() > one.deadline) {
                    ::close(one.fd);
                    one.done(fds[n].revents ? "connection refused" : "play timeout", -1);
                } else {
                    still.push_back(std::move(one));
                }
            }
            waiting.swap(still);
        }
    }

    const int _wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    std::mutex _mutex;
    std::vector<Waiting> _waiting;
};

// The stream, which a player waits for as long as the ini says; none where it does not come.
inline mediakit::MediaSource::Ptr awaitStream(const mediakit::MediaTuple &tuple, toolkit::SockInfo &player) {
    using mediakit::MediaSource;
    auto source = MediaSource::find("rtmp", tuple.vhost, tuple.app, tuple.stream);
    if (!source) {
        const std::function<void()> close = [] {};
        NOTICE_EMIT(BroadcastNotFoundStreamArgs, mediakit::Broadcast::kBroadcastNotFoundStream, tuple, player, close);
        const int wait_ms = atoi(toolkit::mINI::Instance()["general.maxStreamWaitMS"].c_str());
        for (int ms = 0; !source && ms < wait_ms; ms += 10) {
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
            source = MediaSource::find("rtmp", tuple.vhost, tuple.app, tuple.stream);
        }
    }
    return source;
}

// Watches a stream until it or the player goes.
inline void watchStream(const mediakit::MediaSource::Ptr &source, int fd) {
    const auto &tuple = source->getMediaTuple();
    ++source->readers;
    char byte;
    while (recv(fd, &byte, 1, MSG_DONTWAIT) != 0
           && mediakit::MediaSource::find("rtmp", tuple.vhost, tuple.app, tuple.stream) == source) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    --source->readers;
}

#endif
