// The stand-in's program: options, ini file, daemon, HTTP listener, signals. See ../README.md.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "WebApi.h"
#include "streams.h"

using namespace toolkit;
using namespace mediakit;

static onceToken s_defaults([] {
    mINI::Instance()["api.secret"] = "035c73f7-bb6b-4889-a715-d9eb2d1925cc";
    mINI::Instance()["http.port"] = "80";
    mINI::Instance()["http.allow_ip_range"] = "::1,127.0.0.1";
    mINI::Instance()["general.listen_ip"] = "::";
    mINI::Instance()["general.maxStreamWaitMS"] = "15000";
    mINI::Instance()["general.streamNoneReaderDelayMS"] = "20000";
    mINI::Instance()["rtmp.port"] = "1935";
    mINI::Instance()["ffmpeg.bin"] = exeDir() + "MediaServer";
    mINI::Instance()["ffmpeg.cmd"] = "%s --relay %s %s";
});

// A client's connection; requests on it are answered in their order.
class Session : public SocketHelper {
public:
    Session(int fd, const sockaddr_in &peer)
        : SocketHelper(Socket::createSocket(EventPollerPool::Instance().getPoller(false)))
        , _fd(fd)
        , _port(ntohs(peer.sin_port)) {}
    ~Session() override { ::close(_fd); }

    uint16_t get_peer_port() override { return _port; }
    void onRecv(const Buffer::Ptr &) override {}
    void onError(const SockException &) override {}
    void onManager() override {}

    void serve() {
        std::string input;
        char piece[65536];
        while (true) {
            const auto end = input.find("\r\n\r\n");
            if (end != std::string::npos) {
                Parser head;
                head.parse(input.data(), end + 4);
                const size_t size = end + 4 + strtoul(head["Content-Length"].c_str(), nullptr, 10);
                if (input.size() >= size) {
                    Parser parser;
                    parser.parse(input.data(), size);
                    input.erase(0, size);
                    handle(parser);
                    continue;
                }
            }
            const ssize_t got = recv(_fd, piece, sizeof(piece), 0);
            if (got <= 0) {
                return;
            }
            input.append(piece, got);
        }
    }

    // What stands for a connection by RTMP: "PLAY app/stream" or "PUBLISH app/stream", answered by a byte.
    void serveRtmp() {
        std::string line;
        for (char sign; recv(_fd, &sign, 1, 0) == 1 && sign != '\n';) {
            line += sign;
        }
        const auto space = line.find(' ');
        if (space == std::string::npos) {
            return;
        }
        const auto tuple = StreamUrl("rtmp://127.0.0.1:0/" + line.substr(space + 1)).tuple();
        if (line.substr(0, space) == "PUBLISH") {
            if (MediaSource::find("rtmp", tuple.vhost, tuple.app, tuple.stream)) {
                return;
            }
            const int fd = _fd;
            Stream stream(tuple, [fd] { return shutdown(fd, SHUT_RDWR) == 0; });
            watchIdle(getPoller(), stream.watched(), mINI::Instance()["protocol.auto_close"] == "1");
            (void)!send(_fd, ".", 1, MSG_NOSIGNAL);
            char byte;
            while (recv(_fd, &byte, 1, 0) > 0) {
            }
        } else if (const auto source = awaitStream(tuple, *this)) {
            (void)!send(_fd, ".", 1, MSG_NOSIGNAL);
            watchStream(source, _fd);
        }
    }

private:
    void handle(const Parser &parser) {
        auto done = std::make_shared<sem_t>();
        sem_init(done.get(), 0, 0);
        auto self = std::static_pointer_cast<Session>(shared_from_this());
        HttpResponseInvokerImp invoker([self, done](int status, const StrCaseMap &, const HttpBody::Ptr &body) {
            const auto content = body->readData(body->remainSize());
            std::ostringstream reply;
            reply << "HTTP/1.1 " << status << " OK\r\nContent-Type: application/json\r\nContent-Length: "
                  << content->size() << "\r\n\r\n";
            const std::string text = reply.str() + std::string(content->data(), content->size());
            (void)!send(self->_fd, text.data(), text.size(), MSG_NOSIGNAL);
            sem_post(done.get());
        });
        bool consumed = false;
        NOTICE_EMIT(BroadcastHttpRequestArgs, Broadcast::kBroadcastHttpRequest, parser, invoker, consumed,
                    static_cast<SockInfo &>(*this));
        if (!consumed && !watch(parser.url())) {
            invoker(404, {}, "not found");
        } else if (!consumed) {
            return;
        }
        sem_wait(done.get());
    }

