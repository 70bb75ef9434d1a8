// The plugin inside MediaServer: tells the journal what goes on, asks it, and does what it wants. One object a process;
// it is never destroyed, since pollers outlive main().
#ifndef ZLM_JOURNAL_PLUGIN_H
#define ZLM_JOURNAL_PLUGIN_H

#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "api_calls.h"
#include "client_call.h"
#include "zlm_journal.h"

namespace zlm_journal {

class Plugin {
public:
    static Plugin &Instance();

    bool intercept(
        const Lookup &lookup, ArgsOf args_of, const Handler &handler, const mediakit::Parser &parser,
        const Invoker &invoker, toolkit::SockInfo &sender);
    void made(int kind, const std::string &key) const noexcept;
    void ended(int kind, const std::string &key) const noexcept;
    void follow(const std::string &key, mediakit::PlayerProxy &pull) const noexcept;
    void follow(const std::string &key, mediakit::PusherProxy &push) const noexcept;
    void open();
    void restore();
    void close();

private:
    // The [journal] section, names and values, and what else of config.ini the journal has to know.
    struct Config {
        using Section = std::vector<std::pair<std::string, std::string>>;

        Section journal;
        Section protocol;
        bool vhosts;
        std::string record_app;
        uint32_t idle_answer_ms;

        static Config read();
        // What these return refers to the section, and to the config.
        static std::vector<zlm_journal_pair> pairsOf(const Section &section);
        zlm_journal_facts facts(const std::vector<zlm_journal_pair> &protocol) const;
    };

    void expectItems(const mediakit::Parser &parser, mediakit::HttpSession &sender) const;
    // Has the journal answer one of its own API calls.
    void answer(
        const std::string &name, const ApiArgsType &args, const std::string &body, const Headers &headers,
        toolkit::SockInfo &sender, const Invoker &invoker) const;

    void lookForReload();
    void atExit();

    // MediaServer's events.
    void listen();
    static bool tellsFailures();

    // The host, as the C API calls it.
    static void hostAdd(void *self, uint64_t call, const zlm_journal_add *add);
    static void hostRemove(void *self, uint64_t call, zlm_journal_text remove_api, zlm_journal_text key);
    static void log(void *, uint32_t level, zlm_journal_text line);
    struct Add;
    void start(uint64_t call, const Add &add) const;
    void end(uint64_t call, const std::string &remove_api, const std::string &key) const;

    enum class Phase { kOff, kOpen, kClosing, kClosed };

    std::atomic<Phase> _phase{Phase::kOff};
    zlm_journal_handle _journal = 0;
    // None where the journal is off: then every call goes its stock way.
    std::unique_ptr<ApiCalls> _api;
    // The calls of MediaServer that the journal watches, and those that it answers by itself.
    std::set<std::string, mediakit::StrCaseCompare> _watched, _api_calls;
    // config.ini as it was read again and has not been taken over yet.
    std::atomic<const Config *> _reloaded{nullptr};
};

} // namespace zlm_journal

#endif
