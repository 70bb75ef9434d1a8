// The host over ZLMediaKit's C API: see zlm_journal_mk.h. Uses nothing of ZLMediaKit but its C headers.
//
// Players and pushers are created, started and given up on one thread, the host's. What libmk_api reports comes on its own
// threads: that is passed on to the journal at once, and what follows from it is left to the host's thread, because a
// callback must not replace the callbacks of the object that calls it.
#include <chrono>
#include <cstddef>
#include <cstring>
#include <exception>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "mk_mediakit.h"
#include "mk_proxy.h"
#include "text.h"
#include "zlm_journal_mk.h"

namespace zlm_journal {
namespace mk {

namespace {

// How long the end waits for what ZLMediaKit's threads still hold.
const std::chrono::seconds kLastWait(10);
// More than any version of them has.
const size_t kLargestOptions = 4096;

std::string settingOf(const char *name) {
    const char *const value = mk_ini_get_option(mk_ini_default(), name);
    return value ? value : "";
}

class Host : public Home, public std::enable_shared_from_this<Host> {
public:
    void start(uint64_t call, const Add &add);
    void remove(uint64_t call, const std::string &key);
    void ended(const ProxyPtr &proxy) override;
    void close();

private:
    ProxyPtr find(const std::string &key);
    size_t count();
    void enter(const ProxyPtr &proxy);
    // Returns false if it has left before. It is to be released then.
    bool leave(const ProxyPtr &proxy, uint64_t within);
    // Those that have left.
    void release();

    // Held while the journal is told, so that it knows the order of what happens.
    std::mutex _mutex;
    // Keys of pulls and of pushes are never alike.
    std::map<std::string, ProxyPtr> _proxies;
    std::vector<ProxyPtr> _ended;
    // Of each key, the last one that was made, whether it is still there or not. On the host's thread.
    std::map<std::string, std::weak_ptr<Proxy>> _last;
};

ProxyPtr Host::find(const std::string &key) {
    const std::lock_guard<std::mutex> lock(_mutex);
    const auto found = _proxies.find(key);
    return found == _proxies.end() ? nullptr : found->second;
}

size_t Host::count() {
    const std::lock_guard<std::mutex> lock(_mutex);
    return _proxies.size();
}

void Host::enter(const ProxyPtr &proxy) {
    const std::lock_guard<std::mutex> lock(_mutex);
    _proxies[proxy->add.key] = proxy;
    uint64_t by = 0;
    (void)zlm_journal_made(journal, proxy->kind, textOf(proxy->add.key), &by);
}

bool Host::leave(const ProxyPtr &proxy, uint64_t within) {
    const std::lock_guard<std::mutex> lock(_mutex);
    const auto found = _proxies.find(proxy->add.key);
    if (found == _proxies.end() || found->second != proxy) {
        return false;
    }
    proxy->leaves();
    _ended.push_back(proxy);
    _proxies.erase(found);
    (void)zlm_journal_ended(journal, proxy->kind, textOf(proxy->add.key), within);
    return true;
}

// On the host's thread.
void Host::start(uint64_t call, const Add &add) {
    if (!add.isPull() && add.kind != "push") {
        (void)zlm_journal_host_blocked(journal, call, ZLM_JOURNAL_NO_API);
        return;
    }
    if (!add.isPull() && !add.hasSource()) {
        (void)zlm_journal_host_blocked(journal, call, ZLM_JOURNAL_NO_STREAM);
        return;
    }
    if (const auto before = find(add.key)) {
        if (!add.replace) {
            return answerAdd(journal, call, ZLM_JOURNAL_REFUSED, "This stream already exists");
        }
        (void)leave(before, call);
        release();
    }
    const auto last = _last.find(add.key);
    if (last != _last.end()) {
        // The names of its sources are free once libmk_api has destroyed it.
        const auto weak = last->second;
        _last.erase(last);
        const auto self = shared_from_this();
        return work.queueWhen([weak] { return weak.expired(); }, [self, call, add] { self->start(call, add); });
    }
    const auto proxy = makeProxy(shared_from_this(), add, call);
    // Keys that come and go are forgotten with their proxies.
    for (auto each = _last.begin(); _last.size() > 2 * count() + 100 && each != _last.end();) {
        each = each->second.expired() ? _last.erase(each) : std::next(each);
    }
    _last[add.key] = proxy;
    enter(proxy);
    proxy->start();
}

void Host::remove(uint64_t call, const std::string &key) {
    const auto proxy = find(key);
    if (proxy && leave(proxy, call)) {
        release();
    }
    (void)zlm_journal_host_removed(journal, call);
}

void Host::ended(const ProxyPtr &proxy) {
    if (leave(proxy, 0)) {
        proxy->answer(ZLM_JOURNAL_DROPPED, "");
        const auto self = shared_from_this();
        work.queue([self] { self->release(); });
    }
}

void Host::release() {
    std::vector<ProxyPtr> ended;
    {
        const std::lock_guard<std::mutex> lock(_mutex);
        ended.swap(_ended);
    }
    for (const auto &each : ended) {
        each->release();
        // Whoever has left before its first result will have none.
        each->answer(ZLM_JOURNAL_DROPPED, "");
    }
}

void Host::close() {
    work.end();
    {
        const std::lock_guard<std::mutex> lock(_mutex);
        for (const auto &each : _proxies) {
            each.second->leaves();
            _ended.push_back(each.second);
        }
        _proxies.clear();
    }
    release();
    if (!held.waitForNone(kLastWait)) {
        log_error("journal: ZLMediaKit has not given back all players yet");
    }
}

// ---- all hosts of the process, by their journals

std::mutex s_mutex;

std::map<zlm_journal_handle, std::shared_ptr<Host>> &hosts() {
    static auto *const all = new std::map<zlm_journal_handle, std::shared_ptr<Host>>;
    return *all;
}

std::shared_ptr<Host> take(zlm_journal_handle handle) {
    const std::lock_guard<std::mutex> lock(s_mutex);
    const auto found = hosts().find(handle);
    if (found == hosts().end()) {
        return nullptr;
    }
    auto host = found->second;
    hosts().erase(found);
    return host;
}

// ---- what the journal asks for

void hostAdd(void *context, uint64_t call, const zlm_journal_add *borrowed) {
    const auto host = static_cast<Host *>(context)->shared_from_this();
    const Add add(*borrowed);
    host->work.queue([host, call, add] { host->start(call, add); });
}

void hostRemove(void *context, uint64_t call, zlm_journal_text, zlm_journal_text key_text) {
    const auto host = static_cast<Host *>(context)->shared_from_this();
    const std::string key = stringOf(key_text);
    host->work.queue([host, call, key] { host->remove(call, key); });
}

// ---- ZLMediaKit's settings

struct Facts {
    Facts() {
        for (const auto *const name :
             {"enable_rtsp", "enable_rtmp", "enable_ts", "enable_fmp4", "enable_hls", "enable_hls_fmp4"}) {
            values.emplace_back(name, settingOf((std::string("protocol.") + name).c_str()));
        }
        record_app = settingOf("record.appName");
        server_id = settingOf("general.mediaServerId");
        pairs = pairsOf(values);
        facts = {
            sizeof facts,
            atoi(settingOf("general.enableVhost").c_str()) != 0,
            true,
            0,
            textOf(record_app),
            pairs.data(),
            pairs.size(),
            textOf(server_id)};
    }

