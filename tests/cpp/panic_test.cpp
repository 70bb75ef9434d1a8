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
extern "C" void no_remove(void *, uint64_t, zlm_journal_text, zlm_journal_text) {}
extern "C" void no_go(void *) {}
extern "C" void no_done(void *, zlm_journal_text, bool) {}

static const zlm_journal_answer dropped{sizeof dropped, ZLM_JOURNAL_DROPPED, 0, {nullptr, 0}};
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

static int want() {
    waiter told;
    waiter_init(&told);
    zlm_journal_call call = call_of(ZLM_JOURNAL_REMOVE, "v/a/none", nullptr, 0);
    int result = zlm_journal_want(handle, &call, on_ack, &told);
    wait_ack(&told);
    CHECK((told.ack.code == ZLM_JOURNAL_CODE_PANIC) == (result != 0));
    return result;
}

static int start() {
    zlm_journal_host host;
    memset(&host, 0, sizeof host);
    host.size = sizeof host;
    host.add = no_add;
    host.remove = no_remove;
    return zlm_journal_start(handle, &host);
}

static int open_call() {
    zlm_journal_request request;
    memset(&request, 0, sizeof request);
    request.size = sizeof request;
    request.name = text("close_streams");
    zlm_journal_client client{sizeof client, nullptr, no_go, no_done};
    zlm_journal_verdict verdict = {sizeof verdict, 0, false, 0};
    return zlm_journal_call_open(handle, &request, &client, &verdict);
}

static zlm_journal_stream stream() {
    return {text("v"), text("a"), text("s")};
}

int main() {
    dir = scratch_dir();
    // In an order in which each also works without the panic.
    std::map<std::string, std::function<int()>> calls = {
        {"zlm_journal_open", [] { return open_in(dir, &handle); }},
        {"zlm_journal_start", start},
        {"zlm_journal_reload",
         [] {
             zlm_journal_facts facts;
             memset(&facts, 0, sizeof facts);
             facts.size = sizeof facts;
             return zlm_journal_reload(handle, nullptr, 0, &facts);
         }},
        {"zlm_journal_record", record},
        {"zlm_journal_want", want},
        {"zlm_journal_crash_file",
         [] {
             size_t len = 0;
             return zlm_journal_crash_file(handle, nullptr, 0, &len);
         }},
        {"zlm_journal_wants",
         [] {
             bool wanted;
             return zlm_journal_wants(handle, text("pull"), text("v/a/s"), 1, &wanted);
         }},
        {"zlm_journal_host_added",
         [] {
             bool success;
             return zlm_journal_host_added(handle, 1, &dropped, &success);
         }},
        {"zlm_journal_host_blocked", [] { return zlm_journal_host_blocked(handle, 1, ZLM_JOURNAL_NO_API); }},
        {"zlm_journal_host_removed", [] { return zlm_journal_host_removed(handle, 1); }},
        {"zlm_journal_host_updated", [] { return zlm_journal_host_updated(handle, 1); }},
        {"zlm_journal_call_open", open_call},
        {"zlm_journal_call_answered", [] { return zlm_journal_call_answered(handle, 1, &dropped); }},
        {"zlm_journal_call_settled", [] { return zlm_journal_call_settled(handle, 1); }},
        {"zlm_journal_made",
         [] {
             uint64_t call = 0;
             return zlm_journal_made(handle, ZLM_JOURNAL_PULL, text("v/a/s"), &call);
         }},
        {"zlm_journal_ended", [] { return zlm_journal_ended(handle, ZLM_JOURNAL_PULL, text("v/a/s"), 0); }},
        {"zlm_journal_stream_changed",
         [] {
             const auto its = stream();
             return zlm_journal_stream_changed(handle, text("rtmp"), &its, true);
         }},
        {"zlm_journal_stream_unwatched",
         [] {
             const auto its = stream();
             return zlm_journal_stream_unwatched(handle, &its);
         }},
        {"zlm_journal_stream_not_found",
         [] {
             const auto its = stream();
             return zlm_journal_stream_not_found(handle, &its);
         }},
        {"zlm_journal_connected", [] { return zlm_journal_connected(handle, 0, text("v/a/s")); }},
        {"zlm_journal_failed", [] { return zlm_journal_failed(handle, 0, text("v/a/s"), text("off")); }},
        {"zlm_journal_api_call",
         [] {
             const zlm_journal_request request{sizeof request, text("listJournal"), nullptr, 0, text("127.0.0.1:1")};
             const auto ignore = [](void *, zlm_journal_text, zlm_journal_text) {};
             return zlm_journal_api_call(handle, &request, text(""), ignore, nullptr);
         }},
        {"zlm_journal_page",
         [] {
             const auto ignore = [](void *, uint32_t, const zlm_journal_pair *, size_t, zlm_journal_text) {};
             return zlm_journal_page(handle, text("/journal/"), text(""), ignore, nullptr);
         }},
        {"zlm_journal_set_log", [] { return zlm_journal_set_log(nullptr, nullptr); }},
        {"zlm_journal_last_error",
         [] {
             size_t len = 0;
             return zlm_journal_last_error(nullptr, 0, &len);
         }},
        {"zlm_journal_close", [] { return zlm_journal_close(handle); }},
        {"api_calls", [] { return bridged([] { zlm_journal::api_calls(); }); }},
        {"settings", [] { return bridged([] { zlm_journal::settings(); }); }},
        {"watched_calls", [] { return bridged([] { zlm_journal::watched_calls(); }); }},
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
