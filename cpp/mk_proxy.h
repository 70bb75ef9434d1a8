// Pulls and pushes in libmk_api: how each is made, started and given up, and what is told of it. The host decides which there
// are.
#ifndef ZLM_JOURNAL_MK_PROXY_H
#define ZLM_JOURNAL_MK_PROXY_H

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "mk_work.h"
#include "zlm_journal.h"

namespace zlm_journal {
namespace mk {

// A copy of what the journal asks for: the original is valid only during the callback.
struct Add {
    explicit Add(const zlm_journal_add &add);

    bool isPull() const { return kind == "pull"; }
    // An argument, or "".
    const char *arg(const char *name) const;
    int retries() const;
    // The stream that a push takes is there.
    bool hasSource() const;

    const std::string kind, key;
    const bool replace;
    const std::string schema, url;
    std::map<std::string, std::string> args;
};

class Proxy;
using ProxyPtr = std::shared_ptr<Proxy>;

// What a proxy knows of its host.
struct Home {
    virtual ~Home() = default;
    // A proxy has ended by itself. Any thread.
    virtual void ended(const ProxyPtr &proxy) = 0;

    zlm_journal_handle journal = 0;
    Work work;
    // How many players and pushers libmk_api has of ours.
    Count held;
};

// A pull or a push, from when it enters the host's map until libmk_api no longer knows it.
class Proxy : public std::enable_shared_from_this<Proxy> {
public:
    Proxy(std::shared_ptr<Home> home, uint32_t kind, Add add, uint64_t call)
        : home(std::move(home))
        , kind(kind)
        , add(std::move(add))
        , call(call) {}
    virtual ~Proxy() = default;

    // All on the host's thread.
    virtual void start() = 0;
    // It has left the map: libmk_api is told to forget it, on its own thread.
    virtual void release() = 0;

    // Any thread.
    void answer(uint32_t outcome, const std::string &text);
    bool hasLeft() const { return _has_left; }
    void leaves() { _has_left = true; }

    const std::shared_ptr<Home> home;
    const uint32_t kind;
    const Add add;
    const uint64_t call;

protected:
    void connected();
    void failed(const std::string &error);

private:
    std::atomic<bool> _has_left{false}, _is_answered{false};
};

// Not started yet.
ProxyPtr makeProxy(const std::shared_ptr<Home> &home, const Add &add, uint64_t call);

// The answer to an add.
void answerAdd(zlm_journal_handle journal, uint64_t call, uint32_t outcome, const std::string &text);

} // namespace mk
} // namespace zlm_journal

#endif
