// The cxx bridge as the glue uses it.
#include <string>

#include "../c/check.h"
#include "rust/cxx.h"
#include "zlm-journal/src/ffi/bridge.rs.h"

static bool has(const std::string &text, const std::string &part) {
    return text.find(part) != std::string::npos;
}

int main() {
    const char *dir = scratch_dir();
    zlm_journal_handle handle = 0;
    CHECK(open_in(dir, &handle) == 0);

    std::string status(zlm_journal::status(handle, "", 10));
    CHECK(has(status, "\"state\":\"ok\""));
    CHECK(has(status, "\"schema\":4"));
    CHECK(has(status, "\"durability\":\"full\""));
    CHECK(has(status, "/journal/proxies.db\""));
    CHECK(has(status, "\"phase\":\"not started\""));
    bool thrown = false;
    try {
        zlm_journal::restore_now(handle, "");
    } catch (const rust::Error &error) {
        thrown = has(error.what(), "ask again later");
    }
    CHECK(thrown);
    CHECK(zlm_journal_close(handle) == 0);

    thrown = false;
    try {
        zlm_journal::status(handle, "", 10);
    } catch (const rust::Error &error) {
        thrown = has(error.what(), "closed or never opened");
    }
    CHECK(thrown);

    bool off_by_default = false;
    for (const auto &setting : zlm_journal::settings()) {
        off_by_default |= setting.name == "enable" && setting.value == "0";
    }
    CHECK(off_by_default);

    auto kinds = zlm_journal::kinds();
    CHECK(kinds.size() == 3);
    CHECK(kinds[0].name == "pull" && kinds[0].add == "addStreamProxy" && kinds[0].key_is_stream);
    CHECK(kinds[1].name == "push" && kinds[1].takes_named_stream && kinds[1].stream_url.empty());
    CHECK(kinds[2].name == "ffmpeg" && kinds[2].find.empty() && kinds[2].stream_url == "dst_url");
    CHECK(kinds[1].key_args.size() == 5);
    CHECK(zlm_journal::key_of("push", {"rtmp", "v", "a", "s", "abc"}) == "rtmp/v/a/s/900150983cd24fb0d6963f7d28e17f72");
    CHECK(zlm_journal::stream_here("rtmp://127.0.0.1/live/x") == "__defaultVhost__/live/x");
    CHECK(zlm_journal::stream_here("rtmp://cdn/live/x").empty());
    CHECK(remove_scratch(dir) == 0);
    puts("bridge_test: passed");
}
