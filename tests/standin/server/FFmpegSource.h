// An FFmpeg source: a process that plays one URL and publishes to another, here or elsewhere.
#ifndef ZLM_JOURNAL_STANDIN_FFMPEG_SOURCE_H
#define ZLM_JOURNAL_STANDIN_FFMPEG_SOURCE_H

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "connection.h"

class FFmpegSource : public mediakit::MediaSourceEvent, public std::enable_shared_from_this<FFmpegSource> {
public:
    using Ptr = std::shared_ptr<FFmpegSource>;
    using Told = std::function<void(const toolkit::SockException &)>;

    FFmpegSource()
        : _poller(toolkit::EventPollerPool::Instance().getPoller()) {}
    ~FFmpegSource() override { kill(); }

    void setOnClose(std::function<void()> told) { _on_close = std::move(told); }

    // `told` of the result, once; never where the object is destroyed before.
    void play(
        const std::string &cmd_key, const std::string &src_url, const std::string &dst_url, int timeout_ms, Told told) {
        {
            std::lock_guard<std::mutex> lock(_mutex);
            _cmd_key = cmd_key;
            _src_url = src_url;
            _dst_url = dst_url;
        }
        try {
            run();
        } catch (const std::exception &error) {
            told(toolkit::SockException(toolkit::Err_other, error.what()));
            return;
        }
        const std::weak_ptr<FFmpegSource> weak = shared_from_this();
        const auto deadline = toolkit::Clock::now() + std::chrono::milliseconds(timeout_ms);
        // At once where the stream is there already. To another server it cannot be seen: there it is the process alone
        // that counts, when the time is up.
        if (!isHere() || !found(told, timeout_ms)) {
            _poller->doDelayTask(isHere() ? 20 : timeout_ms, [weak, told, deadline, timeout_ms]() -> uint64_t {
                const auto self = weak.lock();
                if (!self || (self->isHere() && self->found(told, timeout_ms))) {
                    return 0;
                }
                if (toolkit::Clock::now() < deadline) {
                    return 20;
                }
                if (!self->isRunning()) {
                    told(toolkit::SockException(toolkit::Err_other, "the ffmpeg process has exited"));
                } else if (self->isHere()) {
                    told(toolkit::SockException(toolkit::Err_other, "wait timeout"));
                } else {
                    told(toolkit::SockException());
                    self->lookAfter(timeout_ms);
                }
                return 0;
            });
        }
    }

    std::string getSrcUrl() const { return guarded(_src_url); }
    std::string getDstUrl() const { return guarded(_dst_url); }
    std::string getCmd() const { return guarded(_cmd); }
    std::string getCmdKey() const { return guarded(_cmd_key); }

    // Of the stream that it feeds.
    bool close(mediakit::MediaSource &sender) override {
        const auto publisher = guarded(_publisher).lock();
        if (publisher && !publisher->close(sender)) {
            return false;
        }
        if (_on_close) {
            _on_close();
        }
        return true;
    }
    toolkit::EventPoller::Ptr getOwnerPoller(mediakit::MediaSource &sender) override {
        const auto publisher = guarded(_publisher).lock();
        return publisher ? publisher->getOwnerPoller(sender) : nullptr;
    }

private:
    template <typename T>
    T guarded(const T &member) const {
        std::lock_guard<std::mutex> lock(_mutex);
        return member;
    }

    bool isHere() const {
        const std::string host = StreamUrl(_dst_url).host;
        if (host == "localhost" || host == "127.0.0.1") {
            return true;
        }
        for (const auto &device : toolkit::SockUtil::getInterfaceList()) {
            if (device.at("ip") == host) {
                return true;
            }
        }
        return false;
    }

    mediakit::MediaSource::Ptr stream() const {
        const auto info = StreamUrl(_dst_url).info();
        return mediakit::MediaSource::find(info.schema, info.vhost, info.app, info.stream);
    }

    bool found(const Told &told, int timeout_ms) {
        const auto source = stream();
        if (!source) {
            return false;
        }
        told(toolkit::SockException());
        // Puts itself before the connection that brings the stream, to be asked to close it.
        const auto muxer = source->getMuxer();
        const auto publisher = muxer ? muxer->getDelegate() : nullptr;
        if (publisher && publisher.get() != this) {
            {
                std::lock_guard<std::mutex> lock(_mutex);
                _publisher = publisher;
            }
            muxer->setDelegate(shared_from_this());
        }
        lookAfter(timeout_ms);
        return true;
    }

    // Starts the process again: to here when the stream has been away and the last start was 20 seconds ago, elsewhere when
    // the process is gone.
    void lookAfter(int timeout_ms) {
        if (_watch) {
            _watch->cancel();
        }
        const std::weak_ptr<FFmpegSource> weak = shared_from_this();
        _watch = _poller->doDelayTask(1000, [weak, timeout_ms]() -> uint64_t {
            const auto self = weak.lock();
            if (!self) {
                return 0;
            }
            const bool is_due = toolkit::Clock::now() - self->_started > std::chrono::seconds(20);
            if (self->isHere() ? !self->stream() && is_due : !self->isRunning()) {
                self->play(
                    self->getCmdKey(), self->getSrcUrl(), self->getDstUrl(), timeout_ms,
                    [](const toolkit::SockException &) {});
            }
            return 1000;
        });
    }

    void run() {
        kill();
        _started = toolkit::Clock::now();
        const auto own = toolkit::configured(_cmd_key), usual = toolkit::configured("ffmpeg.cmd");
        // As in the host, a template that is not there is replaced by the usual one.
        const std::string &command = own.empty() ? usual : own;
        if (command.compare(0, 2, "%s") != 0) {
            throw std::invalid_argument("ffmpeg cmd template must start with '%s'");
        }
        char line[4096];
        snprintf(
            line, sizeof(line), command.c_str(), toolkit::configured("ffmpeg.bin").c_str(), _src_url.c_str(),
            _dst_url.c_str());
        {
            std::lock_guard<std::mutex> lock(_mutex);
            _cmd = line;
        }
        std::istringstream words(line);
        std::vector<std::string> args;
        for (std::string word; words >> word;) {
            args.push_back(word);
        }
        std::vector<char *> argv;
        for (auto &arg : args) {
            argv.push_back(&arg[0]);
        }
        argv.push_back(nullptr);
        const pid_t child = fork();
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            execv(argv[0], argv.data());
            _exit(127);
        }
        _pid = child;
    }

    bool isRunning() {
        const pid_t pid = _pid;
        if (pid > 0 && waitpid(pid, nullptr, WNOHANG) != 0) {
            _pid = -1;
        }
        return _pid > 0;
    }

    void kill() {
        const pid_t pid = _pid.exchange(-1);
        if (pid > 0) {
            ::kill(pid, SIGKILL);
            waitpid(pid, nullptr, 0);
        }
    }

    const toolkit::EventPoller::Ptr _poller;
    std::function<void()> _on_close;
    // It is listed before it plays, and asked to close its stream on that one's poller.
    mutable std::mutex _mutex;
    std::string _cmd_key, _src_url, _dst_url, _cmd;
    std::weak_ptr<mediakit::MediaSourceEvent> _publisher;
    toolkit::EventPoller::DelayTask::Ptr _watch;
    toolkit::Clock::time_point _started;
    std::atomic<pid_t> _pid{-1};
};

#endif
