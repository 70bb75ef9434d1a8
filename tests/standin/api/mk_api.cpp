// The stand-in of libmk_api: the C API over the pulls, pushes and sources that the stand-in's MediaServer has. Like the host's,
// each change of an object is queued on its poller, with a hold on the object; a callback that is replaced is destroyed there.
#include <cstdarg>
#include <cstdio>
#include <sstream>

#include "mk_mediakit.h"
#include "server/PlayerProxy.h"
#include "server/PusherProxy.h"

using namespace toolkit;
using namespace mediakit;

namespace {

mk_events s_events;

mINI &iniOf(mk_ini ini) {
    return *reinterpret_cast<mINI *>(ini);
}

using UserData = std::shared_ptr<void>;

UserData userDataOf(void *user_data, on_user_data_free user_data_free) {
    return UserData(user_data, [user_data_free](void *data) {
        if (user_data_free) {
            user_data_free(data);
        }
    });
}

struct Pull {
    PlayerProxy::Ptr proxy;
};

// One attempt: there is no pause and no other one.
struct Push {
    explicit Push(const MediaSource::Ptr &source)
        : proxy(std::make_shared<PusherProxy>(source, 0)) {}
    std::shared_ptr<PusherProxy> proxy;
};

PlayerProxy::Ptr &pullOf(mk_proxy_player player) {
    return reinterpret_cast<Pull *>(player)->proxy;
}

std::shared_ptr<PusherProxy> &pushOf(mk_pusher pusher) {
    return reinterpret_cast<Push *>(pusher)->proxy;
}

MediaSource &sourceOf(const mk_media_source source) {
    return *reinterpret_cast<MediaSource *>(source);
}

const MediaInfo &infoOf(const mk_media_info info) {
    return *reinterpret_cast<const MediaInfo *>(info);
}

// As the host's: what it has no event for is not listened to.
void listen() {
    auto &center = NoticeCenter::Instance();
    static const char tag = 0;
    void *const its = const_cast<char *>(&tag);
    center.addListener(its, Broadcast::kBroadcastMediaChanged, [](BroadcastMediaChangedArgs) {
        if (s_events.on_mk_media_changed) {
            s_events.on_mk_media_changed(bRegist ? 1 : 0, reinterpret_cast<mk_media_source>(&sender));
        }
    });
    center.addListener(its, Broadcast::kBroadcastStreamNoneReader, [](BroadcastStreamNoneReaderArgs) {
        if (s_events.on_mk_media_no_reader) {
            s_events.on_mk_media_no_reader(reinterpret_cast<mk_media_source>(&sender));
        }
    });
}

} // namespace

void API_CALL mk_env_init(const mk_config *config) {
    auto &ini = mINI::Instance();
    {
        std::lock_guard<std::recursive_mutex> lock(mINI::mutex());
        for (const auto &pair : std::map<std::string, std::string>{
                 {"general.enableVhost", "0"},
                 {"general.maxStreamWaitMS", "15000"},
                 {"general.mediaServerId", "standin"},
                 {"general.resetWhenRePlay", "1"},
                 {"general.streamNoneReaderDelayMS", "20000"},
                 {"record.appName", "record"},
                 {"protocol.auto_close", "0"},
                 {"protocol.enable_rtsp", "1"},
                 {"protocol.enable_rtmp", "1"},
                 {"protocol.enable_ts", "1"},
                 {"protocol.enable_fmp4", "1"},
                 {"protocol.enable_hls", "1"},
                 {"protocol.enable_hls_fmp4", "0"}}) {
            ini[pair.first] = pair.second;
        }
        std::istringstream text(config->ini && !config->ini_is_path ? config->ini : "");
        std::string line, section;
        while (std::getline(text, line)) {
            const auto equals = line.find('=');
            if (!line.empty() && line[0] == '[') {
                section = line.substr(1, line.find(']') - 1);
            } else if (equals != std::string::npos) {
                ini[section + "." + line.substr(0, equals)] = line.substr(equals + 1);
            }
        }
    }
    if (config->thread_num > 0) {
        EventPollerPool::setPoolSize(static_cast<size_t>(config->thread_num));
    }
    EventPollerPool::Instance();
    listen();
}

void API_CALL mk_stop_all_server(void) {}

void API_CALL mk_events_listen(const mk_events *events) {
    s_events = events ? *events : mk_events();
}

mk_ini API_CALL mk_ini_create(void) {
    return reinterpret_cast<mk_ini>(new mINI);
}

mk_ini API_CALL mk_ini_default(void) {
    return reinterpret_cast<mk_ini>(&mINI::Instance());
}

void API_CALL mk_ini_release(mk_ini ini) {
    delete &iniOf(ini);
}

void API_CALL mk_ini_set_option(mk_ini ini, const char *key, const char *value) {
    iniOf(ini)[key] = std::string(value);
}

const char *API_CALL mk_ini_get_option(mk_ini ini, const char *key) {
    const auto found = iniOf(ini).find(key);
    return found == iniOf(ini).end() ? nullptr : found->second.c_str();
}

void API_CALL mk_log_printf(int, const char *, const char *, int, const char *format, ...) {
    char line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    ErrorL << line;
}

const char *API_CALL mk_media_source_get_schema(const mk_media_source source) {
    return sourceOf(source).getSchema().c_str();
}

