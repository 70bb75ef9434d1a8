// The API that makes, lists and ends proxies. See proxies.h.
#include "proxies.h"

#include "FFmpegSource.h"
#include "PlayerProxy.h"
#include "PusherProxy.h"
#include "WebApi.h"

using namespace toolkit;
using namespace mediakit;

static ServiceController<PlayerProxy> s_player_proxy;
static ServiceController<PusherProxy> s_pusher_proxy;
static ServiceController<FFmpegSource> s_ffmpeg_src;

// What an add has come to.
using Added = std::function<void(const SockException &error, const std::string &key)>;

static Added answerTo(
    const HttpSession::HttpResponseInvoker &invoker, const HttpSession::KeyValue &headers, const Json::Value &val) {
    return [invoker, headers, val](const SockException &error, const std::string &key) {
        Json::Value reply = val;
        if (error) {
            reply["code"] = API::OtherFailed;
            reply["msg"] = error.what();
        } else {
            reply["data"]["key"] = key;
        }
        invoker(200, headers, reply.toStyledString());
    };
}

static bool names(const char *variable, const std::string &url) {
    const char *part = getenv(variable);
    return part && url.find(part) != std::string::npos;
}

// What its handler throws of, where a test asks for it.
static void bear(const std::string &url) {
    if (names("STANDIN_THROWS_OF", url)) {
        throw std::logic_error("thrown as asked for");
    }
}

// What the server dies of, where a test asks for it.
static void survive(const std::string &url) {
    if (names("STANDIN_DIES_OF", url)) {
        abort();
    }
}

static int retriesOf(const ArgsMap &args) {
    return args["retry_count"].empty() ? -1 : args["retry_count"].as<int>();
}

template <typename Proxy>
static void setTimeout(Proxy &proxy, const ArgsMap &args) {
    const auto seconds = args["timeout_sec"].as<float>();
    if (seconds > 0.1f) {
        proxy.setTimeoutMs(static_cast<int>(seconds * 1000));
    }
}

// On any poller.
static void addPull(const ArgsMap &args, const Added &added) {
    const MediaTuple tuple(args["vhost"], args["app"], args["stream"]);
    const std::string key = tuple.shortUrl(), url = args["url"];
    if (s_player_proxy.find(key)) {
        added(SockException(Err_other, "This stream already exists"), key);
        return;
    }
    survive(url);
    ProtocolOption option;
    const auto is_on = [&args](const std::string &name) {
        return args[name].empty() ? configured("protocol." + name).as<bool>() : args[name].as<bool>();
    };
    option.auto_close = is_on("auto_close");
    option.makes_sources = is_on("enable_rtsp") || is_on("enable_rtmp") || is_on("enable_ts") || is_on("enable_fmp4")
        || is_on("enable_hls") || is_on("enable_hls_fmp4");
    option.stream_replace = args["stream_replace"];
    // Somebody else may have made one of this key by now. Then this one is in no map, and goes when this function ends.
    const auto player = s_player_proxy.make(key, tuple, option, retriesOf(args));
    setTimeout(*player, args);
    const bool force = args["force"].as<bool>() && !lacks("force");
    player->setPlayCallbackOnce([added, key, force](const SockException &error) {
        if (force) {
            added(SockException(), key);
            return;
        }
        if (error) {
            s_player_proxy.erase(key);
        }
        added(error, key);
    });
    player->setOnClose([key](const SockException &) { s_player_proxy.erase(key); });
    player->play(url);
}

// On any poller.
static void addPush(const ArgsMap &args, const Added &added) {
    const std::string url = args["dst_url"];
    const std::string stream = MediaTuple(args["vhost"], args["app"], args["stream"]).shortUrl();
    const std::string key = args["schema"] + "/" + stream + "/" + MD5(url).hexdigest();
    const auto source = MediaSource::find(args["schema"], args["vhost"], args["app"], args["stream"]);
    if (!source) {
        added(SockException(Err_other, "can not find the source stream"), key);
        return;
    }
    if (s_pusher_proxy.find(key)) {
        added(SockException(), key);
        return;
    }
    survive(url);
    const auto pusher = s_pusher_proxy.make(key, source, retriesOf(args));
    setTimeout(*pusher, args);
    pusher->setPushCallbackOnce([added, key](const SockException &error) {
        if (error) {
            s_pusher_proxy.erase(key);
        }
        added(error, key);
    });
    pusher->setOnClose([key](const SockException &) { s_pusher_proxy.erase(key); });
    pusher->publish(url);
}

static void addFFmpegSource(const ArgsMap &args, const Added &added) {
    const std::string src_url = args["src_url"], dst_url = args["dst_url"], key = MD5(dst_url).hexdigest();
    if (s_ffmpeg_src.find(key)) {
        added(SockException(), key);
        return;
    }
    survive(src_url);
    const auto source = s_ffmpeg_src.make(key);
    source->setOnClose([key] { s_ffmpeg_src.erase(key); });
    source->play(args["ffmpeg_cmd_key"], src_url, dst_url, args["timeout_ms"], [added, key](const SockException &error) {
        if (error) {
            s_ffmpeg_src.erase(key);
        }
        added(error, key);
    });
}

