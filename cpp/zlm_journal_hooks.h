// What the patched lines of MediaServer call. The compiler includes this file into every source of MediaServer by
// itself (see zlmediakit.cmake), so that a patch is the calling line alone; in a build without the plugin the four
// macros do not exist, and the patched lines are gone with them.
#ifndef ZLM_JOURNAL_HOOKS_H
#define ZLM_JOURNAL_HOOKS_H

#include <functional>
#include <string>

namespace mediakit {
class Parser;
class HttpResponseInvokerImp;
} // namespace mediakit
namespace toolkit {
class SockInfo;
}

namespace zlm_journal {

// An entry of WebApi.cpp's dispatch table.
using Handler =
    std::function<void(const mediakit::Parser &, const mediakit::HttpResponseInvokerImp &, toolkit::SockInfo &)>;
// Finds an entry by its path; an empty one where there is none.
using Lookup = std::function<Handler(const std::string &)>;

// An API call is about to be dispatched, on the poller of its connection. Returns true where the plugin has taken the
// call over; then `handler` must not be run. What `handler` throws comes out of here as it is.
bool intercept(
    const Lookup &lookup, const Handler &handler, const mediakit::Parser &parser,
    const mediakit::HttpResponseInvokerImp &invoker, toolkit::SockInfo &sender);

template <typename Table>
bool onCall(
    const Table &table, const Handler &handler, const mediakit::Parser &parser,
    const mediakit::HttpResponseInvokerImp &invoker, toolkit::SockInfo &sender) {
    // The table is a static of WebApi.cpp: it outlives everything that looks into it.
    auto lookup = [&table](const std::string &path) {
        auto it = table.find(path);
        return it == table.end() ? Handler() : Handler(it->second);
    };
    return intercept(lookup, handler, parser, invoker, sender);
}

// The API is about to be installed: read the ini section and open the journal, so that it is there when the first call
// comes. Main thread, after the daemon's fork. Never throws; a journal that cannot be used is logged, and the server
// runs on without it.
void open();

// All listeners are up: start what the journal has. Main thread; the work is done on others.
void restore();

// MediaServer is about to take its proxies down: restore nothing more, write what is queued. Main thread.
void close();

} // namespace zlm_journal

#define ZLM_JOURNAL_CALL ::zlm_journal::onCall
#define ZLM_JOURNAL_OPEN ::zlm_journal::open
#define ZLM_JOURNAL_RESTORE ::zlm_journal::restore
#define ZLM_JOURNAL_CLOSE ::zlm_journal::close

#endif