    std::vector<std::pair<std::string, std::string>> values;
    std::string record_app, server_id;
    std::vector<zlm_journal_pair> pairs;
    zlm_journal_facts facts;
};

zlm_journal_text text(const char *value) {
    return {value, value ? strlen(value) : 0};
}

zlm_journal_stream streamOf(const mk_media_source source) {
    return {
        text(mk_media_source_get_vhost(source)), text(mk_media_source_get_app(source)),
        text(mk_media_source_get_stream(source))};
}

// ZLMediaKit has one set of events for the process.
template <typename Tell>
void tellAll(Tell tell) {
    std::vector<zlm_journal_handle> all;
    {
        const std::lock_guard<std::mutex> lock(s_mutex);
        for (const auto &host : hosts()) {
            all.push_back(host.first);
        }
    }
    for (const auto handle : all) {
        (void)tell(handle);
    }
}

} // namespace
} // namespace mk
} // namespace zlm_journal

using namespace zlm_journal::mk;

extern "C" int32_t zlm_journal_mk_open(const zlm_journal_options *options, zlm_journal_handle *handle) {
    try {
        const auto host = std::make_shared<Host>();
        const Facts facts;
        std::vector<uint64_t> copy;
        // Otherwise the journal says what is wrong with them.
        const size_t with_facts = offsetof(zlm_journal_options, facts) + sizeof(void *);
        if (options && options->size >= with_facts && options->size <= kLargestOptions && !options->facts) {
            copy.resize((options->size + sizeof copy[0] - 1) / sizeof copy[0]);
            memcpy(copy.data(), options, options->size);
            auto *const filled = reinterpret_cast<zlm_journal_options *>(copy.data());
            filled->facts = &facts.facts;
            options = filled;
        }
        int32_t result = zlm_journal_open(options, handle);
        if (result != 0) {
            return result;
        }
        host->journal = *handle;
        {
            const std::lock_guard<std::mutex> lock(s_mutex);
            hosts()[*handle] = host;
        }
        const zlm_journal_host its{sizeof its, host.get(), hostAdd, nullptr, hostRemove};
        result = zlm_journal_start(*handle, &its);
        if (result != 0) {
            (void)zlm_journal_mk_close(*handle);
            *handle = 0;
        }
        return result;
    } catch (const std::exception &error) {
        log_error("journal: no thread, or no memory, for its host: %s", error.what());
        return ZLM_JOURNAL_CODE_PANIC;
    }
}

extern "C" int32_t zlm_journal_mk_close(zlm_journal_handle handle) {
    const auto host = take(handle);
    const int32_t result = zlm_journal_close(handle);
    if (host) {
        host->close();
    }
    return result;
}

extern "C" void zlm_journal_mk_media_changed(int regist, const mk_media_source sender) {
    const auto stream = streamOf(sender);
    const auto schema = text(mk_media_source_get_schema(sender));
    tellAll([&](zlm_journal_handle journal) { return zlm_journal_stream_changed(journal, schema, &stream, regist != 0); });
}

extern "C" int zlm_journal_mk_media_not_found(const mk_media_info url_info, const mk_sock_info) {
    const zlm_journal_stream stream{
        text(mk_media_info_get_vhost(url_info)), text(mk_media_info_get_app(url_info)),
        text(mk_media_info_get_stream(url_info))};
    tellAll([&](zlm_journal_handle journal) { return zlm_journal_stream_not_found(journal, &stream); });
    return 0;
}

extern "C" void zlm_journal_mk_media_no_reader(const mk_media_source sender) {
    const auto stream = streamOf(sender);
    tellAll([&](zlm_journal_handle journal) { return zlm_journal_stream_unwatched(journal, &stream); });
}
