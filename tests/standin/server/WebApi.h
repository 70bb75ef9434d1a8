// The API as handlers see it, and the map that proxies of each kind are in: what the glue and the patches need of
// ZLMediaKit's WebApi.h.
#ifndef ZLM_JOURNAL_STANDIN_WEBAPI_H
#define ZLM_JOURNAL_STANDIN_WEBAPI_H

#include <json/json.h>

#include <stdexcept>
#include <unordered_map>

#include "standin.h"

// The config file.
extern std::string g_ini_file;

namespace API {
enum ApiErr {
    NotFound = -500,
    Exception = -400,
    InvalidArgs = -300,
    SqlFailed = -200,
    AuthFailed = -100,
    OtherFailed = -1,
    Success = 0
};
} // namespace API

class ApiRetException : public std::runtime_error {
public:
    using Headers = mediakit::HttpSession::KeyValue;

    // The reply has these headers and members, too.
    ApiRetException(
        const char *what = "success", int code = API::Success, Headers headers = {}, Json::Value body = Json::objectValue)
        : std::runtime_error(what)
        , _code(code)
        , _headers(std::move(headers))
        , _body(std::move(body)) {}
    // Not const in the host either.
    int code() { return _code; }
    const Headers &getHeaders() const { return _headers; }
    const Json::Value &getBody() const { return _body; }

private:
    int _code;
    Headers _headers;
    Json::Value _body;
};

class AuthException : public ApiRetException {
public:
    AuthException(const char *what, Headers headers = {}, Json::Value body = Json::objectValue)
        : ApiRetException(what, API::AuthFailed, std::move(headers), std::move(body)) {}
};

class InvalidArgsException : public ApiRetException {
public:
    InvalidArgsException(const char *what)
        : ApiRetException(what, API::InvalidArgs) {}
};

using ApiArgsType = std::map<std::string, std::string, mediakit::StrCaseCompare>;

// Everything that a call says: its arguments, those of its URL, its headers; the first that is not empty counts. A copy has
// copies of it all, for what outlives the handler.
template <typename Args>
class HttpAllArgs {
    std::shared_ptr<const mediakit::Parser> _own_parser;
    std::shared_ptr<Args> _own_args;

public:
    const mediakit::Parser &parser;
    Args &args;

    HttpAllArgs(const mediakit::Parser &parser, Args &args)
        : parser(parser)
        , args(args) {}
    HttpAllArgs(const HttpAllArgs &that)
        : _own_parser(std::make_shared<const mediakit::Parser>(that.parser))
        , _own_args(std::make_shared<Args>(that.args))
        , parser(*_own_parser)
        , args(*_own_args) {}

    template <typename Key>
    toolkit::variant operator[](const Key &key) const {
        std::string value = valueOf(args, key);
        if (value.empty()) {
            value = valueOf(parser.getUrlArgs(), key);
        }
        return toolkit::variant(value.empty() ? valueOf(parser.getHeader(), key) : value);
    }

    const Args &getArgs() const { return args; }
    const mediakit::Parser &getParser() const { return parser; }

private:
    template <typename Map, typename Key>
    static std::string valueOf(const Map &map, const Key &key) {
        const auto it = map.find(key);
        return it == map.end() ? std::string() : it->second;
    }
};

using ArgsMap = HttpAllArgs<ApiArgsType>;

#define API_ARGS_MAP                                                                                                       \
    toolkit::SockInfo &sender, mediakit::HttpSession::KeyValue &headerOut, const ArgsMap &allArgs, Json::Value &val
#define API_ARGS_MAP_ASYNC API_ARGS_MAP, const mediakit::HttpSession::HttpResponseInvoker &invoker

template <typename Args, typename Key>
bool checkArgs(Args &args, const Key &key) {
    return !args[key].empty();
}
template <typename Args, typename Key, typename... Keys>
bool checkArgs(Args &args, const Key &key, const Keys &...keys) {
    return checkArgs(args, key) && checkArgs(args, keys...);
}
#define CHECK_ARGS(...)                                                                                                    \
    if (!checkArgs(allArgs, ##__VA_ARGS__)) {                                                                              \
        throw InvalidArgsException("Required parameter missed: " #__VA_ARGS__);                                            \
    }

void check_secret(API_ARGS_MAP);
#define CHECK_SECRET() check_secret(sender, headerOut, allArgs, val)

ApiArgsType getAllArgs(const mediakit::Parser &parser);
void api_regist(const std::string &path, const std::function<void(API_ARGS_MAP)> &handler);
void api_regist(const std::string &path, const std::function<void(API_ARGS_MAP_ASYNC)> &handler);
void installWebApi();
void unInstallWebApi();

// All proxies of a kind. Nothing comes in or goes but by what is here.
template <typename Type>
class ServiceController {
public:
    using Pointer = std::shared_ptr<Type>;
    std::unordered_map<std::string, Pointer> _map;
    mutable std::recursive_mutex _mtx;

    // Their destructors run without the mutex, and find an empty map.
    void clear() {
        decltype(_map) last;
        std::lock_guard<std::recursive_mutex> lock(_mtx);
        last.swap(_map);
    }

    size_t erase(const std::string &key) {
        // Declared first: it is let go, and the object destroyed, when the mutex is free again.
        Pointer last;
        std::lock_guard<std::recursive_mutex> lock(_mtx);
        auto itr = _map.find(key);
        if (itr == _map.end()) {
            return 0;
        }
        // Taken out of the entry before the entry goes, as in the host.
        last = std::move(itr->second);
        _map.erase(itr);
        return 1;
    }

    size_t size() {
        std::lock_guard<std::recursive_mutex> lock(_mtx);
        return _map.size();
    }

    Pointer find(const std::string &key) const {
        std::lock_guard<std::recursive_mutex> lock(_mtx);
        auto it = _map.find(key);
        return it == _map.end() ? nullptr : it->second;
    }

    // All, or the one of that key, which has to be there; the mutex is held for as long as it takes.
    void for_each(const std::function<void(const std::string &, const Pointer &)> &each, const std::string &key = {}) {
        std::lock_guard<std::recursive_mutex> lock(_mtx);
        if (!key.empty() && _map.find(key) == _map.end()) {
            throw std::invalid_argument("key not found: " + key);
        }
        for (const auto &entry : _map) {
            if (key.empty() || entry.first == key) {
                each(entry.first, entry.second);
            }
        }
    }

    // Where the key is taken meanwhile, what is made is in no map, and nobody says so.
    template <typename... Args>
    Pointer make(const std::string &key, Args &&...args) {
        auto server = std::make_shared<Type>(std::forward<Args>(args)...);
        std::lock_guard<std::recursive_mutex> lock(_mtx);
        _map.emplace(key, server);
        return server;
    }
};

#endif
