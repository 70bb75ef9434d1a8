// Watches clients' calls: passes those that add and remove proxies to the journal, and the journal's own calls, too.
// Decides nothing.
#include <algorithm>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

#include "Common/config.h"
#include "Http/HttpFileManager.h"
#include "Poller/EventPoller.h"
#include "Util/NoticeCenter.h"
#include "client_call.h"
#include "plugin.h"
#include "rust/cxx.h"
#include "text.h"
#include "zlm-journal/src/ffi/bridge.rs.h"

using namespace toolkit;
using namespace mediakit;

namespace zlm_journal {

namespace {

// Longer bodies have items and no arguments. A pull may have 17 URLs.
const size_t kMostArgBytes = 64 << 10;
// For calls of the journal: 10,000 items are about 3 MB.
const size_t kMostItemBytes = 64 << 20;

// Compares names as the dispatch table does, ignoring case.
bool isSame(const std::string &a, const std::string &b) {
    return strcasecmp(a.c_str(), b.c_str()) == 0;
}

std::string apiName(const Parser &parser) {
    const std::string &path = parser.url();
    const size_t length = sizeof(kApiPrefix) - 1;
    return strncasecmp(path.c_str(), kApiPrefix, length) == 0 ? path.substr(length) : std::string();
}

// Whether the server's own check accepts this secret.
bool isTrusted(const std::string &secret, SockInfo &sender) {
    GET_CONFIG(std::string, api_secret, API::kSecret);
    return !api_secret.empty() && api_secret == secret && HttpFileManager::isIPAllowed(sender.get_peer_ip());
}

// Whether the URL has the right secret.
bool namesSecret(const Parser &parser, SockInfo &sender) {
    const auto &args = parser.getUrlArgs();
    const auto secret = args.find("secret");
    return secret != args.end() && isTrusted(secret->second, sender);
}

// Browsers send the cookie of a sign-in along when another site makes them call us. Only a page of this server can add a
// header, so such a call needs one.
void checkSite(const std::string &secret, const Parser &parser, SockInfo &sender) {
    if (!isTrusted(secret, sender) && parser["X-Journal"].empty()) {
        throw AuthException("A call of the journal that is made with the login's cookie needs the header X-Journal: 1");
    }
}

// Names that compare equal are neighbours.
bool hasNameTwice(const StrCaseMap &args) {
    using Arg = StrCaseMap::value_type;
    const auto is_same = [](const Arg &a, const Arg &b) { return isSame(a.first, b.first); };
    return std::adjacent_find(args.begin(), args.end(), is_same) != args.end();
}

ApiArgsType urlArgs(const Parser &parser) {
    ApiArgsType args;
    for (const auto &arg : parser.getUrlArgs()) {
        args[arg.first] = arg.second;
    }
    return args;
}

// The server's own check of secret and address. Throws what a handler would; returns the headers that it sets for the
// reply.
Headers checkCaller(const Parser &parser, ApiArgsType &args, SockInfo &sender) {
    const ArgsMap allArgs(parser, args);
    // CHECK_SECRET() finds it by this name.
    GET_CONFIG(std::string, api_secret, API::kSecret);
    Headers headerOut;
    Json::Value val;
    CHECK_SECRET();
    (void)val;
    return headerOut;
}

#ifdef BroadcastBeforeHttpRequestArgs
// The same of a request whose body has not been read.
bool isLetThrough(const Parser &parser, SockInfo &sender) {
    try {
        auto args = urlArgs(parser);
        checkCaller(parser, args, sender);
        return true;
    } catch (const ApiRetException &) {
        return false;
    }
}
#endif

// The arguments that a handler finds, each name once: from the URL and the body, then from the headers, where the first
// of equal names counts. Of the headers, only `names` and those with an underscore, which no standard header has, can
// be arguments.
template <typename Args>
std::vector<zlm_journal_pair> argPairsOf(const Args &args, const Parser &parser) {
    static const std::set<std::string, StrCaseCompare> names = {"vhost", "app", "stream", "url", "schema", "key", "force"};
    std::vector<zlm_journal_pair> pairs;
    pairs.reserve(args.size() + names.size());
    for (const auto &arg : args) {
        pairs.push_back({textOf(arg.first), textOf(arg.second)});
    }
    const std::string *before = nullptr;
    for (const auto &header : parser.getHeader()) {
        const bool is_again = before && isSame(*before, header.first);
        before = &header.first;
        if (is_again || (header.first.find('_') == std::string::npos && !names.count(header.first))) {
            continue;
        }
        const auto arg = args.find(header.first);
        if (arg == args.end()) {
            pairs.push_back({textOf(header.first), textOf(header.second)});
        } else if (arg->second.empty()) {
            pairs[std::distance(args.begin(), arg)].value = textOf(header.second);
        }
    }
    return pairs;
}

// A client that waits for the journal's answer, with the poller of its connection.
struct Asker {
    Invoker invoker;
    EventPoller::Ptr poller;
    Headers headers;

