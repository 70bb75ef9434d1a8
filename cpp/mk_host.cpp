// The host over ZLMediaKit's C API: see zlm_journal_mk.h. Uses nothing of ZLMediaKit but its C headers.
//
// Players and pushers are created, started and given up on one thread, the host's. What libmk_api reports comes on its own
// threads: that is passed on to the journal at once, and what follows from it is left to the host's thread, because a
// callback must not replace the callbacks of the object that calls it.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
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
#include "mk_work.h"
#include "text.h"
#include "zlm_journal_mk.h"

namespace zlm_journal {
namespace mk {

namespace {

using Args = std::map<std::string, std::string>;

// How long the end waits for what ZLMediaKit's threads still hold.
const std::chrono::seconds kLastWait(10);
// The pauses of a MediaServer between two tries of a push.
const int kShortestPauseSec = 2, kPauseStepSec = 3, kLongestPauseSec = 60;
// A push that cannot even begin is never answered by libmk_api.
const std::chrono::seconds kSilence(60);
// More than any version of them has.
const size_t kLargestOptions = 4096;

std::string settingOf(const char *name) {
    const char *const value = mk_ini_get_option(mk_ini_default(), name);
    return value ? value : "";
}

std::string argOf(const Args &args, const char *name, const char *otherwise) {
    const auto found = args.find(name);
    return found == args.end() || found->second.empty() ? otherwise : found->second;
}

// A copy of what the journal asks for: the original is valid only during the callback.
struct Add {
    explicit Add(const zlm_journal_add &add)
        : kind(stringOf(add.kind))
        , key(stringOf(add.key))
        , replace(add.replace)
        , schema(stringOf(add.schema))
        , url(stringOf(add.url)) {
        for (size_t i = 0; i < add.args_len; ++i) {
            args[stringOf(add.args[i].name)] = stringOf(add.args[i].value);
        }
        const auto timeout = atof(argOf(args, "timeout_sec", "0").c_str());
        if (timeout > 0.1) {
            args["protocol_timeout_ms"] = std::to_string(static_cast<long>(timeout * 1000));
        }
    }

    const char *arg(const char *name) const {
        const auto found = args.find(name);
        return found == args.end() ? "" : found->second.c_str();
    }
    int retries() const { return atoi(argOf(args, "retry_count", "-1").c_str()); }

    const std::string kind, key;
    const bool replace;
    const std::string schema, url;
    Args args;
};

class Host;

// A pull or a push, from when it enters the host's map until libmk_api no longer knows it.
class Proxy : public std::enable_shared_from_this<Proxy> {
public:
    Proxy(std::shared_ptr<Host> host, uint32_t kind, Add add, uint64_t call)
        : host(std::move(host))
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

    const std::shared_ptr<Host> host;
    const uint32_t kind;
    const Add add;
    const uint64_t call;

protected:
    void connected();
    void failed(const std::string &error);

private:
    std::atomic<bool> _has_left{false}, _is_answered{false};
};

using ProxyPtr = std::shared_ptr<Proxy>;

class Host : public std::enable_shared_from_this<Host> {
public:
    zlm_journal_handle journal = 0;
    Work work;

    void start(uint64_t call, const Add &add);
    void remove(uint64_t call, const std::string &key);
    // A proxy has ended by itself. Any thread.
    void ended(const ProxyPtr &proxy);
    void close();

