// The classes of the stand-in, under ZLMediaKit's names. See README.md.
#ifndef ZLM_JOURNAL_STANDIN_H
#define ZLM_JOURNAL_STANDIN_H

#include <strings.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace toolkit {

//////////////////////////////////////////////////////////// text

struct onceToken {
    explicit onceToken(const std::function<void()> &run) { run(); }
};

inline std::string exeDir() {
    char path[4096];
    const ssize_t len = readlink("/proc/self/exe", path, sizeof(path));
    const std::string exe(path, len > 0 ? len : 0);
    return exe.substr(0, exe.rfind('/') + 1);
}

// RFC 1321.
class MD5 {
public:
    explicit MD5(const std::string &text) {
        std::string padded = text + char(0x80);
        padded.append((120 - padded.size() % 64) % 64, 0);
        for (int n = 0; n < 8; ++n) {
            padded += char(uint64_t(text.size()) * 8 >> 8 * n);
        }
        for (size_t at = 0; at < padded.size(); at += 64) {
            block(reinterpret_cast<const unsigned char *>(padded.data()) + at);
        }
    }
    std::string hexdigest() const {
        std::string hex;
        for (int n = 0; n < 16; ++n) {
            char pair[3];
            snprintf(pair, sizeof(pair), "%02x", _state[n / 4] >> 8 * (n % 4) & 0xff);
            hex += pair;
        }
        return hex;
    }

private:
    void block(const unsigned char *bytes) {
        static const int turns[4][4] = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};
        uint32_t a = _state[0], b = _state[1], c = _state[2], d = _state[3];
        for (int n = 0; n < 64; ++n) {
            uint32_t mixed;
            int word;
            switch (n / 16) {
                case 0: mixed = (b & c) | (~b & d); word = n; break;
                case 1: mixed = (d & b) | (~d & c); word = (5 * n + 1) % 16; break;
                case 2: mixed = b ^ c ^ d; word = (3 * n + 5) % 16; break;
                default: mixed = c ^ (b | ~d); word = 7 * n % 16; break;
            }
            const unsigned char *at = bytes + 4 * word;
            const uint32_t part = at[0] | at[1] << 8 | at[2] << 16 | uint32_t(at[3]) << 24;
            const uint32_t sum = a + mixed + part + uint32_t(int64_t(std::fabs(std::sin(n + 1.0)) * 4294967296.0));
            const int by = turns[n / 16][n % 4];
            a = d;
            d = c;
            c = b;
            b += sum << by | sum >> (32 - by);
        }
        _state[0] += a;
        _state[1] += b;
        _state[2] += c;
        _state[3] += d;
    }

    uint32_t _state[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
};

struct SockUtil {
    static std::vector<std::map<std::string, std::string>> getInterfaceList() { return {{{"name", "lo"}, {"ip", "127.0.0.1"}}}; }
};

// One whole line to standard output when it goes out of scope.
class LogLine {
public:
    explicit LogLine(char level) { _line << level << ' '; }
    ~LogLine() {
        _line << '\n';
        static std::mutex mutex;
        std::lock_guard<std::mutex> lock(mutex);
        std::cout << _line.str() << std::flush;
    }
    template <typename T>
    LogLine &operator<<(const T &value) {
        _line << value;
        return *this;
    }

private:
    std::ostringstream _line;
};

class mINI : public std::map<std::string, std::string> {
public:
    static mINI &Instance() {
        static mINI *ini = new mINI;
        return *ini;
    }

    bool parseFile(const std::string &path) {
        std::ifstream file(path);
        std::string line, section;
        while (std::getline(file, line)) {
            const auto equals = line.find('=');
            if (!line.empty() && line[0] == '[') {
                section = line.substr(1, line.find(']') - 1);
            } else if (!line.empty() && line[0] != '#' && equals != std::string::npos) {
                (*this)[section + "." + line.substr(0, equals)] = line.substr(equals + 1);
            }
        }
        return file.eof();
    }

    void dumpFile(const std::string &path) const {
        std::ofstream file(path);
        std::string section;
        for (const auto &pair : *this) {
            const auto dot = pair.first.find('.');
            if (pair.first.substr(0, dot) != section) {
                section = pair.first.substr(0, dot);
                file << "[" << section << "]\n";
            }
            file << pair.first.substr(dot + 1) << "=" << pair.second << "\n";
        }
    }
};

//////////////////////////////////////////////////////////// pollers

class EventPoller {
public:
    using Ptr = std::shared_ptr<EventPoller>;

