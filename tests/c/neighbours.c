/* A program with an SQLite and a Rust library of its own, beside the journal's. */
#include <stdio.h>
#include <string.h>

#include "check.h"

/* "Its SQLite": the names are those of the real one, and nobody else may call these. */
static int called;

const char *sqlite3_libversion(void) {
    called = 1;
    return "of the program";
}

int sqlite3_open_v2(const char *path, void **database, int flags, const char *vfs) {
    (void)path;
    (void)database;
    (void)flags;
    (void)vfs;
    called = 1;
    return 1;
}

/* Of the other Rust library: catches a panic of its own, and returns the number of bytes of what it said. */
size_t other_catches(void);

int main(void) {
    const char *dir = scratch_dir();
    zlm_journal_handle handle = 0;
    zlm_journal_pair arg = pair("url", "rtsp://127.0.0.1/1");
    zlm_journal_call call;
    waiter told;
    CHECK(other_catches() == strlen("on purpose"));
    CHECK(open_in(dir, &handle) == 0);
    call = call_of(ZLM_JOURNAL_ADD, "__defaultVhost__/live/1", &arg, 1);
    waiter_init(&told);
    CHECK(zlm_journal_record(handle, &call, on_ack, &told) == 0);
    wait_ack(&told);
    CHECK(told.ack.persisted == ZLM_JOURNAL_PERSISTED);
    CHECK(other_catches() == strlen("on purpose"));
    CHECK(zlm_journal_close(handle) == 0);
    CHECK(called == 0 && strcmp(sqlite3_libversion(), "of the program") == 0);
    CHECK(remove_scratch(dir) == 0);
    puts("neighbours: passed");
    return 0;
}