    // A player of "/app/stream.live.flv": waits for the stream, and watches it until either ends. False where there
    // was none to watch.
    bool watch(const std::string &path) {
        const std::string end = ".live.flv";
        const auto slash = path.find('/', 1);
        if (path.size() < end.size() || path.compare(path.size() - end.size(), end.size(), end) != 0
            || slash == std::string::npos) {
            return false;
        }
        const MediaTuple tuple{"__defaultVhost__", path.substr(1, slash - 1),
                               path.substr(slash + 1, path.size() - slash - 1 - end.size())};
        const auto source = awaitStream(tuple, *this);
        if (!source) {
            return false;
        }
        const std::string head = "HTTP/1.1 200 OK\r\nContent-Type: video/x-flv\r\n\r\nFLV";
        (void)!send(_fd, head.data(), head.size(), MSG_NOSIGNAL);
        watchStream(source, _fd);
        shutdown(_fd, SHUT_RDWR);
        return true;
    }

    const int _fd;
    const uint16_t _port;
};

static void listenAt(int port, void (Session::*serve)()) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, reinterpret_cast<sockaddr *>(&address), sizeof(address)) != 0 || listen(fd, 1024) != 0) {
        throw std::runtime_error(std::string("cannot listen: ") + strerror(errno));
    }
    std::thread([fd, serve] {
        while (true) {
            sockaddr_in peer{};
            socklen_t len = sizeof(peer);
            const int client = accept4(fd, reinterpret_cast<sockaddr *>(&peer), &len, SOCK_CLOEXEC);
            if (client >= 0) {
                auto session = std::make_shared<Session>(client, peer);
                std::thread([session, serve] { (session.get()->*serve)(); }).detach();
            }
        }
    }).detach();
}

struct semaphore {
    semaphore() { sem_init(&_sem, 0, 0); }
    void post() { sem_post(&_sem); }
    void wait() {
        while (sem_wait(&_sem) != 0) {
        }
    }
    sem_t _sem;
};
static semaphore sem;

// The guardian: starts a new child three seconds after one has died, and ends with it when told to.
static void becomeDaemon() {
    static pid_t child;
    while (true) {
        child = fork();
        if (child == 0) {
            return;
        }
        signal(SIGINT, [](int) {
            kill(child, SIGINT);
            waitpid(child, nullptr, 0);
            _exit(0);
        });
        signal(SIGTERM, [](int) { raise(SIGINT); });
        waitpid(child, nullptr, 0);
        sleep(3);
    }
}

// What stands for FFmpeg: plays one URL and publishes to the other until either ends.
static int relay(const std::string &from, const std::string &to) {
    sem_t ended;
    sem_init(&ended, 0, 0);
    int taken = -1, given = -1;
    const auto end = [&ended](const std::string &error, int fd, int *into) {
        *into = error.empty() ? fd : -1;
        sem_post(&ended);
    };
    Connector::Instance().connect("PLAY", from, 10000, [&](const std::string &error, int fd) { end(error, fd, &taken); });
    sem_wait(&ended);
    if (taken < 0) {
        return 1;
    }
    Connector::Instance().connect("PUBLISH", to, 10000, [&](const std::string &error, int fd) { end(error, fd, &given); });
    sem_wait(&ended);
    char byte;
    while (given >= 0 && recv(taken, &byte, 1, MSG_DONTWAIT) != 0 && recv(given, &byte, 1, MSG_DONTWAIT) != 0) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return 1;
}

int main(int argc, char **argv) {
    if (argc == 4 && std::string(argv[1]) == "--relay") {
        return relay(argv[2], argv[3]);
    }
    std::string config = exeDir() + "config.ini";
    bool daemon = false;
    for (int option; (option = getopt(argc, argv, "c:ds:l:t:m:")) != -1;) {
        if (option == 'c') {
            config = optarg;
        }
        daemon = daemon || option == 'd';
    }
    signal(SIGPIPE, SIG_IGN);
    if (!mINI::Instance().parseFile(config)) {
        mINI::Instance().dumpFile(config);
    }
    {
        if (daemon) {
            becomeDaemon();
        }
        installWebApi();
        try {
            listenAt(atoi(mINI::Instance()["rtmp.port"].c_str()), &Session::serveRtmp);
            listenAt(atoi(mINI::Instance()["http.port"].c_str()), &Session::serve);
        } catch (const std::exception &error) {
            ErrorL << "Start server failed: " << error.what();
            return -1;
        }
        InfoL << "the stand-in is listening on port " << mINI::Instance()["http.port"];
        signal(SIGINT, [](int) { sem.post(); });
        signal(SIGTERM, [](int) { sem.post(); });
        static const std::string s_config = config;
        signal(SIGHUP, [](int) {
            mINI::Instance().parseFile(s_config);
            NOTICE_EMIT(BroadcastReloadConfigArgs, Broadcast::kBroadcastReloadConfig);
        });
        sem.wait();
    }
    unInstallWebApi();
    // Like the host, it leaves its threads to the end of the process.
    fflush(nullptr);
    _exit(0);
}
