// What the patched lines of MediaServer call. The compiler includes this file into every source file of MediaServer
// (see zlmediakit.cmake), so a patch needs no include. Without the plugin the macros are undefined, and the patched
// lines are not compiled.
#ifndef ZLM_JOURNAL_HOOKS_H
#define ZLM_JOURNAL_HOOKS_H

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
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

// The number of the kind of proxy in a ServiceController, as in the C API; negative if it is not journaled.
template <typename Type>
struct KindOf : std::integral_constant<int, -1> {};
template <>
struct KindOf<mediakit::PlayerProxy> : std::integral_constant<int, 0> {};
template <>
struct KindOf<mediakit::PusherProxy> : std::integral_constant<int, 1> {};
template <>
struct KindOf<FFmpegSource> : std::integral_constant<int, 2> {};

// Called under the map's mutex, in the order of the effects. They take microseconds, never wait and never throw.
void made(int kind, const std::string &key) noexcept;
void ended(int kind, const std::string &key) noexcept;

// Called before made(), to report the events of the new proxy. FFmpeg sources have none.
void follow(const std::string &key, mediakit::PlayerProxy &pull) noexcept;
void follow(const std::string &key, mediakit::PusherProxy &push) noexcept;
template <typename Type>
void follow(const std::string &, Type &) noexcept {}

// The map of a ServiceController. Reports what enters and leaves it, but nothing when it is emptied by swap at the
// server's shutdown: nobody asked for that.
template <typename Type>
class ServiceMap : public std::unordered_map<std::string, std::shared_ptr<Type>> {
    using Base = std::unordered_map<std::string, std::shared_ptr<Type>>;

public:
    using iterator = typename Base::iterator;

    template <typename Key, typename Value>
    std::pair<iterator, bool> emplace(Key &&key, Value &&value) {
        auto result = Base::emplace(std::forward<Key>(key), std::forward<Value>(value));
        if (result.second && KindOf<Type>::value >= 0) {
            follow(result.first->first, *result.first->second);
            made(KindOf<Type>::value, result.first->first);
        }
        return result;
    }

    iterator erase(iterator it) {
        if (KindOf<Type>::value >= 0) {
            ended(KindOf<Type>::value, it->first);
        }
        return Base::erase(it);
    }
};

////////////////////////////////////////////////////////////// API calls

// An entry of WebApi.cpp's dispatch table.
using Handler =
    std::function<void(const mediakit::Parser &, const mediakit::HttpResponseInvokerImp &, toolkit::SockInfo &)>;
// Finds an entry by its path; empty if there is none.
using Lookup = std::function<Handler(const std::string &)>;
// The arguments of a request, as handlers find them in its URL and body.
using ArgsOf = std::map<std::string, std::string, mediakit::StrCaseCompare> (*)(const mediakit::Parser &);

// Called before an API call is dispatched, on the poller of its connection. Returns true if the plugin has taken over
// the call; then `handler` must not be run. Throws what the server's check of secret and address throws, and other
// refusals of `handler`.
bool intercept(
    const Lookup &lookup, ArgsOf args_of, const Handler &handler, const mediakit::Parser &parser,
    const mediakit::HttpResponseInvokerImp &invoker, toolkit::SockInfo &sender);

template <typename Table>
bool onCall(
    const Table &table, ArgsOf args_of, const Handler &handler, const mediakit::Parser &parser,
    const mediakit::HttpResponseInvokerImp &invoker, toolkit::SockInfo &sender) {
    // The table is a static variable of WebApi.cpp and outlives every lookup.
    const Table *entries = &table;
    auto lookup = [entries](const std::string &path) {
        auto it = entries->find(path);
        return it == entries->end() ? Handler() : Handler(it->second);
    };
    return intercept(lookup, args_of, handler, parser, invoker, sender);
}

////////////////////////////////////////////////////////////// life cycle

// Reads the ini section and opens the journal. Called on the main thread, after the daemon's fork and before the API is
// installed, so that no call is missed. Never throws; if the journal cannot be used, that is logged, and the server
// runs without it.
void open();

// Starts what the journal has, on other threads. Called on the main thread when all listeners are up.
void restore();

// Ends the restore and writes what is queued. Called on the main thread before MediaServer destroys its proxies.
void close();

} // namespace zlm_journal

#define ZLM_JOURNAL_MAP(Type) ::zlm_journal::ServiceMap<Type>
#define ZLM_JOURNAL_CALL ::zlm_journal::onCall
#define ZLM_JOURNAL_OPEN ::zlm_journal::open
#define ZLM_JOURNAL_RESTORE ::zlm_journal::restore
#define ZLM_JOURNAL_CLOSE ::zlm_journal::close

#endif