    static void reply(void *context, zlm_journal_text content_type, zlm_journal_text body) {
        const std::unique_ptr<Asker> asker(static_cast<Asker *>(context));
        const Invoker invoker = asker->invoker;
        Headers headers = asker->headers;
        headers["Content-Type"] = stringOf(content_type);
        const std::string text = stringOf(body);
        asker->poller->async([invoker, headers, text] { invoker(200, headers, text); }, false);
    }
};

// Passes an API call of the journal to it.
void answer(
    const std::string &name, const ApiArgsType &args, const std::string &body, const Headers &headers, SockInfo &sender,
    const Invoker &invoker) {
    const auto pairs = pairsOf(args);
    const std::string caller = sender.get_peer_ip() + ":" + std::to_string(sender.get_peer_port());
    const zlm_journal_request request{sizeof request, textOf(name), pairs.data(), pairs.size(), textOf(caller)};
    // The reply comes whatever this returns.
    (void)zlm_journal_api_call(
        plugin().journal, &request, textOf(body), Asker::reply,
        new Asker{invoker, EventPollerPool::Instance().getPoller(), headers});
}

} // namespace

bool intercept(
    const Lookup &lookup, ArgsOf args_of, const Handler &handler, const Parser &parser, const Invoker &invoker,
    SockInfo &sender) {
    if (!plugin().api) {
        return false;
    }
    plugin().api->learn(lookup);
    const std::string name = apiName(parser);
    if (plugin().watched.count(name)) {
        const auto take_in = [&](const std::vector<zlm_journal_pair> &args) {
            const auto poller = static_cast<SocketHelper &>(sender).getPoller();
            const auto call = std::make_shared<ClientCall>(invoker, poller);
            return call->begin(name, args, handler, parser, sender);
        };
        // Most calls have everything in the URL, which is already parsed. If a name is there twice, the server uses the
        // last.
        if (parser.content().empty() && !hasNameTwice(parser.getUrlArgs()) && namesSecret(parser, sender)) {
            return take_in(argPairsOf(parser.getUrlArgs(), parser));
        }
        auto args = args_of(parser);
        // A call that the check does not let through causes no work. With the right secret and address it is left to
        // the handler, so that it is not done twice.
        if (!isTrusted(ArgsMap(parser, args)["secret"], sender)) {
            checkCaller(parser, args, sender);
        }
        return take_in(argPairsOf(args, parser));
    }
    if (plugin().ours.count(name)) {
#ifdef BroadcastBeforeHttpRequestArgs
        // The body has been read. Behind a reverse proxy, the next request of the connection may come from anyone, and
        // the server does not ask about every method: restore the configured limit.
        if (auto *const session = dynamic_cast<HttpSession *>(&sender)) {
            session->setMaxReqSize(0);
        }
#endif
        const auto &body = parser.content();
        if (body.size() > kMostArgBytes || (!body.empty() && body[0] == '[')) {
            // MediaServer looks for arguments in any body, on the poller. Calls with items have their arguments in the
            // URL, so the server need not parse 10,000 items.
            auto args = urlArgs(parser);
            const auto headers = checkCaller(parser, args, sender);
            checkSite(ArgsMap(parser, args)["secret"], parser, sender);
            answer(name, args, body, headers, sender, invoker);
            return true;
        }
    }
    if (ApiCalls::isOurs(sender)) {
        // This is the call that restore() has sent: everything is ready now.
        startRestore();
    }
    return false;
}

void serveCalls() {
    GET_CONFIG(std::string, api_secret, API::kSecret);
    for (const auto &call : api_calls()) {
        const std::string name(call);
        plugin().ours.insert(name);
        api_regist(kApiPrefix + name, [name](API_ARGS_MAP_ASYNC) {
            CHECK_SECRET();
            (void)val;
            checkSite(allArgs["secret"], allArgs.parser, sender);
            answer(name, allArgs.args, allArgs.parser.content(), headerOut, sender, invoker);
        });
    }
    for (const auto &call : watched_calls()) {
        plugin().watched.insert(std::string(call));
    }
#ifdef BroadcastBeforeHttpRequestArgs
    // A list of cameras is longer than http.maxReqSize (40,960 bytes by default). Whom the server's own check lets through,
    // by the secret in URL or header or by the cookie of a sign-in, may send it; others are not kept in memory. The server
    // asks before it reads the body of a POST or PUT.
    NoticeCenter::Instance().addListener(
        &plugin(), Broadcast::kBroadcastBeforeHttpRequest, [](BroadcastBeforeHttpRequestArgs) {
            (void)body;
            GET_CONFIG(size_t, configured, Http::kMaxReqSize);
            if (strtoull(parser["Content-Length"].c_str(), nullptr, 10) > configured && plugin().ours.count(apiName(parser))
                && isLetThrough(parser, sender)) {
                sender.setMaxReqSize(std::max(configured, kMostItemBytes));
            }
        });
#endif
}

} // namespace zlm_journal