    // How many players and pushers libmk_api has of ours.
    Count held;

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

void Proxy::answer(uint32_t outcome, const std::string &text) {
    if (!_is_answered.exchange(true)) {
        const zlm_journal_answer answer{sizeof answer, outcome, 0, textOf(text)};
        bool success = false;
        (void)zlm_journal_host_added(host->journal, call, &answer, &success);
    }
}

void Proxy::connected() {
    answer(ZLM_JOURNAL_ACCEPTED, "");
    (void)zlm_journal_connected(host->journal, kind, textOf(add.key));
}

// It is kept and tried again, as MediaServer does with a forced add.
void Proxy::failed(const std::string &error) {
    (void)zlm_journal_failed(host->journal, kind, textOf(add.key), textOf(error));
    answer(ZLM_JOURNAL_ACCEPTED, "");
}

// What libmk_api holds of a proxy with one of its callbacks, and gives back when it forgets the callback. `attempt` is the
// one that the callback is about.
template <typename Its>
struct Held {
    Held(const std::shared_ptr<Its> &proxy, int attempt)
        : proxy(proxy)
        , attempt(attempt)
        , hold(proxy->host->held) {}
    static Held &of(void *user_data) { return *static_cast<Held *>(user_data); }
    static void API_CALL free(void *user_data) { delete static_cast<Held *>(user_data); }
    const std::shared_ptr<Its> proxy;
    const int attempt;
    const Count::Hold hold;
};

// The same, with the player or pusher itself: libmk_api holds it with the callback that stays longest, and forgets that on
// the thread of the object, which has to be destroyed there.
template <typename Its, typename Object, void(API_CALL *release)(Object)>
struct Owned : Held<Its> {
    Owned(const std::shared_ptr<Its> &proxy, int attempt, Object object)
        : Held<Its>(proxy, attempt)
        , object(object) {}
    static void API_CALL free(void *user_data) {
        // As a Held it was given away.
        const std::unique_ptr<Owned> owned(static_cast<Owned *>(static_cast<Held<Its> *>(user_data)));
        release(owned->object);
    }
    void *userData() { return static_cast<Held<Its> *>(this); }
    const Object object;
};

class Pull : public Proxy {
public:
    using Proxy::Proxy;

    void start() override {
        const mk_ini options = mk_ini_create();
        for (const auto &arg : add.args) {
            mk_ini_set_option(options, arg.first.c_str(), arg.second.c_str());
        }
        _player = mk_proxy_player_create4(add.arg("vhost"), add.arg("app"), add.arg("stream"), options, add.retries());
        mk_ini_release(options);
        for (const auto &arg : add.args) {
            mk_proxy_player_set_option(_player, arg.first.c_str(), arg.second.c_str());
        }
        mk_proxy_player_set_on_close2(_player, onClose, (new Player(self(), 0, _player))->userData(), Player::free);
        listen();
        mk_proxy_player_play(_player, add.url.c_str());
    }

    void release() override {
        if (_player) {
            // Then libmk_api forgets the callback that owns the player.
            mk_proxy_player_set_on_close2(_player, nullptr, nullptr, nullptr);
            _player = nullptr;
        }
    }

private:
    using Player = Owned<Pull, mk_proxy_player, mk_proxy_player_release>;

    std::shared_ptr<Pull> self() { return std::static_pointer_cast<Pull>(shared_from_this()); }

    // libmk_api tells one result: the next connect, or the next loss of the connection.
    void listen() { mk_proxy_player_set_on_play_result(_player, onResult, new Held<Pull>(self(), 0), Held<Pull>::free); }

    static void API_CALL onResult(void *user_data, int error, const char *what, int) {
        Held<Pull>::of(user_data).proxy->result(error, what);
    }

    static void API_CALL onClose(void *user_data, int error, const char *what, int) {
        Pull &pull = *Held<Pull>::of(user_data).proxy;
        if (error && !pull.hasLeft()) {
            pull.answer(ZLM_JOURNAL_REFUSED, what);
        }
        pull.host->ended(pull.self());
    }

    void result(int error, const char *what) {
        if (hasLeft()) {
            // It is being released.
            answer(ZLM_JOURNAL_DROPPED, "");
            return;
        }
        if (error) {
            failed(what);
        } else {
            connected();
        }
        const auto pull = self();
        host->work.queue([pull] {
            if (!pull->hasLeft()) {
                pull->listen();
            }
        });
    }

    mk_proxy_player _player = nullptr;
};

class Push : public Proxy {
public:
    using Proxy::Proxy;