const char *API_CALL mk_media_source_get_vhost(const mk_media_source source) {
    return sourceOf(source).getMediaTuple().vhost.c_str();
}

const char *API_CALL mk_media_source_get_app(const mk_media_source source) {
    return sourceOf(source).getMediaTuple().app.c_str();
}

const char *API_CALL mk_media_source_get_stream(const mk_media_source source) {
    return sourceOf(source).getMediaTuple().stream.c_str();
}

int API_CALL mk_media_source_close(const mk_media_source source, int force) {
    return sourceOf(source).close(force != 0);
}

mk_media_source API_CALL
mk_media_source_find2(const char *schema, const char *vhost, const char *app, const char *stream, int) {
    return reinterpret_cast<mk_media_source>(MediaSource::find(schema, vhost, app, stream).get());
}

const char *API_CALL mk_media_info_get_vhost(const mk_media_info info) {
    return infoOf(info).vhost.c_str();
}

const char *API_CALL mk_media_info_get_app(const mk_media_info info) {
    return infoOf(info).app.c_str();
}

const char *API_CALL mk_media_info_get_stream(const mk_media_info info) {
    return infoOf(info).stream.c_str();
}

mk_proxy_player API_CALL
mk_proxy_player_create4(const char *vhost, const char *app, const char *stream, mk_ini ini, int retry_count) {
    const auto is_on = [ini](const std::string &name) {
        const auto *const given = mk_ini_get_option(ini, name.c_str());
        return given && *given ? variant(std::string(given)).as<bool>() : configured("protocol." + name).as<bool>();
    };
    ProtocolOption option;
    option.auto_close = is_on("auto_close");
    option.makes_sources = is_on("enable_rtsp") || is_on("enable_rtmp") || is_on("enable_ts") || is_on("enable_fmp4")
        || is_on("enable_hls") || is_on("enable_hls_fmp4");
    const MediaTuple tuple(vhost, app, stream);
    return reinterpret_cast<mk_proxy_player>(new Pull{std::make_shared<PlayerProxy>(tuple, option, retry_count)});
}

void API_CALL mk_proxy_player_release(mk_proxy_player player) {
    delete reinterpret_cast<Pull *>(player);
}

void API_CALL mk_proxy_player_set_option(mk_proxy_player player, const char *key, const char *value) {
    const auto pull = pullOf(player);
    if (std::string(key) == "protocol_timeout_ms") {
        const int timeout_ms = atoi(value);
        pull->getPoller()->async([pull, timeout_ms] { pull->setTimeoutMs(timeout_ms); });
    }
}

void API_CALL mk_proxy_player_play(mk_proxy_player player, const char *url) {
    const auto pull = pullOf(player);
    const std::string its = url;
    pull->getPoller()->async([pull, its] { pull->play(its); });
}

static PlayerProxy::Told toldBy(on_mk_proxy_player_cb callback, const UserData &data) {
    return [callback, data](const SockException &error) {
        if (callback) {
            callback(data.get(), error.getErrCode(), error.what(), 0);
        }
    };
}

void API_CALL mk_proxy_player_set_on_close2(
    mk_proxy_player player, on_mk_proxy_player_cb callback, void *user_data, on_user_data_free user_data_free) {
    const auto pull = pullOf(player);
    const auto data = userDataOf(user_data, user_data_free);
    pull->getPoller()->async([pull, callback, data] { pull->setOnClose(toldBy(callback, data)); });
}

void API_CALL mk_proxy_player_set_on_play_result(
    mk_proxy_player player, on_mk_proxy_player_cb callback, void *user_data, on_user_data_free user_data_free) {
    const auto pull = pullOf(player);
    const auto data = userDataOf(user_data, user_data_free);
    pull->getPoller()->async([pull, callback, data] { pull->setPlayCallbackOnce(toldBy(callback, data)); });
}

mk_pusher API_CALL mk_pusher_create(const char *schema, const char *vhost, const char *app, const char *stream) {
    return reinterpret_cast<mk_pusher>(new Push(MediaSource::find(schema, vhost, app, stream)));
}

void API_CALL mk_pusher_release(mk_pusher pusher) {
    delete reinterpret_cast<Push *>(pusher);
}

void API_CALL mk_pusher_set_option(mk_pusher, const char *, const char *) {}

void API_CALL mk_pusher_publish(mk_pusher pusher, const char *url) {
    const auto push = pushOf(pusher);
    const std::string its = url;
    push->getPoller()->async([push, its] { push->publish(its); });
}

static PusherProxy::Told toldBy(on_mk_push_event callback, const UserData &data) {
    return [callback, data](const SockException &error) { callback(data.get(), error.getErrCode(), error.what()); };
}

void API_CALL
mk_pusher_set_on_result2(mk_pusher pusher, on_mk_push_event callback, void *user_data, on_user_data_free user_data_free) {
    const auto push = pushOf(pusher);
    const auto data = userDataOf(user_data, user_data_free);
    push->getPoller()->async([push, callback, data] { push->setPushCallbackOnce(toldBy(callback, data)); });
}

void API_CALL
mk_pusher_set_on_shutdown2(mk_pusher pusher, on_mk_push_event callback, void *user_data, on_user_data_free user_data_free) {
    const auto push = pushOf(pusher);
    const auto data = userDataOf(user_data, user_data_free);
    push->getPoller()->async([push, callback, data] { push->setOnClose(toldBy(callback, data)); });
}
