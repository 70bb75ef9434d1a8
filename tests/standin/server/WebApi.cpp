// The stand-in's API and its pull proxies. See ../README.md.
#include "WebApi.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

using namespace toolkit;
using namespace mediakit;

using HttpApi = std::function<void(const Parser &, const HttpSession::HttpResponseInvoker &, SockInfo &)>;
static std::map<std::string, HttpApi, StrCaseCompare> s_map_api;

//////////////////////////////////////////////////////////// connecting to sources, all on one thread

using Clock = std::chrono::steady_clock;

class Connector {
public:
    // Told once: an empty text for a source that has sent something (then `fd` is the connection), or what is wrong.
    using Done = std::function<void(const std::string &error, int fd)>;

    static Connector &Instance() {
        static Connector *connector = new Connector;
        return *connector;
    }

    void connect(const std::string &url, int timeout_ms, Done done) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        const auto host = url.find("://") == std::string::npos ? 0 : url.find("://") + 3;
        const auto colon = url.find(':', host);
        const bool good = colon != std::string::npos
            && inet_pton(AF_INET, url.substr(host, colon - host).c_str(), &address.sin_addr) == 1;
        const int fd = good ? socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0) : -1;
        if (fd < 0) {
            done("the url names no source", -1);
            return;
        }
        address.sin_port = htons(static_cast<uint16_t>(atoi(url.c_str() + colon + 1)));
        (void)::connect(fd, reinterpret_cast<sockaddr *>(&address), sizeof(address));
        std::lock_guard<std::mutex> lock(_mutex);
        _waiting.push_back({fd, Clock::now() + std::chrono::milliseconds(timeout_ms), std::move(done)});
        eventfd_write(_wake, 1);
    }

private:
    struct Waiting {
        int fd;
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
                fds.push_back({one.fd, POLLIN, 0});
            }
            fds.push_back({_wake, POLLIN, 0});
            ::poll(fds.data(), fds.size(), 20);
            eventfd_t calls;
            (void)eventfd_read(_wake, &calls);
            std::vector<Waiting> still;
            for (size_t n = 0; n < waiting.size(); ++n) {
                char byte;
                if (fds[n].revents && recv(waiting[n].fd, &byte, 1, 0) == 1) {
                    waiting[n].done("", waiting[n].fd);
                } else if (fds[n].revents || Clock::now() > waiting[n].deadline) {
                    ::close(waiting[n].fd);
                    waiting[n].done(fds[n].revents ? "connection refused" : "play timeout", -1);
                } else {
                    still.push_back(std::move(waiting[n]));
                }
            }
            waiting.swap(still);
        }
    }

    const int _wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    std::mutex _mutex;
    std::vector<Waiting> _waiting;
};

//////////////////////////////////////////////////////////// proxies

class PlayerProxy : public std::enable_shared_from_this<PlayerProxy> {
public:
    using Ptr = std::shared_ptr<PlayerProxy>;

    PlayerProxy(MediaTuple tuple, std::string url, int retries, int timeout_ms, bool auto_close)
        : tuple(std::move(tuple))
        , url(std::move(url))
        , _retries(retries)
        , _timeout_ms(timeout_ms)
        , _auto_close(auto_close)
        , _poller(EventPollerPool::Instance().getPoller()) {}

    ~PlayerProxy() {
        stop();
        if (on_first) {
            on_first("player proxy close"); // an add is not left without its answer
        }
    }

