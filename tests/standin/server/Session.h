// A client's connection, all of it on one poller: HTTP, where requests are answered in their order, or what stands for
// RTMP. It keeps itself until it is hung up.
#ifndef ZLM_JOURNAL_STANDIN_SESSION_H
#define ZLM_JOURNAL_STANDIN_SESSION_H

#include "connection.h"

class Session : public mediakit::HttpSession, public mediakit::MediaSourceEvent {
public:
    using Input = void (Session::*)();

    static void start(int fd, const sockaddr_in &peer, Input input) {
        auto socket = toolkit::Socket::createSocket(toolkit::EventPollerPool::Instance().getPoller(false));
        char ip[INET_ADDRSTRLEN] = "";
        inet_ntop(AF_INET, &peer.sin_addr, ip, sizeof(ip));
        socket->peer_ip = ip;
        socket->peer_port = ntohs(peer.sin_port);
        const auto self = std::make_shared<Session>(fd, socket, input);
        self->getPoller()->async(
            [self, fd] { self->getPoller()->addEvent(fd, EPOLLIN, [self](uint32_t events) { self->happened(events); }); });
    }

    Session(int fd, const toolkit::Socket::Ptr &socket, Input input)
        : HttpSession(socket)
        , _fd(fd)
        , _input_is(input) {}

    std::string getIdentifier() const override { return std::to_string(reinterpret_cast<uintptr_t>(this)); }
    void onRecv(const toolkit::Buffer::Ptr &) override {}
    void onError(const toolkit::SockException &) override {}
    void onManager() override {}

    // On its poller.
    void shutdown(const toolkit::SockException & = toolkit::SockException()) override {
        const int fd = _fd;
        _fd = -1;
        if (fd >= 0) {
            const auto self = shared_from_this();
            getPoller()->closeEvent(fd);
            _reader = nullptr;
            _published = nullptr;
        }
    }

    bool close(mediakit::MediaSource &) override {
        shutdown();
        return true;
    }
    toolkit::EventPoller::Ptr getOwnerPoller(mediakit::MediaSource &) override { return getPoller(); }

    void http() {
        while (_fd >= 0 && !_is_busy) {
            const auto end = _input.find("\r\n\r\n");
            if (end == std::string::npos) {
                return;
            }
            mediakit::Parser parser;
            parser.parse(_input.data(), end + 4);
            const size_t length = strtoul(parser["Content-Length"].c_str(), nullptr, 10);
            if (length > 0 && !_is_announced && (parser.method() == "POST" || parser.method() == "PUT")) {
                using namespace mediakit;
                _is_announced = true;
                HttpBody::Ptr body;
                NOTICE_EMIT(
                    BroadcastBeforeHttpRequestArgs, Broadcast::kBroadcastBeforeHttpRequest, parser, body,
                    static_cast<HttpSession &>(*this));
            }
            if (length > maxReqSize()) {
                WarnL << "a body of " << length << " bytes: http.maxReqSize is less";
                shutdown();
                return;
            }
            if (_input.size() < end + 4 + length) {
                return;
            }
            parser.setContent(_input.substr(end + 4, length));
            _input.erase(0, end + 4 + length);
            _is_announced = false;
            _is_busy = true;
            handle(parser);
        }
    }

    void rtmp() {
        const auto end = _input.find('\n');
        if (end == std::string::npos || _is_busy) {
            return;
        }
        _is_busy = true;
        const std::string line = _input.substr(0, end);
        const auto info = StreamUrl("rtmp://127.0.0.1:0/" + line.substr(line.find(' ') + 1)).info();
        if (line.compare(0, 8, "PUBLISH ") == 0) {
            mediakit::ProtocolOption option;
            option.auto_close = toolkit::configured("protocol.auto_close").as<bool>();
            _published = std::make_shared<mediakit::MultiMediaSourceMuxer>(info, option);
            try {
                _published->start(std::static_pointer_cast<Session>(shared_from_this()));
                send(".");
            } catch (const std::exception &error) {
                WarnL << error.what();
                shutdown();
            }
        } else if (line.compare(0, 5, "PLAY ") == 0) {
            watch(info, ".");
        } else {
            shutdown();
        }
    }

private:
    void happened(uint32_t events) {
        if (events & EPOLLOUT) {
            flush();
        }
        char piece[65536];
        while (_fd >= 0 && (events & ~EPOLLOUT)) {
            const ssize_t got = recv(_fd, piece, sizeof(piece), 0);
            if (got <= 0) {
                if (got == 0 || errno != EAGAIN) {
                    shutdown();
                }
                break;
            }
            _input.append(piece, got);
        }
        if (_fd >= 0) {
            (this->*_input_is)();
        }
    }

    void send(const std::string &text) {
        _output += text;
        flush();
    }

    void flush() {
        const bool waited = !_output.empty();
        const ssize_t sent = _fd < 0 ? 0 : ::send(_fd, _output.data(), _output.size(), MSG_NOSIGNAL);
        if (sent > 0) {
            _output.erase(0, sent);
        }
        if (_fd >= 0 && waited) {
            getPoller()->modifyEvent(_fd, _output.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT);
        }
    }