    void start() override {
        const auto *const schema = add.schema.c_str();
        if (!mk_media_source_find2(schema, add.arg("vhost"), add.arg("app"), add.arg("stream"), 0)) {
            // It is pushed again when that comes.
            return host->ended(self());
        }
        const int attempt = ++_attempt;
        _pusher = mk_pusher_create(schema, add.arg("vhost"), add.arg("app"), add.arg("stream"));
        for (const auto &arg : add.args) {
            mk_pusher_set_option(_pusher, arg.first.c_str(), arg.second.c_str());
        }
        mk_pusher_set_on_shutdown2(_pusher, onShutdown, (new Pusher(self(), attempt, _pusher))->userData(), Pusher::free);
        mk_pusher_set_on_result2(_pusher, onResult, new Held<Push>(self(), attempt), Held<Push>::free);
        mk_pusher_publish(_pusher, add.url.c_str());
        // What waits does not keep it: its key is free when libmk_api has let it go.
        const std::weak_ptr<Push> weak = self();
        const std::chrono::milliseconds timeout(atol(argOf(add.args, "protocol_timeout_ms", "0").c_str()));
        host->work.queueIn(std::max<Work::Clock::duration>(kSilence, 2 * timeout), [weak, attempt] {
            const auto push = weak.lock();
            if (push && push->_last_result != attempt) {
                push->lost(attempt, "it was not answered");
            }
        });
    }

    void release() override {
        ++_attempt;
        forget();
    }

private:
    using Pusher = Owned<Push, mk_pusher, mk_pusher_release>;

    std::shared_ptr<Push> self() { return std::static_pointer_cast<Push>(shared_from_this()); }

    static void API_CALL onResult(void *user_data, int error, const char *what) {
        const auto &held = Held<Push>::of(user_data);
        held.proxy->told(held.attempt, error, what);
    }

    static void API_CALL onShutdown(void *user_data, int error, const char *what) {
        const auto &held = Held<Push>::of(user_data);
        held.proxy->told(held.attempt, error ? error : -1, what);
    }

    void told(int attempt, int error, const char *what) {
        if (hasLeft() || attempt != _attempt) {
            return;
        }
        _last_result = attempt;
        if (!error) {
            _failures = 0;
            return connected();
        }
        const auto push = self();
        const std::string why = what;
        host->work.queue([push, attempt, why] { push->lost(attempt, why); });
    }

    // On the host's thread.
    void lost(int attempt, const std::string &why) {
        if (hasLeft() || attempt != _attempt) {
            return;
        }
        ++_attempt;
        forget();
        if (add.retries() >= 0 && _failures >= add.retries()) {
            answer(ZLM_JOURNAL_REFUSED, why);
            return host->ended(self());
        }
        failed(why);
        const int pause = std::max(kShortestPauseSec, std::min(_failures++ * kPauseStepSec, kLongestPauseSec));
        const std::weak_ptr<Push> weak = self();
        host->work.queueIn(std::chrono::seconds(pause), [weak] {
            const auto push = weak.lock();
            if (push && !push->hasLeft()) {
                push->start();
            }
        });
    }

    void forget() {
        if (_pusher) {
            mk_pusher_set_on_shutdown2(
                _pusher, [](void *, int, const char *) {}, nullptr, nullptr);
            _pusher = nullptr;
        }
    }

    mk_pusher _pusher = nullptr;
    std::atomic<int> _attempt{0}, _last_result{0}, _failures{0};
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
    const bool is_pull = add.kind == "pull";
    const auto refuse = [this, call](uint32_t outcome, const char *why) {
        const zlm_journal_answer answer{sizeof answer, outcome, 0, textOf(why)};
        bool success = false;
        (void)zlm_journal_host_added(journal, call, &answer, &success);
    };
    if (!is_pull && add.kind != "push") {
        (void)zlm_journal_host_blocked(journal, call, ZLM_JOURNAL_NO_API);
        return;
    }
    if (!is_pull && !mk_media_source_find2(add.schema.c_str(), add.arg("vhost"), add.arg("app"), add.arg("stream"), 0)) {
        (void)zlm_journal_host_blocked(journal, call, ZLM_JOURNAL_NO_STREAM);
        return;
    }
    if (const auto before = find(add.key)) {
        if (!add.replace) {
            return refuse(ZLM_JOURNAL_REFUSED, "This stream already exists");
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
    ProxyPtr proxy;
    if (is_pull) {
        proxy = std::make_shared<Pull>(shared_from_this(), ZLM_JOURNAL_PULL, add, call);
    } else {
        proxy = std::make_shared<Push>(shared_from_this(), ZLM_JOURNAL_PUSH, add, call);
    }
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
