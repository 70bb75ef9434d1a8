// What of the journal's proxies the server is working on just now, for the case that it crashes: then, and only then, a
// signal handler writes that down, and passes on to what the server itself does about the signal. The next start reads it
// (src/storage/crash_counters.rs). Whatever else ends a process, kill -9 among it, writes nothing.
#ifndef ZLM_JOURNAL_CRASH_H
#define ZLM_JOURNAL_CRASH_H

#include <cstdint>
#include <string>

namespace zlm_journal {
namespace crash {

// From here on crash signals are noted in that file. Once; after the server has installed its own handlers.
void watch(const std::string &file);
// The handlers are what they were, unless somebody has replaced ours.
void unwatch();

// While it lives, this poller's thread hands call `call`, for change `seq`, to the server: should it crash, it was that.
class Dispatch {
public:
    Dispatch(uint64_t call, uint64_t seq);
    ~Dispatch();
    Dispatch(const Dispatch &) = delete;
    Dispatch &operator=(const Dispatch &) = delete;
};

// This poller's thread has made the proxy of that call, and from now on works for it.
void made(uint64_t call);
// The call was answered. With success, the first data come now.
void answered(uint64_t call, bool success);

} // namespace crash
} // namespace zlm_journal

#endif
