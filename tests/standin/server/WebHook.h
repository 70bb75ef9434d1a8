// The one hook of the stand-in: asks the business system whether to close a stream that nobody watches.
#ifndef ZLM_JOURNAL_STANDIN_WEBHOOK_H
#define ZLM_JOURNAL_STANDIN_WEBHOOK_H

#include <json/json.h>

#include "connection.h"

namespace standin {

// POSTs JSON to http://ip:port/path and returns the reply's body; empty where there is none in time.
inline std::string post(const std::string &url, const std::string &body, float timeout_sec) {
    const StreamUrl to(url);
    const int fd = to.good ? socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
    if (fd < 0) {
        return "";
    }
    timeval timeout{};
    timeout.tv_sec = static_cast<time_t>(timeout_sec);
    timeout.tv_usec = static_cast<suseconds_t>((timeout_sec - static_cast<float>(timeout.tv_sec)) * 1e6f);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    const std::string request = "POST /" + to.path + " HTTP/1.1\r\nHost: " + to.host
        + "\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: " + std::to_string(body.size())
        + "\r\n\r\n" + body;
    std::string reply;
    if (connect(fd, reinterpret_cast<const sockaddr *>(&to.address), sizeof(to.address)) == 0
        && send(fd, request.data(), request.size(), MSG_NOSIGNAL) == ssize_t(request.size())) {
        char piece[4096];
        for (ssize_t got; (got = recv(fd, piece, sizeof(piece), 0)) > 0;) {
            reply.append(piece, got);
            // All of it is there when the length that it names is.
            const auto end = reply.find("\r\n\r\n");
            mediakit::Parser head;
            head.parse(reply.data(), reply.size());
            if (end != std::string::npos && !head["Content-Length"].empty()
                && reply.size() >= end + 4 + strtoul(head["Content-Length"].c_str(), nullptr, 10)) {
                break;
            }
        }
    }
    ::close(fd);
    const auto end = reply.find("\r\n\r\n");
    return end == std::string::npos ? "" : reply.substr(end + 4);
}

inline bool saysClose(const std::string &reply) {
    Json::Value root;
    std::string errors;
    std::istringstream text(reply);
    return Json::parseFromStream(Json::CharReaderBuilder(), text, &root, &errors) && root.isObject()
        && root["close"].asBool();
}

// The answer may come as late as it likes: the stream is closed then, if it is still there and still without readers.
inline void installWebHook() {
    using namespace mediakit;
    toolkit::NoticeCenter::Instance().addListener(
        nullptr, Broadcast::kBroadcastStreamNoneReader, [](BroadcastStreamNoneReaderArgs) {
            const std::string url = toolkit::configured("hook.on_stream_none_reader");
            if (!toolkit::configured("hook.enable").as<bool>() || url.empty()) {
                return;
            }
            Json::Value body;
            body["schema"] = sender.getSchema();
            body["vhost"] = sender.getMediaTuple().vhost;
            body["app"] = sender.getMediaTuple().app;
            body["stream"] = sender.getMediaTuple().stream;
            const std::string text = body.toStyledString();
            const auto timeout_sec = toolkit::configured("hook.timeoutSec").as<float>();
            const auto muxer = sender.getMuxer();
            const bool auto_close = muxer && muxer->getOption().auto_close;
            const std::weak_ptr<MediaSource> weak = sender.shared_from_this();
            const auto poller = toolkit::EventPollerPool::Instance().getPoller();
            std::thread([url, text, timeout_sec, auto_close, weak, poller] {
                if (!saysClose(post(url, text, timeout_sec)) || auto_close) {
                    return;
                }
                poller->async([weak] {
                    if (const auto source = weak.lock()) {
                        source->getOwnerPoller()->async([source] { source->close(false); });
                    }
                });
            }).detach();
        });
}

} // namespace standin

#endif
