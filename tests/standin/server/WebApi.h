// The stand-in's API: what the glue needs of ZLMediaKit's WebApi.h. See ../README.md.
#ifndef ZLM_JOURNAL_STANDIN_WEBAPI_H
#define ZLM_JOURNAL_STANDIN_WEBAPI_H

#include <json/json.h>

#include "standin.h"

namespace API {
const int NotFound = -500;
const int Exception = -400;
const int InvalidArgs = -300;
const int AuthFailed = -100;
const int OtherFailed = -1;
const std::string kSecret = "api.secret";
} // namespace API

class ApiRetException : public std::runtime_error {
public:
    ApiRetException(const std::string &message, int code) : std::runtime_error(message), _code(code) {}
    int code() const { return _code; }

private:
    int _code;
};

struct ApiArgs : std::map<std::string, std::string, mediakit::StrCaseCompare> {
    std::string get(const char *name) const {
        auto it = find(name);
        return it == end() ? "" : it->second;
    }
    using map::operator[];
    std::string operator[](const char *name) const { return get(name); }
};

#define API_ARGS_MAP                                                                                  \
    toolkit::SockInfo &sender, mediakit::HttpSession::KeyValue &headerOut, const ApiArgs &allArgs, Json::Value &val
#define API_ARGS_MAP_ASYNC API_ARGS_MAP, const mediakit::HttpSession::HttpResponseInvoker &invoker

#define CHECK_SECRET()                                                                      \
    do {                                                                                    \
        (void)headerOut;                                                                    \
        if (!isAllowed(sender.get_peer_ip())) {                                             \
            throw ApiRetException("Your ip is not allowed", API::AuthFailed);               \
        }                                                                                   \
        if (allArgs.get("secret") != toolkit::mINI::Instance()[API::kSecret]) {             \
            throw ApiRetException("Incorrect secret", API::AuthFailed);                     \
        }                                                                                   \
    } while (false)

bool isAllowed(const std::string &ip);
ApiArgs getAllArgs(const mediakit::Parser &parser);
void api_regist(const std::string &path, const std::function<void(API_ARGS_MAP)> &handler);
void api_regist(const std::string &path, const std::function<void(API_ARGS_MAP_ASYNC)> &handler);
void installWebApi();
void unInstallWebApi();

#endif