    EventPoller() {
        std::thread([this] { run(); }).detach();
    }

    // may_sync: run at once where this is the poller's own thread.
    void async(std::function<void()> task, bool may_sync = true) {
        if (may_sync && current() == this) {
            task();
            return;
        }
        std::lock_guard<std::mutex> lock(_mutex);
        _tasks.push_back(std::move(task));
        _wake.notify_one();
    }

    // Runs the task after so many milliseconds, and again after as many as it returns, until that is 0.
    void doDelayTask(uint64_t delay_ms, std::function<uint64_t()> task) {
        std::lock_guard<std::mutex> lock(_mutex);
        _delayed.emplace(std::chrono::steady_clock::now() + std::chrono::milliseconds(delay_ms), std::move(task));
        _wake.notify_one();
    }

    static EventPoller *&current() {
        static thread_local EventPoller *poller = nullptr;
        return poller;
    }

private:
    void run() {
        current() = this;
        while (true) {
            try {
                next()();
            } catch (const std::exception &error) {
                LogLine('E') << "a task threw: " << error.what();
            }
        }
    }

    std::function<void()> next() {
        std::unique_lock<std::mutex> lock(_mutex);
        while (true) {
            if (!_delayed.empty() && _delayed.begin()->first <= std::chrono::steady_clock::now()) {
                auto task = std::move(_delayed.begin()->second);
                _delayed.erase(_delayed.begin());
                return [this, task] {
                    const uint64_t again = task();
                    if (again > 0) {
                        doDelayTask(again, task);
                    }
                };
            }
            if (!_tasks.empty()) {
                auto task = std::move(_tasks.front());
                _tasks.pop_front();
                return task;
            }
            if (_delayed.empty()) {
                _wake.wait(lock);
            } else {
                _wake.wait_until(lock, std::chrono::steady_clock::time_point(_delayed.begin()->first));
            }
        }
    }

    std::mutex _mutex;
    std::condition_variable _wake;
    std::deque<std::function<void()>> _tasks;
    std::multimap<std::chrono::steady_clock::time_point, std::function<uint64_t()>> _delayed;
};

class EventPollerPool {
public:
    static EventPollerPool &Instance() {
        static EventPollerPool *pool = new EventPollerPool;
        return *pool;
    }

    EventPoller::Ptr getPoller(bool prefer_current_thread = true) {
        for (const auto &poller : _pollers) {
            if (prefer_current_thread && poller.get() == EventPoller::current()) {
                return poller;
            }
        }
        return _pollers[_next++ % _pollers.size()];
    }

    size_t getExecutorSize() const { return _pollers.size(); }

private:
    EventPollerPool() {
        for (int n = 0; n < 4; ++n) {
            _pollers.push_back(std::make_shared<EventPoller>());
        }
    }

    std::vector<EventPoller::Ptr> _pollers;
    std::atomic<size_t> _next{0};
};

//////////////////////////////////////////////////////////// sockets

class Buffer {
public:
    using Ptr = std::shared_ptr<Buffer>;
    explicit Buffer(std::string content) : _content(std::move(content)) {}
    const char *data() const { return _content.data(); }
    size_t size() const { return _content.size(); }

private:
    std::string _content;
};

struct SockException : std::runtime_error {
    using std::runtime_error::runtime_error;
};

class Socket {
public:
    using Ptr = std::shared_ptr<Socket>;
    static Ptr createSocket(const EventPoller::Ptr &poller) {
        auto socket = std::make_shared<Socket>();
        socket->poller = poller;
        return socket;
    }
    EventPoller::Ptr poller;
};

class SockInfo {
public:
    virtual ~SockInfo() = default;
    virtual std::string get_peer_ip() = 0;
    virtual uint16_t get_peer_port() = 0;
};

class SocketHelper : public SockInfo, public std::enable_shared_from_this<SocketHelper> {
public:
    explicit SocketHelper(const Socket::Ptr &socket) : _socket(socket) {}
    const EventPoller::Ptr &getPoller() const { return _socket->poller; }
    std::string get_peer_ip() override { return "127.0.0.1"; }
    uint16_t get_peer_port() override { return 0; }
    virtual void onRecv(const Buffer::Ptr &) = 0;
    virtual void onError(const SockException &) = 0;
    virtual void onManager() = 0;

private:
    Socket::Ptr _socket;
};

} // namespace toolkit

#define ErrorL ::toolkit::LogLine('E')
#define WarnL ::toolkit::LogLine('W')
#define InfoL ::toolkit::LogLine('I')
#define DebugL ::toolkit::LogLine('D')
#define GET_CONFIG(type, name, key) const type name = ::toolkit::mINI::Instance()[key]

