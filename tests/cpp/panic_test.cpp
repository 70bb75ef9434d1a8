// A panic forced inside every entry point of both boundaries reaches the caller as an error, and the process lives.
// The list of entry points is read from their sources, so that none can be forgotten.
#include <fstream>
#include <functional>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>

#include "../c/check.h"
#include "rust/cxx.h"
#include "zlm-journal/src/ffi/bridge.rs.h"

static std::string read(const char *path) {
    std::ifstream file(path);
    std::ostringstream content;
    content << file.rdbuf();
    CHECK(!content.str().empty());
    return content.str();
}

static std::set<std::string> names(const std::string &source, const char *pattern) {
    std::set<std::string> found;
    const std::regex regex(pattern);
    for (std::sregex_iterator it(source.begin(), source.end(), regex), end; it != end; ++it) {
        found.insert((*it)[1].str());
    }
    return found;
}

extern "C" void no_add(void *, uint64_t, const zlm_journal_add *) {}
extern "C" void no_remove(void *, zlm_journal_text, zlm_journal_text) {}
extern "C" void no_list(void *, uint64_t, zlm_journal_text) {}

static zlm_journal_handle handle;
static const char *dir;

static int bridged(const std::function<void()> &call) {
    try {
        call();
        return 0;
    } catch (const rust::Error &error) {
        CHECK(std::string(error.what()).find("forced by ZLMJ_PANIC_AT") != std::string::npos);
        return ZLM_JOURNAL_CODE_PANIC;
    }
}

static int record() {
    waiter told;
    waiter_init(&told);
    zlm_journal_pair arg = pair("url", "rtsp://x");
    zlm_journal_call call = call_of(ZLM_JOURNAL_ADD, "v/a/s", &arg, 1);
    int result = zlm_journal_record(handle, &call, on_ack, &told);
    wait_ack(&told);
    CHECK((told.ack.code == ZLM_JOURNAL_CODE_PANIC) == (result != 0));
    return result;
}

static int start() {
    zlm_journal_host host;
    memset(&host, 0, sizeof host);
    host.add = no_add;
    host.remove = no_remove;
    host.list = no_list;
    return zlm_journal_start(handle, &host);
}

int main() {
    dir = scratch_dir();
    // In an order in which each also works without the panic.
    std::map<std::string, std::function<int()>> calls = {
        {"zlm_journal_open", [] { return open_in(dir, &handle); }},
        {"zlm_journal_start", start},
        {"zlm_journal_reload", [] { return zlm_journal_reload(handle, nullptr, 0); }},
        {"zlm_journal_record", record},
        {"zlm_journal_admit", [] { return zlm_journal_admit(handle); }},
        {"zlm_journal_wants",
         [] {
             bool wanted;
             return zlm_journal_wants(handle, text("pull"), text("v/a/s"), 1, &wanted);
         }},
        {"zlm_journal_host_added",
         [] { return zlm_journal_host_added(handle, 1, ZLM_JOURNAL_ACCEPTED, text("")); }},
        {"zlm_journal_host_listed", [] { return zlm_journal_host_listed(handle, 1, nullptr, 0, text("")); }},
        {"zlm_journal_player_waits", [] { return zlm_journal_player_waits(handle, text("v/a/s")); }},
        {"zlm_journal_source_moved", [] { return zlm_journal_source_moved(handle, text("rtmp/v/a/s"), true); }},
        {"zlm_journal_set_log", [] { return zlm_journal_set_log(nullptr, nullptr); }},
        {"zlm_journal_last_error",
         [] {
             size_t len = 0;
             return zlm_journal_last_error(nullptr, 0, &len);
         }},
        {"zlm_journal_close", [] { return zlm_journal_close(handle); }},
        {"status", [] { return bridged([] { zlm_journal::status(handle, "", 1); }); }},
        {"restore_now", [] { return start() != 0 ? 1 : bridged([] { zlm_journal::restore_now(handle, ""); }); }},
        {"makers", [] { return bridged([] { zlm_journal::makers(handle, "v/a/s"); }); }},
        {"operations", [] { return bridged([] { zlm_journal::operations(); }); }},
        {"operate", [] { return bridged([] { zlm_journal::operate(handle, "listJournal", {}, {}, {}, ""); }); }},
        {"key_of", [] { return bridged([] { zlm_journal::key_of("pull", {"v", "a", "s"}); }); }},
        {"stream_here", [] { return bridged([] { zlm_journal::stream_here("rtmp://127.0.0.1/a/s"); }); }},
        {"settings", [] { return bridged([] { zlm_journal::settings(); }); }},
        {"kinds", [] { return bridged([] { zlm_journal::kinds(); }); }},
    };

    std::set<std::string> exported = names(read(ZLM_JOURNAL_HEADER), "int32_t (zlm_journal_[a-z_]+)\\(");
    std::string bridge = read(ZLM_JOURNAL_BRIDGE);
    bridge = bridge.substr(bridge.find("extern \"Rust\""));
    bridge = bridge.substr(0, bridge.find("\n}"));
    for (const auto &name : names(bridge, "fn ([a-z_]+)\\(")) {
        exported.insert(name);
    }
    CHECK(exported.size() == calls.size());

    CHECK(calls["zlm_journal_open"]() == 0);
    for (const auto &name : exported) {
        CHECK(calls.count(name) == 1);
        setenv("ZLMJ_PANIC_AT", name.c_str(), 1);
        CHECK(calls[name]() == ZLM_JOURNAL_CODE_PANIC);
        unsetenv("ZLMJ_PANIC_AT");
        if (name != "zlm_journal_open" && name != "zlm_journal_close") {
            CHECK(calls[name]() == 0);
        }
        printf("panic_test: %s ok\n", name.c_str());
    }
    CHECK(record() == 0);
    CHECK(calls["zlm_journal_close"]() == 0);
    CHECK(remove_scratch(dir) == 0);
    printf("panic_test: %zu entry points passed\n", exported.size());
}
