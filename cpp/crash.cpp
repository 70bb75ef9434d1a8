#include "crash.h"

#ifndef _WIN32
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <ctime>

#include <fcntl.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif
#include <unistd.h>

#include "Poller/EventPoller.h"
#include "Util/logger.h"
#include "zlm_journal.h"

using namespace toolkit;

namespace zlm_journal {
namespace crash {

namespace {

const int kSignals[] = {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL};
const size_t kSignalCount = sizeof(kSignals) / sizeof(*kSignals);
// Enough for the last seconds of a restore.
const size_t kCallsPerPoller = 4096;

// A running call, in the slot given by its number, until another call takes the slot. Made of zeros, which all compilers
// take for atomics of the value zero.
struct Call {
    std::atomic<uint64_t> call, seq;
    std::atomic<int64_t> since;
    // The thread that works on it; null until its proxy was made, on any poller.
    std::atomic<const void *> thread;
};

// A thread, identified by the address of this. Only pollers work on proxies.
struct Thread {
    bool is_poller;
    uint64_t dispatches;
};
thread_local Thread t_thread;

// Never freed: pollers outlive main().
Call *s_calls = nullptr;
size_t s_count = 0;
struct sigaction s_before[kSignalCount];
char s_file[4096];
pid_t s_pid = 0;
std::atomic<bool> s_noted{false};

int64_t nowMs() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * int64_t(1000) + now.tv_nsec / 1000000;
}

Call *find(uint64_t call) {
    Call *found = s_calls && call != 0 ? &s_calls[call % s_count] : nullptr;
    return found && found->call.load() == call ? found : nullptr;
}

////////////////////////////////////////////////////////////// in the handler: only what is safe there

struct Note {
    int file = -1;

    void add(uint64_t seq) {
        char line[24];
        char *at = line + sizeof(line);
        *--at = '\n';
        do {
            *--at = static_cast<char>('0' + seq % 10);
            seq /= 10;
        } while (seq != 0);
        if (file < 0) {
            file = ::open(s_file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        }
        (void)!::write(file, at, static_cast<size_t>(line + sizeof(line) - at));
    }
};

void note() {
    Note note;
    if (t_thread.dispatches != 0) {
        note.add(t_thread.dispatches);
    } else {
        const int64_t now = nowMs();
        for (size_t n = 0; n < s_count; ++n) {
            const Call &call = s_calls[n];
            const void *thread = call.thread.load();
            const bool may_be = thread == nullptr || thread == &t_thread;
            if (call.call.load() != 0 && may_be && now - call.since.load() < ZLM_JOURNAL_SETTLES_MS) {
                note.add(call.seq.load());
            }
        }
    }
    if (note.file >= 0) {
        ::close(note.file);
    }
}

// The server's handler, or the default, then acts as if we were not there: it is reinstalled, and a fault happens again
// when ours returns. A signal that was sent is sent again.
void passOn(int signal, const struct sigaction &before, siginfo_t *info) {
    sigaction(signal, &before, nullptr);
    if (info->si_code > 0) {
        return;
    }
#ifdef __linux__
    if (syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), signal, info) == 0) {
        return;
    }
#endif
    raise(signal);
}

void onSignal(int signal, siginfo_t *info, void *) {
    const int error = errno;
    // Only the first signal, and not in a child process that is about to become FFmpeg.
    if (t_thread.is_poller && getpid() == s_pid && !s_noted.exchange(true)) {
        note();
    }
    for (size_t n = 0; n < kSignalCount; ++n) {
        if (kSignals[n] == signal) {
            passOn(signal, s_before[n], info);
        }
    }
    errno = error;
}

} // namespace

////////////////////////////////////////////////////////////// everywhere else

void watch(const std::string &file) {
    if (s_calls || file.size() >= sizeof(s_file)) {
        return;
    }
    file.copy(s_file, file.size());
    s_pid = getpid();
    s_count = kCallsPerPoller * EventPollerPool::Instance().getExecutorSize();
    // Pages of zeros, which is what an unused slot is, take no memory before they are used.
    s_calls = static_cast<Call *>(std::calloc(s_count, sizeof(Call)));
    if (!s_calls) {
        ErrorL << "journal: no memory for the calls that are running: a crash will accuse no proxy";
        return;
    }
    EventPollerPool::Instance().for_each(
        [](const TaskExecutor::Ptr &poller) { poller->async([] { t_thread.is_poller = true; }, false); });
    for (size_t n = 0; n < kSignalCount; ++n) {
        struct sigaction ours {};
        ours.sa_sigaction = onSignal;
        ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
        sigemptyset(&ours.sa_mask);
        // The previous handler must be known before ours can be called.
        sigaction(kSignals[n], nullptr, &s_before[n]);
        sigaction(kSignals[n], &ours, nullptr);
    }
}

void unwatch() {
    for (size_t n = 0; s_calls && n < kSignalCount; ++n) {
        struct sigaction now {};
        sigaction(kSignals[n], nullptr, &now);
        if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == onSignal) {
            sigaction(kSignals[n], &s_before[n], nullptr);
        }
    }
}

Dispatch::Dispatch(uint64_t call, uint64_t seq) {
    t_thread.dispatches = seq;
    if (s_calls) {
        Call &its = s_calls[call % s_count];
        its.call = 0;
        its.seq = seq;
        its.since = nowMs();
        its.thread = nullptr;
        its.call = call;
    }
}

Dispatch::~Dispatch() {
    t_thread.dispatches = 0;
}

void made(uint64_t call) {
    if (Call *its = find(call)) {
        its->since = nowMs();
        its->thread = &t_thread;
    }
}

void answered(uint64_t call, bool success) {
    Call *its = find(call);
    if (its && success) {
        its->since = nowMs();
    } else if (its) {
        its->call = 0;
    }
}

} // namespace crash
} // namespace zlm_journal

#else

namespace zlm_journal {
namespace crash {

// Windows has no such signals: nothing is written, and no proxy is accused.
void watch(const std::string &) {}
void unwatch() {}
Dispatch::Dispatch(uint64_t, uint64_t) {}
Dispatch::~Dispatch() {}
void made(uint64_t) {}
void answered(uint64_t, bool) {}

} // namespace crash
} // namespace zlm_journal

#endif
