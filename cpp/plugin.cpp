// The plugin's start, reload and stop.
#include "plugin.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <utility>
#include <vector>

#include "Network/sockutil.h"
#include "Poller/EventPoller.h"
#include "Util/NoticeCenter.h"
#include "Util/logger.h"
#include "Util/mini.h"
#include "Util/onceToken.h"
#include "Util/util.h"
#include "crash.h"
#include "rust/cxx.h"
#include "text.h"
#include "zlm-journal/src/ffi/bridge.rs.h"

using namespace toolkit;
using namespace mediakit;

namespace zlm_journal {

namespace {

const char kSection[] = "journal.";
// A call without effects.
const char kHarmlessCall[] = "getJournalStatus";
const char kProtocol[] = "protocol.";
const uint64_t kLookForReloadMs = 500;
// The ports on which streams are played and pushed.
const char *const kStreamPorts[] = {"http.port", "http.sslport", "rtmp.port", "rtmp.sslport",
                                    "rtsp.port", "rtsp.sslport", "srt.port"};

// The value of a setting, or an empty string.
std::string settingOf(const std::string &name) {
    const auto it = mINI::Instance().find(name);
    return it == mINI::Instance().end() ? std::string() : std::string(it->second);
}

// Adds the section to a fresh config.ini, in the same way as the server's own defaults.
onceToken s_defaults([] {
    for (const auto &setting : settings()) {
        mINI::Instance()[kSection + std::string(setting.name)] = std::string(setting.value);
    }
});

using Section = std::vector<std::pair<std::string, std::string>>;

// The [journal] section, and the rest of config.ini that the journal needs.
struct Config {
    Section journal, protocol;
    bool vhosts;
    std::string record_app, server_id;
    uint32_t idle_answer_ms;

