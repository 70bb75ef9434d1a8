// Remembers which proxies of the journal the server is working on. If the server crashes, a signal handler writes that
// to a file and passes the signal on to the server's own handler. The next start reads the file
// (src/storage/crash_counters.rs). No other end of the process, such as kill -9, writes anything.
#ifndef ZLM_JOURNAL_CRASH_H
#define ZLM_JOURNAL_CRASH_H

#include <cstdint>
#include <string>

namespace zlm_journal {
namespace crash {

// Handles crash signals from now on, and writes to that file. Call it once, after the server has installed its
// handlers.
void watch(const std::string &file);
// Restores the previous handlers, unless others have replaced ours.
void unwatch();

// While it exists, this poller thread passes call `call`, for change `seq`, to the server, and a crash counts against
// it.
class Dispatch {
public:
    Dispatch(uint64_t call, uint64_t seq);
    ~Dispatch();
    Dispatch(const Dispatch &) = delete;
    Dispatch &operator=(const Dispatch &) = delete;
};

// This poller thread has made the proxy of that call, and works for it from now on.
void made(uint64_t call);
// The call was answered. If it succeeded, the first data arrive now.
void answered(uint64_t call, bool success);

} // namespace crash
} // namespace zlm_journal

#endif
