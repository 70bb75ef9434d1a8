// The cxx bridge as the glue uses it.
#include <set>
#include <string>

#include "../c/check.h"
#include "rust/cxx.h"
#include "zlm-journal/src/ffi/bridge.rs.h"

int main() {
    const char *dir = scratch_dir();
    zlm_journal_handle handle = 0;
    CHECK(open_in(dir, &handle) == 0);

    CHECK(zlm_journal_close(handle) == 0);
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

    std::set<std::string> watched;
    for (const auto &name : zlm_journal::watched_calls()) {
        watched.insert(std::string(name));
    }
    CHECK(watched.size() == 8 && watched.count("addStreamProxy") && watched.count("close_streams"));
    CHECK(remove_scratch(dir) == 0);
    puts("bridge_test: passed");
}
