// The stand-in's API: how calls come to their handlers, and those calls that are about no proxy. See ../README.md.
#include "WebApi.h"

#include <signal.h>

#include <atomic>
#include <random>

#include "connection.h"
#include "proxies.h"

using namespace toolkit;
using namespace mediakit;

using HttpApi = std::function<void(const Parser &, const HttpSession::HttpResponseInvoker &, SockInfo &)>;
static std::map<std::string, HttpApi, StrCaseCompare> s_map_api;

//////////////////////////////////////////////////////////// dispatch

ApiArgsType getAllArgs(const Parser &parser) {
    ApiArgsType all;
    const std::string type = parser["Content-Type"];
    if (type.find("application/x-www-form-urlencoded") == 0) {
        for (const auto &arg : Parser::parseArgs(parser.content())) {
            all[arg.first] = arg.second;
        }
    } else if (type.find("application/json") == 0 && !parser.content().empty()) {
        // What is no object of plain values is taken as far as it goes.
        try {
            Json::Value root;
            std::istringstream(parser.content()) >> root;
            for (const auto &name : root.getMemberNames()) {
                all[name] = root[name].asString();
            }
        } catch (const std::exception &error) {
            WarnL << error.what();
        }
    }
    for (const auto &arg : parser.getUrlArgs()) {
        all[arg.first] = arg.second;
    }
    return all;
}

//////////////////////////////////////////////////////////// sign-in

// The cookies that were given and are still good, of one name.
class Cookies {
public:
    Cookies(const char *name, int seconds)
        : _name(name)
        , _seconds(seconds) {}

    // That of a request; empty if it has none that is good.
    std::string of(const Parser &parser) {
        for (const auto &part : split(parser["Cookie"], ';')) {
            const std::string pair = trim(part);
            if (pair.compare(0, _name.size() + 1, _name + "=") == 0) {
                std::lock_guard<std::mutex> lock(_mutex);
                const auto it = _good_until.find(pair.substr(_name.size() + 1));
                return it != _good_until.end() && Clock::now() < it->second ? it->first : "";
            }
        }
        return "";
    }

    std::string give(HttpSession::KeyValue &headers) {
        std::lock_guard<std::mutex> lock(_mutex);
        const std::string value = MD5(std::to_string(std::random_device()()) + std::to_string(_given++)).hexdigest();
        _good_until[value] = Clock::now() + std::chrono::seconds(_seconds);
        set(headers, value, _seconds);
        return value;
    }

    void takeBack(const std::string &value, HttpSession::KeyValue &headers) {
        std::lock_guard<std::mutex> lock(_mutex);
        _good_until.erase(value);
        set(headers, value, 0);
    }

private:
    void set(HttpSession::KeyValue &headers, const std::string &value, int seconds) const {
        const time_t expires = time(nullptr) + seconds;
        char date[64];
        tm parts;
        strftime(date, sizeof(date), "%a, %b %d %Y %H:%M:%S GMT", gmtime_r(&expires, &parts));
        // One of two is kept, too.
        headers.Super::emplace("Set-Cookie", _name + "=" + value + ";expires=" + date + ";path=/");
    }

    const std::string _name;
    const int _seconds;
    std::mutex _mutex;
    std::map<std::string, Clock::time_point> _good_until;
    uint64_t _given = 0;
};

static Cookies s_logined("ZLM_LOGINED", 24 * 3600), s_unlogin("ZLM_UNLOGIN", 60);

// What a sign-in has to be made of: in the reply, and in a cookie if there is none.
static void challenge(const Parser &parser, HttpSession::KeyValue &headers, Json::Value &val) {
    const std::string known = s_unlogin.of(parser);
    val["cookie"] = known.empty() ? s_unlogin.give(headers) : known;
}

// An older server knows the secret only.
static bool hasLogin() {
    return !lacks("login");
}

void check_secret(API_ARGS_MAP) {
    if (!HttpFileManager::isIPAllowed(sender.get_peer_ip())) {
        throw AuthException("Your ip is not allowed to access the service.");
    }
    GET_CONFIG(std::string, secret, API::kSecret);
    if (!hasLogin()) {
        CHECK_ARGS("secret");
        if (secret != allArgs["secret"]) {
            throw AuthException("Incorrect secret");
        }
    } else if (s_logined.of(allArgs.getParser()).empty() && (allArgs["secret"].empty() || secret != allArgs["secret"])) {
        challenge(allArgs.getParser(), headerOut, val);
        throw AuthException("Please login first", headerOut, val);
    }
}

