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

    CHECK(has(std::string(zlm_journal::crash_file(handle)), "/journal/proxies.db.crash"));
    CHECK(zlm_journal_close(handle) == 0);
    bool thrown = false;
    try {
        zlm_journal::crash_file(handle);
    } catch (const rust::Error &error) {
        thrown = has(error.what(), "closed or never opened");
    }
    CHECK(thrown);

    bool has_status = false;
    for (const auto &name : zlm_journal::api_calls()) {
        has_status |= name == "getJournalStatus";
    }
    CHECK(has_status);

    bool off_by_default = false;
    for (const auto &setting : zlm_journal::settings()) {
        off_by_default |= setting.name == "enable" && setting.value == "0";
    }
    CHECK(off_by_default);

    auto kinds = zlm_journal::kinds();
    CHECK(kinds.size() == 3);
    CHECK(kinds[ZLM_JOURNAL_PULL].name == "pull" && kinds[ZLM_JOURNAL_PULL].add == "addStreamProxy");
    CHECK(kinds[ZLM_JOURNAL_PUSH].name == "push" && kinds[ZLM_JOURNAL_PUSH].takes_named_stream);
    CHECK(kinds[ZLM_JOURNAL_FFMPEG].name == "ffmpeg" && kinds[ZLM_JOURNAL_FFMPEG].names_setting == "ffmpeg_cmd_key");
    CHECK(remove_scratch(dir) == 0);
    puts("bridge_test: passed");
}
