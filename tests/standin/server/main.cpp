// The stand-in's program: options, ini file, daemon, listeners, signals. See ../README.md.
#include <semaphore.h>
#include <signal.h>
#include <sys/wait.h>

#include "Session.h"
#include "WebApi.h"
#include "WebHook.h"

using namespace toolkit;
using namespace mediakit;

std::string g_ini_file;

static onceToken s_defaults([] {
    auto &ini = mINI::Instance();
    ini["api.secret"] = "035c73f7-bb6b-4889-a715-d9eb2d1925cc";
    ini["ffmpeg.bin"] = exeDir() + "MediaServer";
    ini["ffmpeg.cmd"] = "%s --relay %s %s";
    ini["general.enableVhost"] = "0";
    ini["general.listen_ip"] = "::";
    ini["general.maxStreamWaitMS"] = "15000";
    ini["general.resetWhenRePlay"] = "1";
    ini["general.streamNoneReaderDelayMS"] = "20000";
    ini["hook.enable"] = "0";
    ini["hook.on_stream_none_reader"] = "";
    ini["hook.timeoutSec"] = "10";
    ini["http.allow_ip_range"] = "::1,127.0.0.1";
    ini["http.maxReqSize"] = "40960";
    ini["http.port"] = "80";
    ini["protocol.auto_close"] = "0";
    ini["protocol.enable_fmp4"] = "1";
    ini["protocol.enable_hls"] = "1";
    ini["protocol.enable_hls_fmp4"] = "0";
    ini["protocol.enable_rtmp"] = "1";
    ini["protocol.enable_rtsp"] = "1";
    ini["protocol.enable_ts"] = "1";
    ini["record.appName"] = "record";
    ini["rtmp.port"] = "1935";
});

// Only within 127.0.0.0/8, whatever the ini says.
static void listenAt(int port, Session::Input input) {
    GET_CONFIG(std::string, ip, "general.listen_ip");
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    if (ip.compare(0, 4, "127.") != 0 || inet_pton(AF_INET, ip.c_str(), &address.sin_addr) != 1) {
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    }
    if (bind(fd, reinterpret_cast<sockaddr *>(&address), sizeof(address)) != 0 || listen(fd, 1024) != 0) {
        throw std::runtime_error(std::string("cannot listen: ") + strerror(errno));
    }
    std::thread([fd, input] {
        while (true) {
            sockaddr_in peer{};
            socklen_t len = sizeof(peer);
            const int client = accept4(fd, reinterpret_cast<sockaddr *>(&peer), &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
            if (client >= 0) {
                Session::start(client, peer, input);
            } else {
                // Out of descriptors, most likely.
                std::this_thread::sleep_for(std::chrono::milliseconds(10));
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

// A connection on which the other side has said yes; -1 where it has not.
static int ask(const std::string &verb, const std::string &url) {
    const StreamUrl to(url);
    const int fd = to.good ? socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
    const std::string line = verb + " " + to.path + "\n";
    timeval timeout{10, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    char byte;
    const bool good = connect(fd, reinterpret_cast<const sockaddr *>(&to.address), sizeof(to.address)) == 0
        && send(fd, line.data(), line.size(), MSG_NOSIGNAL) == ssize_t(line.size()) && recv(fd, &byte, 1, 0) == 1;
    return good ? fd : -1;
}

// What stands for FFmpeg: plays one URL and publishes to the other until either ends.
static int relay(const std::string &from, const std::string &to) {
    const int taken = ask("PLAY", from), given = taken < 0 ? -1 : ask("PUBLISH", to);
    char byte;
    while (given >= 0 && recv(taken, &byte, 1, MSG_DONTWAIT) != 0 && recv(given, &byte, 1, MSG_DONTWAIT) != 0) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return 1;
}

// What it does about a crash: it says so, and leaves the rest to the system.
static void onCrash(int number) {
    signal(number, SIG_DFL);
    char text[] = "## signal:    00\n";
    text[14] = static_cast<char>('0' + number / 10);
    text[15] = static_cast<char>('0' + number % 10);
    (void)!write(STDERR_FILENO, text, sizeof(text) - 1);
}

int main(int argc, char **argv) {
    if (argc == 4 && std::string(argv[1]) == "--relay") {
        return relay(argv[2], argv[3]);
    }
    g_ini_file = exeDir() + "config.ini";
    bool daemon = false;
    int threads = 0;
    for (int option; (option = getopt(argc, argv, "c:ds:l:t:m:")) != -1;) {
        if (option == 'c') {
            g_ini_file = optarg;
        } else if (option == 't') {
            threads = atoi(optarg);
        }
        daemon = daemon || option == 'd';
    }
    signal(SIGPIPE, SIG_IGN);
    if (!mINI::Instance().parseFile(g_ini_file)) {
        mINI::Instance().dumpFile(g_ini_file);
    }
    {
        // Forks before there is any other thread.
        if (daemon) {
            becomeDaemon();
        }
        if (threads > 0) {
            EventPollerPool::setPoolSize(threads);
        }
        signal(SIGSEGV, onCrash);
        signal(SIGABRT, onCrash);
        installWebApi();
        standin::installWebHook();
        try {
            listenAt(configured("rtmp.port"), &Session::rtmp);
            listenAt(configured("http.port"), &Session::http);
        } catch (const std::exception &error) {
            ErrorL << "Start server failed: " << error.what();
            return -1;
        }
        InfoL << "the stand-in is listening on port " << configured("http.port");
        signal(SIGINT, [](int) { sem.post(); });
        signal(SIGTERM, [](int) { sem.post(); });
        signal(SIGHUP, [](int) {
            mINI::Instance().parseFile(g_ini_file);
            NOTICE_EMIT(BroadcastReloadConfigArgs, Broadcast::kBroadcastReloadConfig);
        });
        sem.wait();
    }
    unInstallWebApi();
    // Like the host, it leaves its threads to the end of the process.
    fflush(nullptr);
    _exit(0);
}