namespace mediakit {

//////////////////////////////////////////////////////////// HTTP

struct StrCaseCompare {
    bool operator()(const std::string &a, const std::string &b) const { return strcasecmp(a.c_str(), b.c_str()) < 0; }
};
using StrCaseMap = std::map<std::string, std::string, StrCaseCompare>;

inline std::string urlDecode(const std::string &text) {
    std::string out;
    for (size_t n = 0; n < text.size(); ++n) {
        if (text[n] == '%' && n + 2 < text.size()) {
            out += static_cast<char>(std::stoi(text.substr(n + 1, 2), nullptr, 16));
            n += 2;
        } else {
            out += text[n] == '+' ? ' ' : text[n];
        }
    }
    return out;
}

class Parser {
public:
    // A whole request, the body included.
    void parse(const char *data, size_t size) {
        const std::string text(data, size);
        const auto end = text.find("\r\n\r\n");
        std::istringstream head(text.substr(0, end));
        std::string method, target, line;
        head >> method >> target;
        std::getline(head, line);
        while (std::getline(head, line)) {
            const auto colon = line.find(':');
            if (colon != std::string::npos) {
                auto value = line.substr(colon + 1);
                value.erase(0, value.find_first_not_of(' '));
                value.erase(value.find_last_not_of('\r') + 1);
                _headers[line.substr(0, colon)] = value;
            }
        }
        const auto question = target.find('?');
        _url = target.substr(0, question);
        if (question != std::string::npos) {
            _url_args = parseArgs(target.substr(question + 1));
        }
        _content = end == std::string::npos ? "" : text.substr(end + 4);
    }

    static StrCaseMap parseArgs(const std::string &text) {
        StrCaseMap args;
        std::istringstream pairs(text);
        std::string pair;
        while (std::getline(pairs, pair, '&')) {
            const auto equals = pair.find('=');
            const auto value = equals == std::string::npos ? "" : pair.substr(equals + 1);
            args[urlDecode(pair.substr(0, equals))] = urlDecode(value);
        }
        return args;
    }

    const std::string &url() const { return _url; }
    const std::string &content() const { return _content; }
    void setContent(std::string content) { _content = std::move(content); }
    const StrCaseMap &getUrlArgs() const { return _url_args; }
    std::string operator[](const char *name) const {
        auto it = _headers.find(name);
        return it == _headers.end() ? "" : it->second;
    }

private:
    std::string _url, _content;
    StrCaseMap _headers, _url_args;
};

class HttpBody {
public:
    using Ptr = std::shared_ptr<HttpBody>;
    explicit HttpBody(std::string content) : _content(std::move(content)) {}
    int64_t remainSize() { return _content.size(); }
    toolkit::Buffer::Ptr readData(size_t size) {
        auto buffer = std::make_shared<toolkit::Buffer>(_content.substr(0, size));
        _content.erase(0, size);
        return buffer;
    }

private:
    std::string _content;
};

class HttpResponseInvokerImp {
public:
    using HttpResponseInvokerLambda0 = std::function<void(int, const StrCaseMap &, const HttpBody::Ptr &)>;
    HttpResponseInvokerImp(HttpResponseInvokerLambda0 lambda) : _lambda(std::move(lambda)) {}
    void operator()(int status, const StrCaseMap &headers, const std::string &body) const {
        _lambda(status, headers, std::make_shared<HttpBody>(body));
    }

private:
    HttpResponseInvokerLambda0 _lambda;
};

struct HttpSession {
    using HttpResponseInvoker = HttpResponseInvokerImp;
    using KeyValue = StrCaseMap;
};

//////////////////////////////////////////////////////////// media

struct MediaTuple {
    std::string vhost, app, stream;
    std::string shortUrl() const { return vhost + '/' + app + '/' + stream; }
};
using MediaInfo = MediaTuple;

class MediaSource {
public:
    using Ptr = std::shared_ptr<MediaSource>;
    MediaSource(std::string schema, MediaTuple tuple, std::function<bool()> close)
        : _schema(std::move(schema)), _tuple(std::move(tuple)), _close(std::move(close)) {}

    const std::string &getSchema() const { return _schema; }
    const MediaTuple &getMediaTuple() const { return _tuple; }
    bool close(bool) {
        std::function<bool()> close;
        {
            std::lock_guard<std::mutex> lock(mutex());
            close = _close;
        }
        return close();
    }
    // Whoever takes the source over is asked to close it from now on.
    void takeOver(std::function<bool()> close) {
        std::lock_guard<std::mutex> lock(mutex());
        _close = std::move(close);
    }

