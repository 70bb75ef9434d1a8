#include "mk_proxy.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "mk_mediakit.h"
#include "text.h"

namespace zlm_journal {
namespace mk {

namespace {

// The pauses of a MediaServer between two tries of a push.
const int kShortestPauseSec = 2, kPauseStepSec = 3, kLongestPauseSec = 60;
// A push that cannot even begin is never answered by libmk_api.
const std::chrono::seconds kSilence(60);

std::string argOf(const std::map<std::string, std::string> &args, const char *name, const char *otherwise) {
    const auto found = args.find(name);
    return found == args.end() || found->second.empty() ? otherwise : found->second;
}

} // namespace

Add::Add(const zlm_journal_add &add)
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

const char *Add::arg(const char *name) const {
    const auto found = args.find(name);
    return found == args.end() ? "" : found->second.c_str();
}

int Add::retries() const {
    return atoi(argOf(args, "retry_count", "-1").c_str());
}

bool Add::hasSource() const {
    return mk_media_source_find2(schema.c_str(), arg("vhost"), arg("app"), arg("stream"), 0) != nullptr;
}

void answerAdd(zlm_journal_handle journal, uint64_t call, uint32_t outcome, const std::string &text) {
    const zlm_journal_answer answer{sizeof answer, outcome, 0, textOf(text)};
    bool success = false;
    (void)zlm_journal_host_added(journal, call, &answer, &success);
}

void Proxy::answer(uint32_t outcome, const std::string &text) {
    if (!_is_answered.exchange(true)) {
        answerAdd(home->journal, call, outcome, text);
    }
}

void Proxy::connected() {
    answer(ZLM_JOURNAL_ACCEPTED, "");
    (void)zlm_journal_connected(home->journal, kind, textOf(add.key));
}

// It is kept and tried again, as MediaServer does with a forced add.
void Proxy::failed(const std::string &error) {
    (void)zlm_journal_failed(home->journal, kind, textOf(add.key), textOf(error));
    answer(ZLM_JOURNAL_ACCEPTED, "");
}

namespace {

// What libmk_api holds of a proxy with one of its callbacks, and gives back when it forgets the callback. `attempt` is the
// one that the callback is about.
template <typename Its>
struct Held {
    Held(const std::shared_ptr<Its> &proxy, int attempt)
        : proxy(proxy)
        , attempt(attempt)
        , hold(proxy->home->held) {}
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
        pull.home->ended(pull.self());
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
        home->work.queue([pull] {
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
        if (!add.hasSource()) {
            // It is pushed again when that comes.
            return home->ended(self());
        }
        const int attempt = ++_attempt;
        _pusher = mk_pusher_create(add.schema.c_str(), add.arg("vhost"), add.arg("app"), add.arg("stream"));
        for (const auto &arg : add.args) {
            mk_pusher_set_option(_pusher, arg.first.c_str(), arg.second.c_str());
        }
        mk_pusher_set_on_shutdown2(_pusher, onShutdown, (new Pusher(self(), attempt, _pusher))->userData(), Pusher::free);
        mk_pusher_set_on_result2(_pusher, onResult, new Held<Push>(self(), attempt), Held<Push>::free);
        mk_pusher_publish(_pusher, add.url.c_str());
        // What waits does not keep it: its key is free when libmk_api has let it go.
        const std::weak_ptr<Push> weak = self();
        const std::chrono::milliseconds timeout(atol(argOf(add.args, "protocol_timeout_ms", "0").c_str()));
        home->work.queueIn(std::max<Work::Clock::duration>(kSilence, 2 * timeout), [weak, attempt] {
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
        home->work.queue([push, attempt, why] { push->lost(attempt, why); });
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
            return home->ended(self());
        }
        failed(why);
        const int pause = std::max(kShortestPauseSec, std::min(_failures++ * kPauseStepSec, kLongestPauseSec));
        const std::weak_ptr<Push> weak = self();
        home->work.queueIn(std::chrono::seconds(pause), [weak] {
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

} // namespace

ProxyPtr makeProxy(const std::shared_ptr<Home> &home, const Add &add, uint64_t call) {
    if (add.isPull()) {
        return std::make_shared<Pull>(home, ZLM_JOURNAL_PULL, add, call);
    }
    return std::make_shared<Push>(home, ZLM_JOURNAL_PUSH, add, call);
}

} // namespace mk
} // namespace zlm_journal
