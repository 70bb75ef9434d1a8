// zlm-journal for C++11: the C API with owners for handles, std::string for texts, and exceptions for errors.
//
//   auto journal = zlm_journal::open(zlm_journal_mk_open, zlm_journal_mk_close, {{"enable", "1"}, {"path", "cameras.db"}}, 4);
//   journal.want("pull", {{"vhost", "__defaultVhost__"}, {"app", "live"}, {"stream", "gate"}, {"url", "rtsp://10.0.0.1/1"}});
//
// Every function may be called from any thread, but for the destructor of a Journal and close(). See zlm_journal.h for what
// each does, blocks on and needs.
#ifndef ZLM_JOURNAL_HPP
#define ZLM_JOURNAL_HPP

#include <future>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "zlm_journal.h"

namespace zlm_journal {

// A result that is not 0. `code` is a zlm_journal_code.
class Error : public std::runtime_error {
public:
    Error(int32_t code, const std::string &message)
        : std::runtime_error(message)
        , code(code) {}
    const int32_t code;
};

using Values = std::map<std::string, std::string>;

namespace detail {

inline zlm_journal_text text(const std::string &string) {
    return zlm_journal_text{string.data(), string.size()};
}

inline std::string string(const zlm_journal_text &text) {
    return text.len == 0 ? std::string() : std::string(text.data, text.len);
}

// The result refers to the names and values.
inline std::vector<zlm_journal_pair> pairs(const Values &values) {
    std::vector<zlm_journal_pair> pairs;
    for (const auto &value : values) {
        pairs.push_back(zlm_journal_pair{text(value.first), text(value.second)});
    }
    return pairs;
}

// Throws if `result` is an error.
inline void check(int32_t result) {
    if (result != 0) {
        size_t len = 0;
        char message[1024] = "";
        (void)zlm_journal_last_error(message, sizeof message, &len);
        throw Error(result, message);
    }
}

} // namespace detail

// What has become of a change.
struct Ack {
    // The number of the change; 0 if there was none.
    uint64_t seq;
    // One of ZLM_JOURNAL_NOT_PERSISTED, _PERSISTED, _PERSISTED_SOON.
    uint32_t persisted;
    // 0, or the zlm_journal_code of the error, and its message.
    int32_t code;
    std::string error;
};

// An open journal, which its destructor closes.
class Journal {
public:
    using Close = int32_t (*)(zlm_journal_handle);

    // `close` is zlm_journal_close, or zlm_journal_mk_close for one that zlm_journal_mk_open has opened.
    explicit Journal(zlm_journal_handle handle, Close close = zlm_journal_close)
        : _handle(handle)
        , _close(close) {}
    Journal(Journal &&other) noexcept
        : _handle(other.release())
        , _close(other._close) {}
    Journal &operator=(Journal &&other) noexcept {
        if (this != &other) {
            end();
            _handle = other.release();
            _close = other._close;
        }
        return *this;
    }
    Journal(const Journal &) = delete;
    Journal &operator=(const Journal &) = delete;
    ~Journal() { end(); }

    zlm_journal_handle handle() const { return _handle; }

    // Closes it now, and says how that went.
    void close() { detail::check(_close(release())); }

    // The caller closes it.
    zlm_journal_handle release() {
        const auto handle = _handle;
        _handle = 0;
        return handle;
    }

    // Asks for a proxy of this kind with these arguments, or changes it. The result is there when it is on disk; an error is
    // in it, not thrown.
    std::future<Ack> want(const std::string &kind, const Values &args, const std::string &reason = "") const {
        return send(ZLM_JOURNAL_ADD, kind, "", args, reason);
    }

    // Ends the proxy of this kind and key.
    std::future<Ack> unwant(const std::string &kind, const std::string &key, const std::string &reason = "") const {
        return send(ZLM_JOURNAL_REMOVE, kind, key, Values(), reason);
    }

    // Carries out an API call of the journal (docs/api.md), and returns its reply when it is there.
    std::future<std::string> call(const std::string &name, const Values &args = Values(), const std::string &body = "") const {
        std::unique_ptr<std::promise<std::string>> promise(new std::promise<std::string>);
        auto reply = promise->get_future();
        const auto pairs = detail::pairs(args);
        const std::string caller = "in-process";
        const zlm_journal_request request{
            sizeof request, detail::text(name), pairs.data(), pairs.size(), detail::text(caller)};
        // It is answered whatever the result is.
        (void)zlm_journal_api_call(_handle, &request, detail::text(body), onReply, promise.release());
        return reply;
    }

private:
    static void onAck(void *context, const zlm_journal_ack *ack) {
        const std::unique_ptr<std::promise<Ack>> promise(static_cast<std::promise<Ack> *>(context));
        promise->set_value(Ack{ack->seq, ack->persisted, ack->code, detail::string(ack->error)});
    }

    static void onReply(void *context, zlm_journal_text, zlm_journal_text body) {
        const std::unique_ptr<std::promise<std::string>> promise(static_cast<std::promise<std::string> *>(context));
        promise->set_value(detail::string(body));
    }

    std::future<Ack> send(
        uint32_t op, const std::string &kind, const std::string &key, const Values &args, const std::string &reason) const {
        std::unique_ptr<std::promise<Ack>> promise(new std::promise<Ack>);
        auto ack = promise->get_future();
        const auto pairs = detail::pairs(args);
        const std::string caller = "in-process";
        const zlm_journal_call call{sizeof call,  op,           detail::text(kind),   detail::text(key),
                                    pairs.data(), pairs.size(), detail::text(caller), detail::text(reason)};
        (void)zlm_journal_want(_handle, &call, onAck, promise.release());
        return ack;
    }

    void end() {
        if (_handle != 0) {
            (void)_close(release());
        }
    }

    zlm_journal_handle _handle;
    Close _close;
};

// Opens a journal by zlm_journal_open or zlm_journal_mk_open. `settings` are those of [journal]; `threads` is the number of
// threads that the host's media run on. Throws Error.
inline Journal open(
    int32_t (*how)(const zlm_journal_options *, zlm_journal_handle *), Journal::Close close, const Values &settings,
    uint32_t threads, const std::string &base_dir = ".") {
    const auto pairs = detail::pairs(settings);
    zlm_journal_options options = {};
    options.size = sizeof options;
    options.abi = ZLM_JOURNAL_ABI;
    options.host_threads = threads;
    options.settings = pairs.data();
    options.settings_len = pairs.size();
    options.base_dir = detail::text(base_dir);
    zlm_journal_handle handle = 0;
    detail::check(how(&options, &handle));
    return Journal(handle, close);
}

} // namespace zlm_journal

#endif
