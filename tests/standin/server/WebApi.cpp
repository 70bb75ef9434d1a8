// The stand-in's API: how calls come to their handlers, and those calls that are about no proxy. See ../README.md.
#include "WebApi.h"

#include <signal.h>

#include <atomic>

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

void check_secret(API_ARGS_MAP) {
    (void)headerOut;
    (void)val;
    if (!HttpFileManager::isIPAllowed(sender.get_peer_ip())) {
        throw AuthException("Your ip is not allowed to access the service.");
    }
    GET_CONFIG(std::string, secret, API::kSecret);
    if (allArgs["secret"].empty() || secret != allArgs["secret"]) {
        throw AuthException("Please login first");
    }
}

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

static void fail(const HttpSession::HttpResponseInvoker &invoker, int code, const std::string &message) {
    Json::Value val;
    val["code"] = code;
    val["msg"] = message;
    HttpSession::KeyValue headers;
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
                    fail(invoker, error.code(), error.what());
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
