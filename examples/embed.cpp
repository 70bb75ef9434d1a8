// The same as embed.c in C++11, with zlm_journal.hpp.
//
//   c++ embed.cpp $(pkg-config --cflags --libs zlm-journal-mk) -lmk_api
#include <chrono>
#include <cstring>
#include <iostream>
#include <sstream>
#include <string>
#include <thread>

#include "mk_mediakit.h"
#include "zlm_journal.hpp"
#include "zlm_journal_mk.h"

namespace {

zlm_journal::Values camera(size_t number) {
    return {{"vhost", "__defaultVhost__"}, {"app", "live"}, {"stream", "camera" + std::to_string(number)}};
}

std::string keyOf(size_t number) {
    return "__defaultVhost__/live/camera" + std::to_string(number);
}

// Returns when the change is on disk.
void settled(std::future<zlm_journal::Ack> told) {
    const auto ack = told.get();
    if (ack.persisted != ZLM_JOURNAL_PERSISTED) {
        throw zlm_journal::Error(ack.code, ack.error);
    }
}

// The number after the first `name` in the part of the status that begins with `part`.
size_t figure(const std::string &status, const std::string &part, const std::string &name) {
    const auto at = status.find(name, std::min(status.find(part), status.size()));
    return at == std::string::npos ? 0 : std::stoul(status.substr(at + name.size()));
}

void waitUntilPlaying(const zlm_journal::Journal &journal, size_t cameras) {
    while (figure(journal.call("getJournalStatus").get(), "\"now\":", "\"playing\":") != cameras) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    std::cout << "playing " << cameras << std::endl;
}

void run(const std::string &dir, size_t cameras, const std::string &url) {
    auto journal = zlm_journal::open(
        zlm_journal_mk_open, zlm_journal_mk_close, {{"enable", "1"}, {"path", "journal/proxies.db"}}, 4, dir);
    auto there = figure(journal.call("getJournalStatus").get(), "\"proxies\":", "\"enabled\":");
    std::cout << "opened with " << there << std::endl;
    for (; there < cameras; ++there) {
        auto args = camera(there);
        args["url"] = url;
        settled(journal.want("pull", args));
    }
    std::cout << "acknowledged " << there << std::endl;
    waitUntilPlaying(journal, there);
    std::string line;
    while (std::getline(std::cin, line) && line != "close") {
        std::istringstream words(line);
        std::string word, other;
        size_t number = 0;
        words >> word >> number >> other;
        if (word == "update") {
            auto args = camera(number);
            args["url"] = other;
            settled(journal.want("pull", args));
            waitUntilPlaying(journal, there);
        } else if (word == "delete") {
            settled(journal.unwant("pull", keyOf(number)));
            waitUntilPlaying(journal, --there);
        } else if (word == "status") {
            std::cout << journal.call("getJournalStatus").get() << std::endl;
        }
    }
    journal.close();
    std::cout << "closed" << std::endl;
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 4) {
        std::cerr << "usage: embed DIRECTORY CAMERAS URL" << std::endl;
        return 2;
    }
    mk_config config;
    memset(&config, 0, sizeof config);
    config.thread_num = 4;
    config.log_level = 4;
    config.log_mask = LOG_CONSOLE;
    config.ini = "[protocol]\nenable_hls=0\nenable_mp4=0\n";
    mk_env_init(&config);
    mk_events events;
    memset(&events, 0, sizeof events);
    events.on_mk_media_changed = zlm_journal_mk_media_changed;
    mk_events_listen(&events);
    try {
        run(argv[1], std::stoul(argv[2]), argv[3]);
    } catch (const std::exception &error) {
        std::cerr << "embed: " << error.what() << std::endl;
        return 1;
    }
    mk_stop_all_server();
    return 0;
}
