// The plugin inside MediaServer: watches API calls go by, has them journaled, and starts again what the journal asks
// for. One object a process; it is never destroyed, since pollers outlive main().
#ifndef ZLM_JOURNAL_PLUGIN_H
#define ZLM_JOURNAL_PLUGIN_H

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "Poller/EventPoller.h"
#include "api_calls.h"
#include "call_order.h"
#include "client_call.h"
#include "kind.h"
#include "zlm_journal.h"

namespace zlm_journal {

class Plugin {
public:
    static Plugin &Instance();

    bool intercept(
        const Lookup &lookup, const Handler &handler, const mediakit::Parser &parser, const Invoker &invoker,
        toolkit::SockInfo &sender);
    void open();
    void restore();
    void close();

private:
    // The [journal] section: names and values.
    using Section = std::vector<std::pair<std::string, std::string>>;
    // A running proxy: its kind and key.
    using Proxy = std::pair<const Kind *, std::string>;
    // A client's add, which takes effect before it is answered.
    struct Add;

    Plugin();

    void onAdd(
        const Kind &kind, const std::shared_ptr<Add> &add, const Handler &handler, const mediakit::Parser &parser,
        toolkit::SockInfo &sender);
    void settle(const Kind &kind, const std::shared_ptr<Add> &add);
    void onRemove(
        const Kind &kind, const std::shared_ptr<ClientCall> &call, const Handler &handler, const mediakit::Parser &parser,
        toolkit::SockInfo &sender);
    void onClose(
        const std::shared_ptr<ClientCall> &call, const Handler &handler, const mediakit::Parser &parser,
        toolkit::SockInfo &sender);

    std::vector<Json::Value> listed(const Kind &kind) const;
    std::map<Proxy, std::string> proxiesMeant(const ClientCall &call, const std::set<std::string> &sources) const;

    void ends(const std::shared_ptr<ClientCall> &call, const Proxy &proxy);
    void record(const std::shared_ptr<ClientCall> &call, uint32_t op, const Kind &kind, const std::string &key);

    void operate(
        const std::string &name, const Headers &headers, toolkit::SockInfo &sender, const Invoker &invoker);

    const Kind *kindOf(const std::string &name) const;

    static Section readSection();
    void lookForReload();

    // MediaServer's events.
    void listen();
    void onNobodyWatches(const std::string &stream);
    void onSourceGone(const std::string &stream);
    void lookForIdleEnd(const toolkit::EventPoller::Ptr &poller, const std::string &stream, int looks);
    bool hasEndedIdle(const Kind &kind, const std::string &key);

    // The host, as the C API calls it.
    static void hostAdd(void *self, uint64_t call, const zlm_journal_add *add);
    static void hostRemove(void *self, zlm_journal_text kind, zlm_journal_text key);
    static void hostList(void *self, uint64_t call, zlm_journal_text kind);
    static void log(void *, uint32_t level, zlm_journal_text line);
    void startAgain(
        uint64_t call, const Kind &kind, const std::string &key, uint64_t seq, bool anew, const std::string &body);
    void end(const Kind &kind, const std::string &key) const;
    void endAgain(const Kind &kind, const std::string &key);
    bool isWanted(const Kind &kind, const std::string &key, uint64_t seq) const;

    std::vector<Kind> _kinds;
    zlm_journal_handle _journal = 0;
    // None where the journal is off: then every call goes its stock way.
    std::unique_ptr<ApiCalls> _api;
    CallOrder _order;
    // The section as it was read again and has not been taken over yet.
    std::atomic<const Section *> _reloaded{nullptr};
    // The API calls that the journal answers by itself, and how many are under way.
    std::set<std::string, mediakit::StrCaseCompare> _operations;
    std::mutex _operating_mutex;
    std::condition_variable _operated;
    size_t _operating = 0;

    using Time = std::chrono::steady_clock::time_point;
    std::mutex _idle_mutex;
    // Streams ("vhost/app/stream") that nobody watched of late, and the same in the order of time, some of them out of
    // date.
    std::unordered_map<std::string, Time> _idle;
    std::deque<std::pair<Time, std::string>> _idle_order;
};

} // namespace zlm_journal

#endif