    // `protocol_pairs` are those of `protocol`. The result refers to both.
    zlm_journal_facts facts(const std::vector<zlm_journal_pair> &protocol_pairs) const {
        return {sizeof(zlm_journal_facts),
                vhosts,
                kTellsFailures,
                idle_answer_ms,
                textOf(record_app),
                protocol_pairs.data(),
                protocol_pairs.size(),
                textOf(server_id)};
    }
};

enum class Phase { kOff, kOpen, kClosing, kClosed };

std::atomic<Phase> s_phase{Phase::kOff};
// config.ini as it was read again, until lookForReload() takes it.
std::atomic<const Config *> s_reloaded{nullptr};

Config readConfig() {
    Config config;
    const std::pair<std::string, Section &> sections[] = {{kSection, config.journal}, {kProtocol, config.protocol}};
    for (const auto &pair : mINI::Instance()) {
        for (const auto &section : sections) {
            if (pair.first.compare(0, section.first.size(), section.first) == 0) {
                section.second.emplace_back(pair.first.substr(section.first.size()), pair.second);
            }
        }
    }
    config.vhosts = atoi(settingOf("general.enableVhost").c_str()) != 0;
    config.record_app = settingOf("record.appName");
    config.server_id = settingOf("general.mediaServerId");
    // A hook that has not answered is asked again (WebHook.cpp).
    const double tries = 1 + std::max(0, atoi(settingOf("hook.retry").c_str()));
    const double each = atof(settingOf("hook.timeoutSec").c_str()) + atof(settingOf("hook.retry_delay").c_str());
    config.idle_answer_ms = static_cast<uint32_t>(std::min(3600.0, std::max(5.0, tries * each + 5)) * 1000);
    return config;
}

// MediaServer reports a new config on the thread that has read it. For SIGHUP that is the interrupted thread, with
// whatever locks it holds. So the config is only read there, and applied here.
void lookForReload() {
    const std::unique_ptr<const Config> config(s_reloaded.exchange(nullptr));
    if (!config) {
        return;
    }
    const auto pairs = pairsOf(config->journal);
    const auto protocol = pairsOf(config->protocol);
    const auto facts = config->facts(protocol);
    if (zlm_journal_reload(plugin().journal, pairs.data(), pairs.size(), &facts) != 0) {
        ErrorL << "journal: the settings were not changed: " << lastError();
    }
}

// exit() is about to destroy objects that the threads of the journal and of MediaServer use.
void atExit() {
    if (s_phase == Phase::kClosing) {
        // Either restartServer ends the process from another thread, three seconds after the stop began, or an API call
        // is still running. Acknowledged changes are on disk; the others are not waited for.
        std::_Exit(EXIT_SUCCESS);
    }
    // MediaServer exits without closing the journal if a port is already in use.
    close();
    if (s_phase == Phase::kClosing) {
        std::_Exit(EXIT_FAILURE);
    }
}

void log(void *, uint32_t level, zlm_journal_text line) {
    const std::string text = stringOf(line);
    switch (level) {
        case 1: ErrorL << text; break;
        case 2: WarnL << text; break;
        case 3: InfoL << text; break;
        default: DebugL << text; break;
    }
}

} // namespace

Plugin &plugin() {
    static auto *plugin = new Plugin;
    return *plugin;
}

void open() {
    zlm_journal_set_log(log, nullptr);
    const auto config = readConfig();
    const auto pairs = pairsOf(config.journal);
    const auto protocol = pairsOf(config.protocol);
    const std::string base_dir = exeDir();
    const auto devices = SockUtil::getInterfaceList();
    std::vector<zlm_journal_text> own_hosts;
    for (const auto &device : devices) {
        const auto ip = device.find("ip");
        if (ip != device.end()) {
            own_hosts.push_back(textOf(ip->second));
        }
    }
    std::vector<uint16_t> own_ports;
    for (const auto *const name : kStreamPorts) {
        const auto port = mINI::Instance().find(name);
        if (port != mINI::Instance().end()) {
            own_ports.push_back(static_cast<uint16_t>(atoi(port->second.c_str())));
        }
    }
    const auto facts = config.facts(protocol);
    const zlm_journal_options options{
        sizeof options,   ZLM_JOURNAL_ABI,  static_cast<uint32_t>(EventPollerPool::Instance().getExecutorSize()),
        pairs.data(),     pairs.size(),     textOf(base_dir),
        own_hosts.data(), own_hosts.size(), own_ports.data(),
        own_ports.size(), &facts,
    };
    const int result = zlm_journal_open(&options, &plugin().journal);
    if (result == ZLM_JOURNAL_CODE_DISABLED) {
        return;
    }
    if (result != 0) {
        ErrorL << "journal: " << lastError() << ". The server runs without a journal";
        return;
    }
    s_phase = Phase::kOpen;
    std::atexit(atExit);
    serveCalls();
    servePage();
    crash::watch(textFrom([](char *buffer, size_t capacity, size_t *len) {
        return zlm_journal_crash_file(plugin().journal, buffer, capacity, len);
    }));
    plugin().api.reset(new ApiCalls);
    listenToEvents();
    NoticeCenter::Instance().addListener(&plugin(), Broadcast::kBroadcastReloadConfig, [](BroadcastReloadConfigArgs) {
        delete s_reloaded.exchange(new Config(readConfig()));
    });
    EventPollerPool::Instance().getPoller(false)->doDelayTask(kLookForReloadMs, [] {
        lookForReload();
        return kLookForReloadMs;
    });
}

void restore() {
    if (plugin().api && !plugin().api->introduce(kHarmlessCall)) {
        ErrorL << "journal: the API dispatch was not found, so nothing is journaled or restored";
    }
}

void close() {
    auto open = Phase::kOpen;
    if (!s_phase.compare_exchange_strong(open, Phase::kClosing)) {
        return;
    }
    const int result = zlm_journal_close(plugin().journal);
    if (result != 0) {
        ErrorL << "journal: " << lastError();
    }
    crash::unwatch();
    // Later calls are carried out as in a stock server.
    if (result == 0 || result == ZLM_JOURNAL_CODE_INVALID_HANDLE) {
        s_phase = Phase::kClosed;
    }
    // Otherwise a thread of the journal is still running when main() returns: see atExit().
}

} // namespace zlm_journal
