// The connections by which streams come and go between servers. What stands for RTMP and RTSP: a line "PLAY app/stream" or
// "PUBLISH app/stream", and one byte from the other side when that works: a dot that is the first media as well,
// a comma where none have come yet.
#ifndef ZLM_JOURNAL_STANDIN_CONNECTION_H
#define ZLM_JOURNAL_STANDIN_CONNECTION_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "standin.h"

// scheme://[user@]host:port/app/stream[?query]
struct StreamUrl {
    explicit StreamUrl(const std::string &url) {
        const auto colons = url.find("://");
        const auto begin = colons == std::string::npos ? 0 : colons + 3;
        schema = url.substr(0, colons == std::string::npos ? 0 : colons);
        const auto slash = std::min(url.find('/', begin), url.size());
        std::string authority = url.substr(begin, slash - begin);
        // Whoever logs in is let in.
        authority.erase(0, authority.rfind('@') + 1);
        const auto colon = authority.find(':');
        host = authority.substr(0, colon);
        path = url.substr(std::min(slash + 1, url.size()));
        path.erase(std::min(path.find('?'), path.size()));
        const std::string ip = host == "localhost" ? "127.0.0.1" : host;
        address.sin_family = AF_INET;
        address.sin_port =
            htons(static_cast<uint16_t>(colon == std::string::npos ? 0 : atoi(authority.c_str() + colon + 1)));
        good = colon != std::string::npos && inet_pton(AF_INET, ip.c_str(), &address.sin_addr) == 1;
    }

    // What stands in a URL that names a stream of this server.
    mediakit::MediaInfo info() const {
        const auto slash = path.find('/');
        in_addr ip;
        const bool is_ip = host == "localhost" || inet_pton(AF_INET, host.c_str(), &ip) == 1;
        mediakit::MediaInfo info(
            schema,
            {mediakit::vhostOf(is_ip ? "" : host), path.substr(0, slash),
             slash == std::string::npos ? "" : path.substr(slash + 1)});
        info.host = host;
        return info;
    }

    bool good;
    std::string schema, host;
    // "app/stream"
    std::string path;
    sockaddr_in address{};
};

// One try to play or publish. All of it happens on its poller but the end, which can be anywhere.
class Connection : public std::enable_shared_from_this<Connection> {
public:
    using Ptr = std::shared_ptr<Connection>;
    using Told = std::function<void(const toolkit::SockException &)>;

    // `result` is told once, of the first byte or what is wrong; then `lost`, once, when the other side goes. A URL that
    // names no server is told of within this call.
    static Ptr open(
        const toolkit::EventPoller::Ptr &poller, const std::string &verb, const std::string &url, int timeout_ms,
        Told result, Told lost, std::function<void()> media = nullptr) {
        auto self = std::make_shared<Connection>(poller, std::move(result), std::move(lost));
        self->_media = std::move(media);
        const StreamUrl to(url);
        self->_fd = to.good ? socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0) : -1;
        if (self->_fd < 0) {
            self->fail(toolkit::SockException(toolkit::Err_other, "the url names no server"));
            return self;
        }
        self->_unsaid = verb + " " + to.path + "\n";
        (void)::connect(self->_fd, reinterpret_cast<const sockaddr *>(&to.address), sizeof(to.address));
        std::weak_ptr<Connection> weak = self;
        poller->addEvent(self->_fd, EPOLLOUT, [weak](uint32_t events) {
            if (const auto self = weak.lock()) {
                self->happened(events);
            }
        });
        self->_timeout = poller->doDelayTask(timeout_ms, [weak]() -> uint64_t {
            const auto self = weak.lock();
            if (self && !self->_plays) {
                self->fail(toolkit::SockException(toolkit::Err_timeout, "play timeout"));
            }
            return 0;
        });
        return self;
    }

    Connection(toolkit::EventPoller::Ptr poller, Told result, Told lost)
        : _poller(std::move(poller))
        , _result(std::move(result))
        , _lost(std::move(lost)) {}
    ~Connection() { hangUp(); }

private:
    void happened(uint32_t events) {
        char bytes[256];
        if (!_unsaid.empty()) {
            int error = 0;
            socklen_t size = sizeof(error);
            (void)getsockopt(_fd, SOL_SOCKET, SO_ERROR, &error, &size);
            if (error || (events & (EPOLLERR | EPOLLHUP))
                || send(_fd, _unsaid.data(), _unsaid.size(), MSG_NOSIGNAL) != ssize_t(_unsaid.size())) {
                fail(toolkit::SockException(toolkit::Err_refused, "connection refused"));
                return;
            }
            _unsaid.clear();
            _poller->modifyEvent(_fd, EPOLLIN);
            return;
        }
        const ssize_t got = recv(_fd, bytes, sizeof(bytes), 0);
        if (got == 0 || (got < 0 && errno != EAGAIN)) {
            fail(toolkit::SockException(toolkit::Err_eof, "end of file"));
        } else if (got > 0) {
            // A comma is a yes without media.
            const bool brings_media = std::string(bytes, size_t(got)).find_first_not_of(',') != std::string::npos;
            const auto self = shared_from_this();
            if (!_plays) {
                _plays = true;
                _timeout->cancel();
                _result(toolkit::SockException());
            }
            if (brings_media && _media) {
                const auto media = std::move(_media);
                _media = nullptr;
                media();
            }
        }
    }

    void fail(const toolkit::SockException &error) {
        hangUp();
        // Once: whoever is told may let this object go.
        const Told told = _plays ? _lost : _result;
        _result = _lost = nullptr;
        if (told) {
            told(error);
        }
    }

    void hangUp() {
        if (_timeout) {
            _timeout->cancel();
        }
        const int fd = _fd;
        _fd = -1;
        if (fd >= 0) {
            const auto poller = _poller;
            poller->async([poller, fd] { poller->closeEvent(fd); });
        }
    }

    const toolkit::EventPoller::Ptr _poller;
    Told _result, _lost;
    std::function<void()> _media;
    int _fd = -1;
    std::string _unsaid;
    bool _plays = false;
    toolkit::EventPoller::DelayTask::Ptr _timeout;
};

// Between a try that failed and the next, in the host's measure: longer each time.
inline int pauseMs(int failed) {
    return std::max(2000, std::min(failed * 3000, 60000));
}

// An older server, where a test asks for one: what it lacks, with commas between.
inline bool lacks(const std::string &what) {
    const char *lacking = getenv("STANDIN_LACKS");
    return lacking && ("," + std::string(lacking) + ",").find("," + what + ",") != std::string::npos;
}

#endif