static void describe(const MediaTuple &tuple, Json::Value &item) {
    item["vhost"] = tuple.vhost;
    item["app"] = tuple.app;
    item["stream"] = tuple.stream;
    item["params"] = tuple.params;
}

static Json::Value describe(const PlayerProxy &proxy) {
    Json::Value item;
    item["url"] = proxy.getUrl();
    item["status"] = proxy.getStatus();
    if (!lacks("status_str")) {
        item["status_str"] = proxy.getStatusStr();
    }
    item["rePullCount"] = static_cast<Json::UInt64>(proxy.getRePullCount());
    describe(proxy.getMediaTuple(), item["src"]);
    return item;
}

static Json::Value describe(const PusherProxy &proxy) {
    Json::Value item;
    item["url"] = proxy.getUrl();
    item["status"] = proxy.getStatus();
    item["rePublishCount"] = static_cast<Json::UInt64>(proxy.getRePublishCount());
    if (const auto source = proxy.getSrc()) {
        describe(source->getMediaTuple(), item["src"]);
    }
    return item;
}

static Json::Value describe(const FFmpegSource &source) {
    Json::Value item;
    item["src_url"] = source.getSrcUrl();
    item["dst_url"] = source.getDstUrl();
    item["cmd"] = source.getCmd();
    item["ffmpeg_cmd_key"] = source.getCmdKey();
    return item;
}

// All of these act within their handlers.
template <typename Proxy>
static void registCommonApi(
    ServiceController<Proxy> &proxies, const std::string &remove, const std::string &list, const std::string &find) {
    api_regist("/index/api/" + remove, [&proxies](API_ARGS_MAP) {
        CHECK_SECRET();
        CHECK_ARGS("key");
        val["data"]["flag"] = proxies.erase(allArgs["key"]) == 1;
    });
    if (!lacks(list)) {
        api_regist("/index/api/" + list, [&proxies](API_ARGS_MAP) {
            CHECK_SECRET();
            proxies.for_each(
                [&val](const std::string &key, const std::shared_ptr<Proxy> &proxy) {
                    Json::Value item = describe(*proxy);
                    item["key"] = key;
                    val["data"].append(item);
                },
                allArgs["key"]);
        });
    }
    if (find.empty() || lacks(find)) {
        return;
    }
    api_regist("/index/api/" + find, [&proxies](API_ARGS_MAP_ASYNC) {
        CHECK_SECRET();
        CHECK_ARGS("key");
        const auto proxy = proxies.find(allArgs["key"]);
        if (!proxy) {
            throw ApiRetException("can not find the proxy", API::NotFound);
        }
        val["data"] = describe(*proxy);
        invoker(200, headerOut, val.toStyledString());
    });
}

void standin::registProxyApi() {
    // These two only queue what they are asked for, in another thread's turn as a rule, and all else comes of it there:
    // a refusal too.
    api_regist("/index/api/addStreamProxy", [](API_ARGS_MAP_ASYNC) {
        CHECK_SECRET();
        CHECK_ARGS("vhost", "app", "stream", "url");
        bear(allArgs["url"]);
        const ArgsMap args(allArgs);
        const auto added = answerTo(invoker, headerOut, val);
        EventPollerPool::Instance().getPoller(false)->async([args, added] { addPull(args, added); });
    });
    api_regist("/index/api/addStreamPusherProxy", [](API_ARGS_MAP_ASYNC) {
        CHECK_SECRET();
        CHECK_ARGS("schema", "vhost", "app", "stream", "dst_url");
        bear(allArgs["dst_url"]);
        const ArgsMap args(allArgs);
        const auto added = answerTo(invoker, headerOut, val);
        EventPollerPool::Instance().getPoller(false)->async([args, added] { addPush(args, added); });
    });
    // This one acts at once.
    api_regist("/index/api/addFFmpegSource", [](API_ARGS_MAP_ASYNC) {
        CHECK_SECRET();
        CHECK_ARGS("src_url", "dst_url", "timeout_ms");
        bear(allArgs["src_url"]);
        addFFmpegSource(allArgs, answerTo(invoker, headerOut, val));
    });
    registCommonApi(s_player_proxy, "delStreamProxy", "listStreamProxy", "getProxyInfo");
    registCommonApi(s_pusher_proxy, "delStreamPusherProxy", "listStreamPusherProxy", "getProxyPusherInfo");
    registCommonApi(s_ffmpeg_src, "delFFmpegSource", "listFFmpegSource", "");
}

void standin::clearProxies() {
    s_player_proxy.clear();
    s_ffmpeg_src.clear();
    s_pusher_proxy.clear();
}
