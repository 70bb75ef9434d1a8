// The events of the server: their names, and what each tells.
#ifndef ZLM_JOURNAL_STANDIN_EVENTS_H
#define ZLM_JOURNAL_STANDIN_EVENTS_H

#include <string>

#include "toolkit/notice.h"

#define BroadcastHttpRequestArgs                                                                                           \
    const mediakit::Parser &parser, const mediakit::HttpSession::HttpResponseInvoker &invoker, bool &consumed,             \
        toolkit::SockInfo &sender
#define BroadcastBeforeHttpRequestArgs                                                                                     \
    const mediakit::Parser &parser, mediakit::HttpBody::Ptr &body, mediakit::HttpSession &sender
#define BroadcastReloadConfigArgs void
#define BroadcastMediaChangedArgs const bool &bRegist, mediakit::MediaSource &sender
#define BroadcastStreamNoneReaderArgs mediakit::MediaSource &sender
#define BroadcastNotFoundStreamArgs                                                                                        \
    const mediakit::MediaInfo &args, toolkit::SockInfo &sender, const std::function<void()> &closePlayer
// As the host writes it, in no namespace: whoever uses it has to be in one that sees the class.
#define BroadcastPlayerProxyFailedArgs const PlayerProxy &sender, const toolkit::SockException &ex

namespace API {
const std::string kSecret = "api.secret";
} // namespace API

namespace Http {
const std::string kMaxReqSize = "http.maxReqSize";
} // namespace Http

namespace mediakit {
class PlayerProxy;

namespace Broadcast {
const std::string kBroadcastHttpRequest = "kBroadcastHttpRequest";
const std::string kBroadcastBeforeHttpRequest = "kBroadcastBeforeHttpRequest";
const std::string kBroadcastReloadConfig = "kBroadcastReloadConfig";
const std::string kBroadcastMediaChanged = "kBroadcastMediaChanged";
const std::string kBroadcastStreamNoneReader = "kBroadcastStreamNoneReader";
const std::string kBroadcastNotFoundStream = "kBroadcastNotFoundStream";
const std::string kBroadcastPlayerProxyFailed = "kBroadcastPlayerProxyFailed";
} // namespace Broadcast
} // namespace mediakit

#endif