    void play() {
        std::weak_ptr<PlayerProxy> weak = shared_from_this();
        auto poller = _poller;
        Connector::Instance().connect(url, _timeout_ms, [weak, poller](const std::string &error, int fd) {
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

    const MediaTuple tuple;
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
        auto source = std::make_shared<MediaSource>(tuple, [weak] {
            auto self = weak.lock();
            return self && self->close();
        });
        {
            std::lock_guard<std::mutex> lock(MediaSource::mutex());
            MediaSource::all()[tuple.shortUrl()] = source;
        }
        NOTICE_EMIT(BroadcastMediaChangedArgs, Broadcast::kBroadcastMediaChanged, true, *source);
        // Ends with its camera, and when nobody watches it.
        const int delay_ms = std::max(1, atoi(mINI::Instance()["general.streamNoneReaderDelayMS"].c_str()));
        auto idle_since = std::make_shared<Clock::time_point>(Clock::now());
        std::weak_ptr<MediaSource> watched = source;
        _poller->doDelayTask(250, [weak, watched, delay_ms, idle_since]() -> uint64_t {
            auto self = weak.lock();
            auto source = watched.lock();
            char byte;
            if (!self || !source || !self->live) {
                return 0;
            }
            if (recv(self->_fd, &byte, 1, MSG_DONTWAIT) == 0) {
                self->stop();
                if (!self->retries()) {
                    self->on_close();
                }
                return 0;
            }
            if (source->readers > 0) {
                *idle_since = Clock::time_point::max();
            } else if (*idle_since == Clock::time_point::max()) {
                *idle_since = Clock::now();
            } else if (Clock::now() - *idle_since > std::chrono::milliseconds(delay_ms)) {
                *idle_since = Clock::now() + std::chrono::hours(1000);
                NOTICE_EMIT(BroadcastStreamNoneReaderArgs, Broadcast::kBroadcastStreamNoneReader, *source);
                if (self->_auto_close) {
                    source->close(false);
                    return 0;
                }
            }
            return 250;
        });
    }

    void stop() {
        live = false;
        MediaSource::Ptr source;
        {
            std::lock_guard<std::mutex> lock(MediaSource::mutex());
            auto it = MediaSource::all().find(tuple.shortUrl());
            if (it != MediaSource::all().end()) {
                source = it->second;
                MediaSource::all().erase(it);
            }
        }
        if (source) {
            NOTICE_EMIT(BroadcastMediaChangedArgs, Broadcast::kBroadcastMediaChanged, false, *source);
        }
        const int fd = _fd.exchange(-1);
        if (fd >= 0) {
            ::close(fd);
        }
    }

    int _retries;
    const int _timeout_ms;
    const bool _auto_close;
    const EventPoller::Ptr _poller;
    std::atomic<int> _fd{-1};
};

// Destructors run under the lock, as they may in the host: the glue has to live with that.
class Proxies {
public:
    PlayerProxy::Ptr find(const std::string &key) {
        std::lock_guard<std::recursive_mutex> lock(_mutex);
        auto it = _map.find(key);
        return it == _map.end() ? nullptr : it->second;
    }
    void insert(const std::string &key, PlayerProxy::Ptr proxy) {
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
        const PlayerProxy::Ptr last = std::move(it->second);
        _map.erase(it);
        return 1;
    }
    void clear() {
        std::lock_guard<std::recursive_mutex> lock(_mutex);
        std::map<std::string, PlayerProxy::Ptr> last;
        last.swap(_map);
    }
    void forEach(const std::function<void(const std::string &, const PlayerProxy::Ptr &)> &each) {
        std::lock_guard<std::recursive_mutex> lock(_mutex);
        for (const auto &pair : _map) {
            each(pair.first, pair.second);
        }
    }

private:
    std::recursive_mutex _mutex;
    std::map<std::string, PlayerProxy::Ptr> _map;
};
static Proxies s_player_proxy;

//////////////////////////////////////////////////////////// dispatch

bool isAllowed(const std::string &ip) {
    const std::string ranges = mINI::Instance()["http.allow_ip_range"];
    return ranges.empty() || ("," + ranges + ",").find("," + ip + ",") != std::string::npos;
}

ApiArgs getAllArgs(const Parser &parser) {
    ApiArgs all;
    const std::string type = parser["Content-Type"];
    if (type.find("application/x-www-form-urlencoded") == 0) {
        for (const auto &arg : Parser::parseArgs(parser.content())) {
            all[arg.first] = arg.second;
        }
    } else if (type.find("application/json") == 0) {
        Json::Value root;
        std::istringstream(parser.content()) >> root;
        for (const auto &name : root.getMemberNames()) {
            all[name] = root[name].asString();
        }
    }
    for (const auto &arg : parser.getUrlArgs()) {
        all[arg.first] = arg.second;
    }
    return all;
}

static void answer(const HttpSession::HttpResponseInvoker &invoker, const Json::Value &val) {
    HttpSession::KeyValue headers;
    headers["Content-Type"] = "application/json";
    invoker(200, headers, val.toStyledString());
}

void api_regist(const std::string &path, const std::function<void(API_ARGS_MAP)> &handler) {
    s_map_api.emplace(path, [handler](const Parser &parser, const HttpSession::HttpResponseInvoker &invoker, SockInfo &sender) {
        Json::Value val;
        val["code"] = 0;
        HttpSession::KeyValue headers;
        handler(sender, headers, getAllArgs(parser), val);
        answer(invoker, val);
    });
}

void api_regist(const std::string &path, const std::function<void(API_ARGS_MAP_ASYNC)> &handler) {
    s_map_api.emplace(path, [handler](const Parser &parser, const HttpSession::HttpResponseInvoker &invoker, SockInfo &sender) {
        Json::Value val;
        val["code"] = 0;
        HttpSession::KeyValue headers;
        handler(sender, headers, getAllArgs(parser), val, invoker);
    });
}

static void fail(const HttpSession::HttpResponseInvoker &invoker, int code, const std::string &message) {
    Json::Value val;
    val["code"] = code;
    val["msg"] = message;
    answer(invoker, val);
}

static void addHttpListener() {
    NoticeCenter::Instance().addListener(nullptr, Broadcast::kBroadcastHttpRequest, [](BroadcastHttpRequestArgs) {
        auto it = s_map_api.find(parser.url());
        if (it == s_map_api.end()) {
            return;
        }
        consumed = true;
        auto helper = static_cast<SocketHelper &>(sender).shared_from_this();
        helper->getPoller()->async([it, parser, invoker, helper]() {
            try {
                it->second(parser, invoker, *helper);
            } catch (const ApiRetException &error) {
                fail(invoker, error.code(), error.what());
            } catch (const std::exception &error) {
                fail(invoker, API::Exception, error.what());
            }
        }, false);
    });
}

//////////////////////////////////////////////////////////// the API

static void require(const ApiArgs &args, std::initializer_list<const char *> names) {
    for (const auto name : names) {
        if (args.get(name).empty()) {
            throw ApiRetException(std::string("Required parameter missed: ") + name, API::InvalidArgs);
        }
    }
}

static bool names(const char *variable, const std::string &url) {
    const char *part = getenv(variable);
    return part && url.find(part) != std::string::npos;
}

static void addStreamProxy(API_ARGS_MAP_ASYNC) {
    CHECK_SECRET();
    require(allArgs, {"vhost", "app", "stream", "url"});
    const MediaTuple tuple{allArgs.get("vhost"), allArgs.get("app"), allArgs.get("stream")};
    const auto key = tuple.shortUrl();
    if (s_player_proxy.find(key)) {
        throw ApiRetException("This stream already exists", API::OtherFailed);
    }
    // A camera that the server dies of, or throws of, where a test asks for one.
    if (names("STANDIN_DIES_OF", allArgs.get("url"))) {
        abort();
    }
    if (names("STANDIN_THROWS_OF", allArgs.get("url"))) {
        throw std::logic_error("thrown as asked for");
    }
    const bool force = atoi(allArgs.get("force").c_str()) != 0;
    const auto retries = allArgs.get("retry_count");
    const auto timeout = atof(allArgs.get("timeout_sec").c_str());
    auto proxy = std::make_shared<PlayerProxy>(
        tuple, allArgs.get("url"), retries.empty() ? -1 : atoi(retries.c_str()),
        static_cast<int>((timeout > 0 ? timeout : 10) * 1000), atoi(allArgs.get("auto_close").c_str()) != 0);
    s_player_proxy.insert(key, proxy);
    auto reply = val;
    proxy->on_first = [key, force, reply, invoker](const std::string &error) mutable {
        if (!error.empty() && !force) {
            s_player_proxy.erase(key);
        }
        if (error.empty()) {
            reply["data"]["key"] = key;
        } else {
            reply["code"] = API::OtherFailed;
            reply["msg"] = error;
        }
        answer(invoker, reply);
    };
    proxy->on_close = [key] { s_player_proxy.erase(key); };
    proxy->play();
}

static Json::Value describe(const std::string &key, const PlayerProxy::Ptr &proxy) {
    Json::Value item;
    item["key"] = key;
    item["url"] = proxy->url;
    item["status"] = proxy->live ? 0 : 1;
    item["rePullCount"] = static_cast<Json::Int64>(proxy->retried);
    item["src"]["vhost"] = proxy->tuple.vhost;
    item["src"]["app"] = proxy->tuple.app;
    item["src"]["stream"] = proxy->tuple.stream;
    return item;
}

void installWebApi() {
    addHttpListener();
    api_regist("/index/api/addStreamProxy", addStreamProxy);
    api_regist("/index/api/delStreamProxy", [](API_ARGS_MAP) {
        CHECK_SECRET();
        require(allArgs, {"key"});
        val["data"]["flag"] = s_player_proxy.erase(allArgs.get("key")) == 1;
    });
    api_regist("/index/api/listStreamProxy", [](API_ARGS_MAP) {
        CHECK_SECRET();
        s_player_proxy.forEach([&val](const std::string &key, const PlayerProxy::Ptr &proxy) {
            val["data"].append(describe(key, proxy));
        });
    });
    api_regist("/index/api/getProxyInfo", [](API_ARGS_MAP) {
        CHECK_SECRET();
        require(allArgs, {"key"});
        auto proxy = s_player_proxy.find(allArgs.get("key"));
        if (!proxy) {
            throw ApiRetException("can not find the proxy", API::NotFound);
        }
        val["data"] = describe(allArgs.get("key"), proxy);
    });
    api_regist("/index/api/getMediaList", [](API_ARGS_MAP) {
        CHECK_SECRET();
        MediaSource::for_each_media([&val](const MediaSource::Ptr &source) {
            Json::Value item;
            item["app"] = source->getMediaTuple().app;
            item["stream"] = source->getMediaTuple().stream;
            val["data"].append(item);
        }, allArgs.get("schema"), allArgs.get("vhost"), allArgs.get("app"), allArgs.get("stream"));
    });
    api_regist("/index/api/close_streams", [](API_ARGS_MAP) {
        CHECK_SECRET();
        int hit = 0, closed = 0;
        MediaSource::for_each_media([&](const MediaSource::Ptr &source) {
            ++hit;
            closed += source->close(true);
        }, allArgs.get("schema"), allArgs.get("vhost"), allArgs.get("app"), allArgs.get("stream"));
        val["count_hit"] = hit;
        val["count_closed"] = closed;
    });
    api_regist("/index/api/close_stream", [](API_ARGS_MAP) {
        CHECK_SECRET();
        require(allArgs, {"schema", "vhost", "app", "stream"});
        MediaSource::Ptr found;
        MediaSource::for_each_media([&](const MediaSource::Ptr &source) { found = source; },
            allArgs.get("schema"), allArgs.get("vhost"), allArgs.get("app"), allArgs.get("stream"));
        val["result"] = found ? (found->close(true) ? 0 : -1) : -2;
        val["code"] = found ? 0 : API::NotFound;
    });
    // Not ZLMediaKit's: keeps the poller of this connection from everything else.
    api_regist("/index/api/holdPoller", [](API_ARGS_MAP) {
        CHECK_SECRET();
        std::this_thread::sleep_for(std::chrono::milliseconds(atoi(allArgs.get("ms").c_str())));
        val["code"] = 0;
    });
    api_regist("/index/api/restartServer", [](API_ARGS_MAP) {
        CHECK_SECRET();
        std::thread([] {
            std::this_thread::sleep_for(std::chrono::milliseconds(200));
            kill(getpid(), SIGINT);
        }).detach();
        val["msg"] = "restarting";
    });
}

void unInstallWebApi() {
    s_player_proxy.clear();
}
