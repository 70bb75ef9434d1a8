// The plugin inside MediaServer: reports events to the journal and does what it asks for. One object per process; it is
// never destroyed, because pollers outlive main().
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
    // The [journal] section, and the rest of config.ini that the journal needs.
    struct Config {
        using Section = std::vector<std::pair<std::string, std::string>>;

        Section journal;
        Section protocol;
        bool vhosts;
        std::string record_app;
        uint32_t idle_answer_ms;

        static Config read();
        // The results refer to the section and the config.
        static std::vector<zlm_journal_pair> pairsOf(const Section &section);
        zlm_journal_facts facts(const std::vector<zlm_journal_pair> &protocol) const;
    };

    void expectItems(const mediakit::Parser &parser, mediakit::HttpSession &sender) const;
    // Passes an API call of the journal to it.
    void answer(
        const std::string &name, const ApiArgsType &args, const std::string &body, const Headers &headers,
        toolkit::SockInfo &sender, const Invoker &invoker) const;

    void lookForReload();
    void atExit();

    // MediaServer's events.
    void listen();
    static bool tellsFailures();

    // The host's functions for the C API.
    static void hostAdd(void *self, uint64_t call, const zlm_journal_add *add);
    static void hostRemove(void *self, uint64_t call, zlm_journal_text remove_api, zlm_journal_text key);
    static void log(void *, uint32_t level, zlm_journal_text line);
    struct Add;
    void start(uint64_t call, const Add &add) const;
    void end(uint64_t call, const std::string &remove_api, const std::string &key) const;

    enum class Phase { kOff, kOpen, kClosing, kClosed };

    std::atomic<Phase> _phase{Phase::kOff};
    zlm_journal_handle _journal = 0;
    // Null if the journal is off; then every call takes its normal way.
    std::unique_ptr<ApiCalls> _api;
    // The calls of MediaServer that the journal watches, and those that it answers itself.
    std::set<std::string, mediakit::StrCaseCompare> _watched, _api_calls;
    // config.ini as it was read again, until lookForReload() takes it.
    std::atomic<const Config *> _reloaded{nullptr};
};

} // namespace zlm_journal

#endif
