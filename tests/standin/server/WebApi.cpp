// The stand-in's API. See ../README.md.
#include "WebApi.h"

#include "proxies.h"

using namespace toolkit;
using namespace mediakit;

using HttpApi = std::function<void(const Parser &, const HttpSession::HttpResponseInvoker &, SockInfo &)>;
static std::map<std::string, HttpApi, StrCaseCompare> s_map_api;

static Proxies<PlayerProxy> s_player_proxy;
static Proxies<PusherProxy> s_pusher_proxy;
static Proxies<FFmpegSource> s_ffmpeg_src;

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

static void answerAdd(
    const HttpSession::HttpResponseInvoker &invoker, Json::Value reply, const std::string &key, const std::string &error) {
    if (error.empty()) {
        reply["data"]["key"] = key;
    } else {
        reply["code"] = API::OtherFailed;
        reply["msg"] = error;
    }
    answer(invoker, reply);
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

// An older server, where a test asks for one: what it lacks, with commas between.
static bool lacks(const std::string &what) {
    const char *lacking = getenv("STANDIN_LACKS");
    return lacking && ("," + std::string(lacking) + ",").find("," + what + ",") != std::string::npos;
}

// What the server dies of, or throws of, where a test asks for it.
static void bear(const std::string &url) {
    const auto names = [&url](const char *variable) {
        const char *part = getenv(variable);
        return part && url.find(part) != std::string::npos;
    };
    if (names("STANDIN_DIES_OF")) {
        abort();
    }
    if (names("STANDIN_THROWS_OF")) {
        throw std::logic_error("thrown as asked for");
    }
}

static void addStreamProxy(API_ARGS_MAP_ASYNC) {
    CHECK_SECRET();
    require(allArgs, {"vhost", "app", "stream", "url"});
    const MediaTuple tuple{allArgs.get("vhost"), allArgs.get("app"), allArgs.get("stream")};
    const auto key = tuple.shortUrl();
    if (s_player_proxy.find(key)) {
        throw ApiRetException("This stream already exists", API::OtherFailed);
    }
    bear(allArgs.get("url"));
    const bool force = atoi(allArgs.get("force").c_str()) != 0 && !lacks("force");
    const auto retries = allArgs.get("retry_count");
    const auto timeout = atof(allArgs.get("timeout_sec").c_str());
    auto proxy = std::make_shared<PlayerProxy>(
        tuple, allArgs.get("url"), retries.empty() ? -1 : atoi(retries.c_str()),
        static_cast<int>((timeout > 0 ? timeout : 10) * 1000), atoi(allArgs.get("auto_close").c_str()) != 0);
    s_player_proxy.insert(key, proxy);
    const auto reply = val;
    proxy->on_first = [key, force, reply, invoker](const std::string &error) {
        if (!error.empty() && !force) {
            s_player_proxy.erase(key);
        }
        answerAdd(invoker, reply, key, error);
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

static void addStreamPusherProxy(API_ARGS_MAP_ASYNC) {
    CHECK_SECRET();
    require(allArgs, {"schema", "vhost", "app", "stream", "dst_url"});
    const auto key = allArgs.get("schema") + "/" + allArgs.get("vhost") + "/" + allArgs.get("app") + "/"
        + allArgs.get("stream") + "/" + MD5(allArgs.get("dst_url")).hexdigest();
    const auto source = MediaSource::find(
        allArgs.get("schema"), allArgs.get("vhost"), allArgs.get("app"), allArgs.get("stream"));
    if (!source || s_pusher_proxy.find(key)) {
        answerAdd(invoker, val, key, source ? "" : "can not find the source stream");
        return;
    }
    bear(allArgs.get("dst_url"));
    const auto retries = allArgs.get("retry_count");
    const auto timeout = atof(allArgs.get("timeout_sec").c_str());
    auto proxy = std::make_shared<PusherProxy>(
        source, allArgs.get("dst_url"), retries.empty() ? -1 : atoi(retries.c_str()),
        static_cast<int>((timeout > 0 ? timeout : 10) * 1000));
    s_pusher_proxy.insert(key, proxy);
    const auto reply = val;
    proxy->on_first = [key, reply, invoker](const std::string &error) {
        if (!error.empty()) {
            s_pusher_proxy.erase(key);
        }
        answerAdd(invoker, reply, key, error);
    };
    proxy->on_close = [key] { s_pusher_proxy.erase(key); };
    proxy->publish();
}

static void addFFmpegSource(API_ARGS_MAP_ASYNC) {
    CHECK_SECRET();
    require(allArgs, {"src_url", "dst_url", "timeout_ms"});
    const auto key = MD5(allArgs.get("dst_url")).hexdigest();
    if (s_ffmpeg_src.find(key)) {
        answerAdd(invoker, val, key, "");
        return;
    }
    bear(allArgs.get("src_url"));
    auto source = std::make_shared<FFmpegSource>(
        allArgs.get("ffmpeg_cmd_key"), allArgs.get("src_url"), allArgs.get("dst_url"),
        atoi(allArgs.get("timeout_ms").c_str()));
    s_ffmpeg_src.insert(key, source);
    const auto reply = val;
    source->on_first = [key, reply, invoker](const std::string &error) {
        if (!error.empty()) {
            s_ffmpeg_src.erase(key);
        }
        answerAdd(invoker, reply, key, error);
    };
    source->on_close = [key] { s_ffmpeg_src.erase(key); };
    source->play();
}

static Json::Value describe(const std::string &key, const PusherProxy::Ptr &proxy) {
    Json::Value item;
    item["key"] = key;
    item["url"] = proxy->url;
    item["status"] = proxy->live ? 0 : 1;
    item["rePublishCount"] = static_cast<Json::Int64>(proxy->retried);
    item["src"]["vhost"] = proxy->tuple.vhost;
    item["src"]["app"] = proxy->tuple.app;
    item["src"]["stream"] = proxy->tuple.stream;
    return item;
}

static Json::Value describe(const std::string &key, const FFmpegSource::Ptr &source) {
    Json::Value item;
    item["key"] = key;
    item["src_url"] = source->src_url;
    item["dst_url"] = source->dst_url;
    item["ffmpeg_cmd_key"] = source->cmd_key;
    return item;
}

template <typename Proxy>
static void registCommonApi(
    Proxies<Proxy> &proxies, const std::string &remove, const std::string &list, const std::string &find) {
    api_regist("/index/api/" + remove, [&proxies](API_ARGS_MAP) {
        CHECK_SECRET();
        require(allArgs, {"key"});
        val["data"]["flag"] = proxies.erase(allArgs.get("key")) == 1;
    });
    if (!lacks(list)) {
        api_regist("/index/api/" + list, [&proxies](API_ARGS_MAP) {
            CHECK_SECRET();
            proxies.forEach([&val](const std::string &key, const std::shared_ptr<Proxy> &proxy) {
                val["data"].append(describe(key, proxy));
            });
        });
    }
    if (find.empty() || lacks(find)) {
        return;
    }
    api_regist("/index/api/" + find, [&proxies](API_ARGS_MAP) {
        CHECK_SECRET();
        require(allArgs, {"key"});
        auto proxy = proxies.find(allArgs.get("key"));
        if (!proxy) {
            throw ApiRetException("can not find the proxy", API::NotFound);
        }
        val["data"] = describe(allArgs.get("key"), proxy);
    });
}

void installWebApi() {
    addHttpListener();
    api_regist("/index/api/addStreamProxy", addStreamProxy);
    api_regist("/index/api/addStreamPusherProxy", addStreamPusherProxy);
    api_regist("/index/api/addFFmpegSource", addFFmpegSource);
    registCommonApi(s_player_proxy, "delStreamProxy", "listStreamProxy", "getProxyInfo");
    registCommonApi(s_pusher_proxy, "delStreamPusherProxy", "listStreamPusherProxy", "getProxyPusherInfo");
    registCommonApi(s_ffmpeg_src, "delFFmpegSource", "listFFmpegSource", "");
    api_regist("/index/api/getMediaList", [](API_ARGS_MAP) {
        CHECK_SECRET();
        MediaSource::for_each_media([&val](const MediaSource::Ptr &source) {
            Json::Value item;
            item["schema"] = source->getSchema();
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
    api_regist("/index/api/setServerConfig", [](API_ARGS_MAP) {
        CHECK_SECRET();
        int changed = 0;
        for (const auto &arg : allArgs) {
            auto it = mINI::Instance().find(arg.first);
            if (it != mINI::Instance().end() && it->second != arg.second) {
                it->second = arg.second;
                ++changed;
            }
        }
        if (changed > 0) {
            NOTICE_EMIT(BroadcastReloadConfigArgs, Broadcast::kBroadcastReloadConfig);
        }
        val["changed"] = changed;
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
    s_ffmpeg_src.clear();
    s_pusher_proxy.clear();
}
