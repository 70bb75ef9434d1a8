// What the patched lines of MediaServer call. The compiler includes this file into every source of MediaServer by
// itself (see zlmediakit.cmake), so that a patch is the calling line alone; in a build without the plugin the macros do
// not exist, and the patched lines are gone with them.
#ifndef ZLM_JOURNAL_HOOKS_H
#define ZLM_JOURNAL_HOOKS_H

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>

class FFmpegSource;

namespace mediakit {
class Parser;
class HttpResponseInvokerImp;
class PlayerProxy;
class PusherProxy;
struct StrCaseCompare;
} // namespace mediakit
namespace toolkit {
class SockInfo;
}

namespace zlm_journal {

////////////////////////////////////////////////////////////// what MediaServer has

// The kind of proxy that a ServiceController holds, as the C API numbers them; negative for what is not journaled.
template <typename Type>
struct KindOf {
    enum { number = -1 };
};
template <>
struct KindOf<mediakit::PlayerProxy> {
    enum { number = 0 };
};
template <>
struct KindOf<mediakit::PusherProxy> {
    enum { number = 1 };
};
template <>
struct KindOf<FFmpegSource> {
    enum { number = 2 };
};

// Told under the map's own mutex, in the order of what happens. Take microseconds, never wait, never throw.
void made(int kind, const std::string &key) noexcept;
void ended(int kind, const std::string &key) noexcept;

// A new proxy is about to be told of: has its own events told, too. Those of other kinds have none.
void follow(const std::string &key, mediakit::PlayerProxy &proxy) noexcept;
void follow(const std::string &key, mediakit::PusherProxy &proxy) noexcept;
template <typename Type>
void follow(const std::string &, Type &) noexcept {}

// The map of a ServiceController, which tells what enters and leaves it. Emptied by swap, at the server's shutdown, it
// tells nothing: that is nobody's wish.
template <typename Type>
class ServiceMap : public std::unordered_map<std::string, std::shared_ptr<Type>> {
    using Base = std::unordered_map<std::string, std::shared_ptr<Type>>;

public:
    using iterator = typename Base::iterator;

    template <typename Key, typename Value>
    std::pair<iterator, bool> emplace(Key &&key, Value &&value) {
        auto result = Base::emplace(std::forward<Key>(key), std::forward<Value>(value));
        if (result.second && KindOf<Type>::number >= 0) {
            follow(result.first->first, *result.first->second);
            made(KindOf<Type>::number, result.first->first);
        }
        return result;
    }

    iterator erase(iterator it) {
        if (KindOf<Type>::number >= 0) {
            ended(KindOf<Type>::number, it->first);
        }
        return Base::erase(it);
    }
};

////////////////////////////////////////////////////////////// API calls

// An entry of WebApi.cpp's dispatch table.
using Handler =
    std::function<void(const mediakit::Parser &, const mediakit::HttpResponseInvokerImp &, toolkit::SockInfo &)>;
// Finds an entry by its path; an empty one where there is none.
using Lookup = std::function<Handler(const std::string &)>;
// The arguments of a request, as handlers find them in its URL and body.
using ArgsOf = std::map<std::string, std::string, mediakit::StrCaseCompare> (*)(const mediakit::Parser &);

// An API call is about to be dispatched, on the poller of its connection. Returns true where the plugin has taken the
// call over; then `handler` must not be run. What the server's own check of secret and address throws, and other
// refusals of `handler`, come out of here as they are.
bool intercept(
    const Lookup &lookup, ArgsOf args_of, const Handler &handler, const mediakit::Parser &parser,
    const mediakit::HttpResponseInvokerImp &invoker, toolkit::SockInfo &sender);

template <typename Table>
bool onCall(
    const Table &table, ArgsOf args_of, const Handler &handler, const mediakit::Parser &parser,
    const mediakit::HttpResponseInvokerImp &invoker, toolkit::SockInfo &sender) {
    // The table is a static of WebApi.cpp: it outlives everything that looks into it.
    const Table *entries = &table;
    auto lookup = [entries](const std::string &path) {
        auto it = entries->find(path);
        return it == entries->end() ? Handler() : Handler(it->second);
    };
    return intercept(lookup, args_of, handler, parser, invoker, sender);
}

////////////////////////////////////////////////////////////// life cycle

// The API is about to be installed: read the ini section and open the journal, so that it is there when the first call
// comes. Main thread, after the daemon's fork. Never throws; a journal that cannot be used is logged, and the server
// runs on without it.
void open();

// All listeners are up: start what the journal has. Main thread; the work is done on others.
void restore();

// MediaServer is about to take its proxies down: restore nothing more, write what is queued. Main thread.
void close();

} // namespace zlm_journal

#define ZLM_JOURNAL_MAP(Type) ::zlm_journal::ServiceMap<Type>
#define ZLM_JOURNAL_CALL ::zlm_journal::onCall
#define ZLM_JOURNAL_OPEN ::zlm_journal::open
#define ZLM_JOURNAL_RESTORE ::zlm_journal::restore
#define ZLM_JOURNAL_CLOSE ::zlm_journal::close

#endif
