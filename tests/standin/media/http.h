// HTTP as the API and the glue see it: requests, bodies, what a reply is given to, and who may call.
#ifndef ZLM_JOURNAL_STANDIN_HTTP_H
#define ZLM_JOURNAL_STANDIN_HTTP_H

#include <arpa/inet.h>
#include <strings.h>

#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <sstream>
#include <string>

#include "toolkit/socket.h"

namespace mediakit {

struct StrCaseCompare {
    bool operator()(const std::string &a, const std::string &b) const { return strcasecmp(a.c_str(), b.c_str()) < 0; }
};

// Like the host's it can hold a name more than once, but takes only the first by emplace().
class StrCaseMap : public std::multimap<std::string, std::string, StrCaseCompare> {
public:
    using Super = std::multimap<std::string, std::string, StrCaseCompare>;

    std::string &operator[](const std::string &name) {
        auto it = find(name);
        return (it == end() ? Super::emplace(name, "") : it)->second;
    }
    template <typename Name, typename Value>
    void emplace(Name &&name, Value &&value) {
        if (find(name) == end()) {
            Super::emplace(std::forward<Name>(name), std::forward<Value>(value));
        }
    }
};

inline std::string urlDecode(const std::string &text) {
    std::string out;
    for (size_t n = 0; n < text.size(); ++n) {
        if (text[n] == '%' && n + 2 < text.size() && isxdigit(text[n + 1]) && isxdigit(text[n + 2])) {
            out += static_cast<char>(std::stoi(text.substr(n + 1, 2), nullptr, 16));
            n += 2;
        } else {
            out += text[n] == '+' ? ' ' : text[n];
        }
    }
    return out;
}

class Parser {
public:
    // A whole request, the body included.
    void parse(const char *data, size_t size) {
        const std::string text(data, size);
        const auto end = text.find("\r\n\r\n");
        std::istringstream head(text.substr(0, end));
        std::string target, line;
        head >> _method >> target;
        std::getline(head, line);
        while (std::getline(head, line)) {
            const auto colon = line.find(':');
            if (colon != std::string::npos) {
                _headers.emplace(toolkit::trim(line.substr(0, colon)), toolkit::trim(line.substr(colon + 1)));
            }
        }
        const auto question = target.find('?');
        _url = target.substr(0, question);
        if (question != std::string::npos) {
            _params = target.substr(question + 1);
            _url_args = parseArgs(_params);
        }
        _content = end == std::string::npos ? "" : text.substr(end + 4);
    }

    static StrCaseMap parseArgs(const std::string &text) {
        StrCaseMap args;
        std::istringstream pairs(text);
        std::string pair;
        while (std::getline(pairs, pair, '&')) {
            const auto equals = pair.find('=');
            const auto value = equals == std::string::npos ? "" : pair.substr(equals + 1);
            args[urlDecode(pair.substr(0, equals))] = urlDecode(value);
        }
        return args;
    }

    const std::string &method() const { return _method; }
    const std::string &url() const { return _url; }
    const std::string &params() const { return _params; }
    const std::string &content() const { return _content; }
    void setUrl(std::string url) { _url = std::move(url); }
    void setContent(std::string content) { _content = std::move(content); }
    StrCaseMap &getHeader() const { return _headers; }
    StrCaseMap &getUrlArgs() const { return _url_args; }
    const std::string &operator[](const char *name) const {
        static const std::string none;
        auto it = _headers.find(name);
        return it == _headers.end() ? none : it->second;
    }

private:
    std::string _method, _url, _params, _content;
    // As in the host, whoever reads a request may change these.
    mutable StrCaseMap _headers, _url_args;
};

class HttpBody {
public:
    using Ptr = std::shared_ptr<HttpBody>;
    explicit HttpBody(std::string content)
        : _content(std::move(content)) {}
    int64_t remainSize() { return _content.size(); }
    toolkit::Buffer::Ptr readData(size_t size) {
        auto buffer = std::make_shared<toolkit::Buffer>(_content.substr(0, size));
        _content.erase(0, size);
        return buffer;
    }

private:
    std::string _content;
};

// Takes a reply, now or later, from any thread.
class HttpResponseInvokerImp {
public:
    using HttpResponseInvokerLambda0 = std::function<void(int, const StrCaseMap &, const HttpBody::Ptr &)>;
    HttpResponseInvokerImp() = default;
    HttpResponseInvokerImp(HttpResponseInvokerLambda0 lambda)
        : _lambda(std::move(lambda)) {}
    void operator()(int status, const StrCaseMap &headers, const HttpBody::Ptr &body) const {
        if (_lambda) {
            _lambda(status, headers, body);
        }
    }
    void operator()(int status, const StrCaseMap &headers, const std::string &body) const {
        (*this)(status, headers, std::make_shared<HttpBody>(body));
    }
    operator bool() const { return bool(_lambda); }

private:
    HttpResponseInvokerLambda0 _lambda;
};

class HttpSession : public toolkit::SocketHelper {
public:
    using HttpResponseInvoker = HttpResponseInvokerImp;
    using KeyValue = StrCaseMap;

    using SocketHelper::SocketHelper;
    // The longest body that is taken; 0: as the config says.
    void setMaxReqSize(size_t size) { _max_req_size = size; }

protected:
    size_t maxReqSize() const {
        GET_CONFIG(size_t, configured, "http.maxReqSize");
        return _max_req_size ? _max_req_size : configured;
    }

private:
    size_t _max_req_size = 0;
};

struct HttpFileManager {
    // http.allow_ip_range: addresses and ranges "a-b" of them with commas between. What is no address is skipped; a list
    // of nothing lets everybody in.
    static bool isIPAllowed(const std::string &ip) {
        GET_CONFIG(std::string, list, "http.allow_ip_range");
        const Address caller(ip);
        bool any = false;
        for (const auto &item : toolkit::split(list, ',')) {
            const auto ends = toolkit::split(item, '-');
            if (toolkit::trim(item).empty() || ends.empty() || ends.size() > 2) {
                continue;
            }
            const Address from(ends.front()), to(ends.back());
            if (from.family < 0 || from.family != to.family) {
                WarnL << "http.allow_ip_range: \"" << item << "\" is left out";
                continue;
            }
            any = true;
            if (caller.family == from.family && memcmp(from.bytes, caller.bytes, sizeof(from.bytes)) <= 0
                && memcmp(caller.bytes, to.bytes, sizeof(to.bytes)) <= 0) {
                return true;
            }
        }
        return !any;
    }

private:
    struct Address {
        explicit Address(const std::string &text) {
            const std::string ip = toolkit::trim(text);
            for (const int one : {AF_INET, AF_INET6}) {
                if (inet_pton(one, ip.c_str(), bytes) == 1) {
                    family = one;
                    return;
                }
            }
        }
        int family = -1;
        unsigned char bytes[16] = {};
    };
};

} // namespace mediakit

#endif