static void login(API_ARGS_MAP) {
    (void)sender;
    CHECK_ARGS("digest");
    GET_CONFIG(std::string, secret, API::kSecret);
    const Parser &parser = allArgs.getParser();
    const std::string logined = s_logined.of(parser), unlogin = s_unlogin.of(parser);
    if (unlogin.empty() || MD5("zlmediakit:" + secret + ":" + unlogin).hexdigest() != std::string(allArgs["digest"])) {
        challenge(parser, headerOut, val);
        if (!logined.empty()) {
            s_logined.takeBack(logined, headerOut);
        }
        throw AuthException("Digest does not match, incorrect secret?", headerOut, val);
    }
    if (logined.empty()) {
        s_logined.give(headerOut);
    }
    s_unlogin.takeBack(unlogin, headerOut);
}

static void logout(API_ARGS_MAP) {
    (void)sender;
    const std::string logined = s_logined.of(allArgs.getParser());
    if (logined.empty()) {
        val["msg"] = "You are not logined";
    } else {
        s_logined.takeBack(logined, headerOut);
    }
    challenge(allArgs.getParser(), headerOut, val);
}

//////////////////////////////////////////////////////////// handlers

// How many handlers were run, for whoever called.
static std::atomic<uint64_t> s_handled{0};

static const char kJson[] = "application/json; charset=utf-8";

void api_regist(const std::string &path, const std::function<void(API_ARGS_MAP_ASYNC)> &handler) {
    // As in the host, whoever comes first stays.
    s_map_api.emplace(
        path, [handler](const Parser &parser, const HttpSession::HttpResponseInvoker &invoker, SockInfo &sender) {
            ++s_handled;
            HttpSession::KeyValue headers;
            headers["Content-Type"] = kJson;
            Json::Value val;
            val["code"] = API::Success;
            auto args = getAllArgs(parser);
            handler(sender, headers, ArgsMap(parser, args), val, invoker);
        });
}

void api_regist(const std::string &path, const std::function<void(API_ARGS_MAP)> &handler) {
    api_regist(path, [handler](API_ARGS_MAP_ASYNC) {
        handler(sender, headerOut, allArgs, val);
        invoker(200, headerOut, val.toStyledString());
    });
}

static void fail(
    const HttpSession::HttpResponseInvoker &invoker, int code, const std::string &message,
    HttpSession::KeyValue headers = {}, Json::Value val = Json::objectValue) {
    val["code"] = code;
    val["msg"] = message;
    headers["Content-Type"] = kJson;
    invoker(200, headers, val.toStyledString());
}

static void addHttpListener() {
    NoticeCenter::Instance().addListener(nullptr, Broadcast::kBroadcastHttpRequest, [](BroadcastHttpRequestArgs) {
        auto it = s_map_api.find(parser.url());
        if (it == s_map_api.end()) {
            return;
        }
        consumed = true;
        auto helper = static_cast<SocketHelper &>(sender).shared_from_this();
        helper->getPoller()->async(
            [it, parser, invoker, helper]() {
                try {
                    it->second(parser, invoker, *helper);
                } catch (ApiRetException &error) {
                    // Answered, and hung up on.
                    fail(invoker, error.code(), error.what(), error.getHeaders(), error.getBody());
                    const std::string why = error.what();
                    helper->getPoller()->async(
                        [helper, why] { helper->shutdown(SockException(Err_shutdown, why)); }, false);
                } catch (const std::exception &error) {
                    fail(invoker, API::Exception, error.what());
                }
            },
            false);
    });
}

//////////////////////////////////////////////////////////// streams

static void getMediaList(API_ARGS_MAP) {
    CHECK_SECRET();
    MediaSource::for_each_media(
        [&val](const MediaSource::Ptr &source) {
            Json::Value item;
            item["schema"] = source->getSchema();
            item["vhost"] = source->getMediaTuple().vhost;
            item["app"] = source->getMediaTuple().app;
            item["stream"] = source->getMediaTuple().stream;
            item["readerCount"] = source->readerCount();
            item["totalReaderCount"] = source->totalReaderCount();
            val["data"].append(item);
        },
        allArgs["schema"], allArgs["vhost"], allArgs["app"], allArgs["stream"]);
}

// Answers when it has been closed, from the owner's poller.
static void closeStream(API_ARGS_MAP_ASYNC) {
    CHECK_SECRET();
    CHECK_ARGS("schema", "vhost", "app", "stream");
    const auto source = MediaSource::find(allArgs["schema"], allArgs["vhost"], allArgs["app"], allArgs["stream"]);
    if (!source) {
        throw ApiRetException("can not find the stream", API::NotFound);
    }
    const bool force = allArgs["force"].as<bool>();
    const HttpSession::KeyValue headers = headerOut;
    source->getOwnerPoller()->async([source, force, val, headers, invoker]() mutable {
        const bool closed = source->close(force);
        val["result"] = closed ? 0 : -1;
        val["msg"] = closed ? "success" : "close failed";
        val["code"] = closed ? API::Success : API::OtherFailed;
        invoker(200, headers, val.toStyledString());
    });
}