    void handle(const mediakit::Parser &parser) {
        using namespace mediakit;
        const auto self = std::static_pointer_cast<Session>(shared_from_this());
        // Whoever answers, on whatever thread, the reply is sent on this one.
        const HttpResponseInvokerImp invoker(HttpResponseInvokerImp::HttpResponseInvokerLambda0(
            [self](int status, const StrCaseMap &headers, const HttpBody::Ptr &body) {
                self->getPoller()->async([self, status, headers, body] { self->reply(status, headers, body); });
            }));
        if (parser.method() == "HEAD") {
            reply(200, StrCaseMap(), nullptr);
            return;
        }
        bool consumed = false;
        NOTICE_EMIT(
            BroadcastHttpRequestArgs, Broadcast::kBroadcastHttpRequest, parser, invoker, consumed,
            static_cast<toolkit::SockInfo &>(*this));
        if (consumed) {
            return;
        }
        // A player of "/app/stream.live.flv".
        const std::string &path = parser.url(), tail = ".live.flv";
        const auto slash = path.find('/', 1);
        if (slash != std::string::npos && path.size() > slash + 1 + tail.size()
            && path.compare(path.size() - tail.size(), tail.size(), tail) == 0) {
            const MediaInfo info(
                "rtmp",
                {vhostOf(""), path.substr(1, slash - 1), path.substr(slash + 1, path.size() - slash - 1 - tail.size())});
            watch(info, "HTTP/1.1 200 OK\r\nContent-Type: video/x-flv\r\n\r\nFLV");
        } else {
            invoker(404, StrCaseMap(), "not found");
        }
    }

    void reply(int status, const mediakit::StrCaseMap &headers, const mediakit::HttpBody::Ptr &body) {
        if (!_is_busy || _fd < 0) {
            return;
        }
        const auto content = body ? body->readData(body->remainSize()) : std::make_shared<toolkit::Buffer>("");
        std::ostringstream text;
        text << "HTTP/1.1 " << status << (status == 200 ? " OK" : " Other") << "\r\nContent-Length: " << content->size()
             << "\r\n";
        for (const auto &header : headers) {
            if (strcasecmp(header.first.c_str(), "Content-Length") != 0) {
                text << header.first << ": " << header.second << "\r\n";
            }
        }
        text << "\r\n" << std::string(content->data(), content->size());
        send(text.str());
        _is_busy = false;
        // In a turn of its own: this one may be within the handler.
        const auto self = std::static_pointer_cast<Session>(shared_from_this());
        getPoller()->async([self] { self->http(); }, false);
    }

    // Watches a stream until it or the player goes. Where it is not there, waits for it as long as the ini says, or until
    // somebody says that it will not come.
    void watch(const mediakit::MediaInfo &info, const std::string &greeting) {
        using namespace mediakit;
        if (startToWatch(info, greeting)) {
            return;
        }
        const auto is_refused = std::make_shared<std::atomic<bool>>(false);
        const std::function<void()> refuse = [is_refused] { *is_refused = true; };
        NOTICE_EMIT(
            BroadcastNotFoundStreamArgs, Broadcast::kBroadcastNotFoundStream, info, static_cast<toolkit::SockInfo &>(*this),
            refuse);
        GET_CONFIG(int, wait_ms, "general.maxStreamWaitMS");
        const auto deadline = toolkit::Clock::now() + std::chrono::milliseconds(wait_ms);
        const auto self = std::static_pointer_cast<Session>(shared_from_this());
        getPoller()->doDelayTask(10, [self, info, greeting, deadline, is_refused]() -> uint64_t {
            if (self->_fd < 0 || self->startToWatch(info, greeting)) {
                return 0;
            }
            if (toolkit::Clock::now() < deadline && !*is_refused) {
                return 10;
            }
            if (self->_input_is == &Session::http) {
                self->reply(404, StrCaseMap(), std::make_shared<HttpBody>("not found"));
            } else {
                self->shutdown();
            }
            return 0;
        });
    }

    bool startToWatch(const mediakit::MediaInfo &info, const std::string &greeting) {
        const auto source = mediakit::MediaSource::find("rtmp", info.vhost, info.app, info.stream);
        if (!source) {
            return false;
        }
        const std::weak_ptr<SocketHelper> weak = shared_from_this();
        _reader = source->attach(getPoller(), [weak] {
            if (const auto self = weak.lock()) {
                self->shutdown();
            }
        });
        send(greeting);
        return true;
    }

    int _fd;
    const Input _input_is;
    std::string _input, _output;
    // An answer is awaited, or a stream goes through here.
    bool _is_busy = false;
    // Its headers are there and have been told of.
    bool _is_announced = false;
    mediakit::MultiMediaSourceMuxer::Ptr _published;
    mediakit::MediaReader::Ptr _reader;
};

#endif