    // Those who watch it now.
    std::atomic<int> readers{0};

    static void for_each_media(
        const std::function<void(const Ptr &)> &each, const std::string &schema = "", const std::string &vhost = "",
        const std::string &app = "", const std::string &stream = "") {
        std::vector<Ptr> found;
        {
            std::lock_guard<std::mutex> lock(mutex());
            for (const auto &source : all()) {
                const auto &tuple = source.second->_tuple;
                if ((schema.empty() || schema == source.second->_schema) && (vhost.empty() || vhost == tuple.vhost)
                    && (app.empty() || app == tuple.app) && (stream.empty() || stream == tuple.stream)) {
                    found.push_back(source.second);
                }
            }
        }
        for (const auto &source : found) {
            each(source);
        }
    }

    static Ptr find(
        const std::string &schema, const std::string &vhost, const std::string &app, const std::string &stream) {
        std::lock_guard<std::mutex> lock(mutex());
        auto it = all().find(schema + "/" + MediaTuple{vhost, app, stream}.shortUrl());
        return it == all().end() ? nullptr : it->second;
    }

    static std::mutex &mutex() {
        static std::mutex *mutex = new std::mutex;
        return *mutex;
    }
    // By "schema/vhost/app/stream".
    static std::map<std::string, Ptr> &all() {
        static auto *all = new std::map<std::string, Ptr>;
        return *all;
    }

private:
    const std::string _schema;
    const MediaTuple _tuple;
    std::function<bool()> _close;
};

} // namespace mediakit

//////////////////////////////////////////////////////////// events

#define BroadcastHttpRequestArgs                                                                              \
    const mediakit::Parser &parser, const mediakit::HttpSession::HttpResponseInvoker &invoker, bool &consumed, \
        toolkit::SockInfo &sender
#define BroadcastReloadConfigArgs void
#define BroadcastMediaChangedArgs const bool &bRegist, mediakit::MediaSource &sender
#define BroadcastStreamNoneReaderArgs mediakit::MediaSource &sender
#define BroadcastNotFoundStreamArgs \
    const mediakit::MediaInfo &args, toolkit::SockInfo &sender, const std::function<void()> &closePlayer

namespace mediakit {
namespace Broadcast {
const std::string kBroadcastHttpRequest = "kBroadcastHttpRequest";
const std::string kBroadcastReloadConfig = "kBroadcastReloadConfig";
const std::string kBroadcastMediaChanged = "kBroadcastMediaChanged";
const std::string kBroadcastStreamNoneReader = "kBroadcastStreamNoneReader";
const std::string kBroadcastNotFoundStream = "kBroadcastNotFoundStream";
} // namespace Broadcast
} // namespace mediakit

namespace toolkit {

// The listeners of each event: functions of the types that the event's macro names.
class NoticeCenter {
public:
    static NoticeCenter &Instance() {
        static NoticeCenter *center = new NoticeCenter;
        return *center;
    }

    template <typename Listener>
    void addListener(void *, const std::string &event, Listener &&listener) {
        add(event, &std::decay<Listener>::type::operator(), listener);
    }

    template <typename... Types, typename... Args>
    void emit(const std::string &event, Args &&...args) {
        std::vector<std::shared_ptr<void>> listeners;
        {
            std::lock_guard<std::mutex> lock(_mutex);
            listeners = _listeners[event];
        }
        for (const auto &listener : listeners) {
            (*static_cast<std::function<void(Types...)> *>(listener.get()))(args...);
        }
    }

private:
    template <typename Listener, typename... Types>
    void add(const std::string &event, void (Listener::*)(Types...) const, const Listener &listener) {
        std::lock_guard<std::mutex> lock(_mutex);
        _listeners[event].push_back(std::make_shared<std::function<void(Types...)>>(listener));
    }

    std::mutex _mutex;
    std::map<std::string, std::vector<std::shared_ptr<void>>> _listeners;
};

template <typename Signature>
struct Emit;
template <typename... Types>
struct Emit<void(Types...)> {
    template <typename... Args>
    static void emit(const std::string &event, Args &&...args) {
        NoticeCenter::Instance().emit<Types...>(event, std::forward<Args>(args)...);
    }
};

} // namespace toolkit

#define NOTICE_EMIT(types, ...) ::toolkit::Emit<void(types)>::emit(__VA_ARGS__)

#endif