// Answers at once, and counts each as closed that it has told to close. One of several schemas is the last that there is
// of its proxy where this is the owner's thread: then it throws in the middle of its work, after what it has done.
static void closeStreams(API_ARGS_MAP) {
    CHECK_SECRET();
    std::vector<MediaSource::Ptr> hit;
    MediaSource::for_each_media(
        [&hit](const MediaSource::Ptr &source) { hit.push_back(source); }, allArgs["schema"], allArgs["vhost"],
        allArgs["app"], allArgs["stream"]);
    const bool force = allArgs["force"].as<bool>();
    int closed = 0;
    for (const auto &source : hit) {
        source->getOwnerPoller()->async([source, force] { source->close(force); });
        ++closed;
    }
    val["count_hit"] = static_cast<int>(hit.size());
    val["count_closed"] = closed;
}

//////////////////////////////////////////////////////////// the server

static void setServerConfig(API_ARGS_MAP) {
    CHECK_SECRET();
    int changed = 0;
    {
        std::lock_guard<std::recursive_mutex> lock(mINI::mutex());
        for (const auto &arg : allArgs.args) {
            auto it = mINI::Instance().find(arg.first);
            if (it != mINI::Instance().end() && it->first != "ffmpeg.bin" && it->second.compare(arg.second) != 0) {
                it->second = arg.second;
                ++changed;
            }
        }
    }
    if (changed > 0) {
        NOTICE_EMIT(BroadcastReloadConfigArgs, Broadcast::kBroadcastReloadConfig);
        std::lock_guard<std::recursive_mutex> lock(mINI::mutex());
        mINI::Instance().dumpFile(g_ini_file);
    }
    val["changed"] = changed;
}

// Answers when each poller has done what was queued on it before.
static void getThreadsLoad(API_ARGS_MAP_ASYNC) {
    CHECK_SECRET();
    const auto left = std::make_shared<std::atomic<size_t>>(EventPollerPool::Instance().getExecutorSize());
    const HttpSession::KeyValue headers = headerOut;
    EventPollerPool::Instance().for_each([left, val, headers, invoker](const TaskExecutor::Ptr &poller) {
        poller->async(
            [left, val, headers, invoker] {
                if (--*left == 0) {
                    invoker(200, headers, val.toStyledString());
                }
            },
            false);
    });
}

// Asked to end a second from now; ended three seconds later, if it has not by then, from the middle of whatever it does.
static void restartServer(API_ARGS_MAP) {
    CHECK_SECRET();
    EventPollerPool::Instance().getPoller()->doDelayTask(1000, []() -> uint64_t {
        kill(getpid(), SIGINT);
        EventPollerPool::Instance().getPoller()->doDelayTask(3000, []() -> uint64_t { exit(0); });
        return 0;
    });
    val["msg"] = "MediaServer will reboot in on 1 second";
}

void installWebApi() {
    addHttpListener();
    standin::registProxyApi();
    const auto regist = [](const std::string &name, void (*handler)(API_ARGS_MAP)) {
        api_regist("/index/api/" + name, std::function<void(API_ARGS_MAP)>(handler));
    };
    regist("getMediaList", getMediaList);
    regist("close_streams", closeStreams);
    regist("setServerConfig", setServerConfig);
    regist("restartServer", restartServer);
    if (hasLogin()) {
        regist("login", login);
        regist("logout", logout);
    }
    api_regist("/index/api/close_stream", std::function<void(API_ARGS_MAP_ASYNC)>(closeStream));
    api_regist("/index/api/getThreadsLoad", std::function<void(API_ARGS_MAP_ASYNC)>(getThreadsLoad));
    // Not ZLMediaKit's: keeps the poller of this connection from everything else.
    api_regist("/index/api/holdPoller", [](API_ARGS_MAP) {
        CHECK_SECRET();
        std::this_thread::sleep_for(std::chrono::milliseconds(allArgs["ms"].as<int>()));
        val["code"] = API::Success;
    });
    // Neither is this: how many handlers were run before it, called from outside or from within.
    api_regist("/index/api/countHandled", [](API_ARGS_MAP) {
        CHECK_SECRET();
        val["data"] = static_cast<Json::UInt64>(s_handled - 1);
    });
}

void unInstallWebApi() {
    standin::clearProxies();
}
