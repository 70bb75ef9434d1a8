// Errors and peers of connections, as the glue and the API see them.
#ifndef ZLM_JOURNAL_STANDIN_SOCKET_H
#define ZLM_JOURNAL_STANDIN_SOCKET_H

#include <exception>
#include <memory>
#include <string>

#include "toolkit/poller.h"

namespace toolkit {

enum ErrCode { Err_success = 0, Err_eof, Err_timeout, Err_refused, Err_reset, Err_dns, Err_shutdown, Err_other = 0xff };

// True where it is an error.
class SockException : public std::exception {
public:
    SockException(ErrCode code = Err_success, std::string message = "")
        : _code(code)
        , _message(std::move(message)) {}
    const char *what() const noexcept override { return _message.c_str(); }
    ErrCode getErrCode() const { return _code; }
    operator bool() const { return _code != Err_success; }

private:
    ErrCode _code;
    std::string _message;
};

class Buffer {
public:
    using Ptr = std::shared_ptr<Buffer>;
    explicit Buffer(std::string content)
        : _content(std::move(content)) {}
    char *data() const { return const_cast<char *>(_content.data()); }
    size_t size() const { return _content.size(); }

private:
    const std::string _content;
};

// Knows its poller, and who is at the other end; none for one that is not connected.
class Socket {
public:
    using Ptr = std::shared_ptr<Socket>;
    static Ptr createSocket(const EventPoller::Ptr &poller = nullptr, bool = true) {
        auto socket = std::make_shared<Socket>();
        socket->poller = poller ? poller : EventPollerPool::Instance().getPoller();
        return socket;
    }
    EventPoller::Ptr poller;
    std::string peer_ip;
    uint16_t peer_port = 0;
};

class SockInfo {
public:
    virtual ~SockInfo() = default;
    virtual std::string get_local_ip() = 0;
    virtual uint16_t get_local_port() = 0;
    virtual std::string get_peer_ip() = 0;
    virtual uint16_t get_peer_port() = 0;
    virtual std::string getIdentifier() const { return ""; }
};

class SocketHelper : public SockInfo, public std::enable_shared_from_this<SocketHelper> {
public:
    using Ptr = std::shared_ptr<SocketHelper>;
    explicit SocketHelper(const Socket::Ptr &socket)
        : _socket(socket) {}

    const EventPoller::Ptr &getPoller() const { return _socket->poller; }
    std::string get_local_ip() override { return "127.0.0.1"; }
    uint16_t get_local_port() override { return 0; }
    std::string get_peer_ip() override { return _socket->peer_ip; }
    uint16_t get_peer_port() override { return _socket->peer_port; }
    // Hangs up.
    virtual void shutdown(const SockException & = SockException(Err_shutdown, "self shutdown")) {}
    virtual void onRecv(const Buffer::Ptr &) = 0;
    virtual void onError(const SockException &) = 0;
    virtual void onManager() = 0;

private:
    const Socket::Ptr _socket;
};

} // namespace toolkit

#endif
