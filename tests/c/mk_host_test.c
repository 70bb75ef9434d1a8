/* The host over libmk_api.
 *
 *   mk_host_test cycles DIRECTORY TIMES URL
 *   mk_host_test close-while-restoring DIRECTORY TIMES
 *   mk_host_test call-back DIRECTORY URL
 *   mk_host_test ends DIRECTORY URL
 *   mk_host_test push DIRECTORY URL SCHEMA TARGET
 */
#include "mk_mediakit.h"
#include "zlm_journal_mk.h"

#include "check.h"

static void environment(void) {
    mk_config config;
    mk_events events;
    memset(&config, 0, sizeof config);
    config.thread_num = 2;
    config.log_level = 4;
    config.ini = "[protocol]\nenable_hls=0\nenable_mp4=0\n";
    mk_env_init(&config);
    memset(&events, 0, sizeof events);
    events.on_mk_media_changed = zlm_journal_mk_media_changed;
    mk_events_listen(&events);
}

static zlm_journal_handle open_host(const char *dir) {
    zlm_journal_handle handle = 0;
    CHECK(open_by(zlm_journal_mk_open, dir, &handle) == 0 && handle != 0);
    return handle;
}

static zlm_journal_call pull(zlm_journal_pair *args, const char *stream, const char *url) {
    args[0] = pair("vhost", "__defaultVhost__");
    args[1] = pair("app", "live");
    args[2] = pair("stream", stream);
    args[3] = pair("url", url);
    return call_of(ZLM_JOURNAL_ADD, "", args, 4);
}

static long field(const char *name) {
    char line[256];
    long value = -1;
    FILE *file = fopen("/proc/self/status", "r");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, name, strlen(name)) == 0) {
            value = strtol(line + strlen(name) + 1, NULL, 10);
        }
    }
    fclose(file);
    return value;
}

typedef struct status_reply {
    waiter came;
    char body[65536];
} status_reply;

static void on_status(void *context, zlm_journal_text content_type, zlm_journal_text body) {
    status_reply *self = (status_reply *)context;
    const size_t len = body.len < sizeof self->body - 1 ? body.len : sizeof self->body - 1;
    (void)content_type;
    memcpy(self->body, body.data, len);
    self->body[len] = 0;
    on_client_reply(&self->came, body, false);
}

/* Waits until the part `now` of the status has all of these. */
static void wait_for_status(zlm_journal_handle handle, const char *one, const char *other) {
    static status_reply reply;
    for (int tenths = 0; tenths < 600; ++tenths) {
        zlm_journal_request request;
        const char *now;
        memset(&request, 0, sizeof request);
        request.size = sizeof request;
        request.name = text("getJournalStatus");
        waiter_init(&reply.came);
        CHECK(zlm_journal_api_call(handle, &request, text(""), on_status, &reply) == 0);
        wait_ack(&reply.came);
        now = strstr(reply.body, "\"now\":");
        if (now != NULL && strstr(now, one) != NULL && strstr(now, other) != NULL) {
            return;
        }
        usleep(100000);
    }
    fprintf(stderr, "waited in vain for %s and %s in %s\n", one, other, reply.body);
    exit(1);
}

/* The number of threads, once none has ended for a second. */
static long settled_threads(void) {
    long threads = field("Threads:");
    for (int same = 0; same < 10; ++same) {
        usleep(100000);
        if (field("Threads:") != threads) {
            threads = field("Threads:");
            same = 0;
        }
    }
    return threads;
}

/* Waits for threads that are about to end. */
static void wait_for_threads(long expected) {
    for (int tenths = 0; tenths < 100 && field("Threads:") != expected; ++tenths) {
        usleep(100000);
    }
    CHECK(field("Threads:") == expected);
}

static void cycles(const char *dir, int times, const char *url) {
    /* Before the first one, ZLMediaKit has not started all of its own. */
    long threads = 0, memory = 0;
    for (int round = 0; round < times; ++round) {
        zlm_journal_pair args[4];
        zlm_journal_handle handle = open_host(dir);
        zlm_journal_call call = pull(args, round % 2 == 0 ? "even" : "odd", url);
        waiter told;
        waiter_init(&told);
        CHECK(zlm_journal_want(handle, &call, on_ack, &told) == 0);
        wait_ack(&told);
        CHECK(told.ack.persisted == ZLM_JOURNAL_PERSISTED);
        /* Most are closed while they connect. */
        if (round % 10 == 9) {
            wait_for_status(handle, "\"playing\":2", "\"connecting\":0");
        }
        CHECK(zlm_journal_mk_close(handle) == 0);
        CHECK(zlm_journal_mk_close(handle) == ZLM_JOURNAL_CODE_INVALID_HANDLE);
        if (round == 0) {
            threads = settled_threads();
        }
        if (round == 9) {
            memory = field("VmRSS:");
        }
    }
    wait_for_threads(threads);
    CHECK(times < 100 || field("VmRSS:") < 2 * memory);
    printf(
        "%d cycles: %ld threads as after the first; memory %ld kB after 10 of them, then %ld kB\n", times, threads, memory,
        field("VmRSS:"));
}

static void close_while_restoring(const char *dir, int times) {
    for (int round = 0; round < times; ++round) {
        zlm_journal_handle handle = open_host(dir);
        /* Each time a little later. */
        usleep((useconds_t)round * 2000);
        CHECK(zlm_journal_mk_close(handle) == 0);
    }
}

/* Asks for another one, and asks about it, from within the callback of the first. */
typedef struct chain {
    zlm_journal_handle handle;
    const char *url;
    waiter first, second, reply;
} chain;

static void on_chain_reply(void *context, zlm_journal_text content_type, zlm_journal_text body) {
    (void)content_type;
    on_client_reply(&((chain *)context)->reply, body, false);
}

static void on_first(void *context, const zlm_journal_ack *ack) {
    chain *self = (chain *)context;
    zlm_journal_request request;
    zlm_journal_pair args[4];
    zlm_journal_call call = pull(args, "second", self->url);
    bool wanted = false;
    CHECK(zlm_journal_wants(self->handle, text("pull"), text("__defaultVhost__/live/first"), ack->seq, &wanted) == 0);
    CHECK(wanted);
    CHECK(zlm_journal_want(self->handle, &call, on_ack, &self->second) == 0);
    memset(&request, 0, sizeof request);
    request.size = sizeof request;
    request.name = text("getJournalStatus");
    CHECK(zlm_journal_api_call(self->handle, &request, text(""), on_chain_reply, self) == 0);
    on_ack(&self->first, ack);
}

static void call_back(const char *dir, const char *url) {
    zlm_journal_pair args[4];
    zlm_journal_call call = pull(args, "first", url);
    chain calls;
    memset(&calls, 0, sizeof calls);
    waiter_init(&calls.first);
    waiter_init(&calls.second);
    waiter_init(&calls.reply);
    calls.url = url;
    calls.handle = open_host(dir);
    CHECK(zlm_journal_want(calls.handle, &call, on_first, &calls) == 0);
    wait_ack(&calls.first);
    wait_ack(&calls.second);
    wait_ack(&calls.reply);
    CHECK(calls.second.ack.persisted == ZLM_JOURNAL_PERSISTED && calls.second.ack.seq == calls.first.ack.seq + 1);
    CHECK(strstr(calls.reply.reply, "\"code\":0") != NULL);
    CHECK(zlm_journal_mk_close(calls.handle) == 0);
}

static void wanted(zlm_journal_handle handle, const zlm_journal_call *call) {
    waiter told;
    waiter_init(&told);
    CHECK(zlm_journal_want(handle, call, on_ack, &told) == 0);
    wait_ack(&told);
    CHECK(told.ack.persisted == ZLM_JOURNAL_PERSISTED);
}

/* ---- what ends by itself, and is to be forgotten then */

static void wait_until_forgotten(zlm_journal_handle handle, const char *key) {
    bool wanted = true;
    for (int tenths = 0; tenths < 300 && wanted; ++tenths) {
        usleep(100000);
        CHECK(zlm_journal_wants(handle, text("pull"), text(key), 0, &wanted) == 0);
    }
    CHECK(!wanted);
}

static void ends(const char *dir, const char *url) {
    zlm_journal_pair args[5], settings[3];
    zlm_journal_handle handle = open_host(dir);
    zlm_journal_call idle = pull(args, "idle", url), once;
    mk_media_source source = NULL;
    settings[0] = pair("enable", "1");
    settings[1] = pair("path", "journal/proxies.db");
    settings[2] = pair("on_give_up", "forget");
    CHECK(zlm_journal_reload(handle, settings, 3, NULL) == 0);
    wanted(handle, &idle);
    wait_for_status(handle, "\"playing\":1", "\"connecting\":0");
    source = mk_media_source_find2("rtmp", "__defaultVhost__", "live", "idle", 0);
    CHECK(source != NULL);
    /* Closed by the program, without a reason: it comes back. */
    CHECK(mk_media_source_close(source, 1) == 1);
    wait_for_status(handle, "\"playing\":1", "\"revived\":1");
    source = mk_media_source_find2("rtmp", "__defaultVhost__", "live", "idle", 0);
    CHECK(source != NULL);
    zlm_journal_mk_media_no_reader(source);
    CHECK(mk_media_source_close(source, 1) == 1);
    wait_until_forgotten(handle, "__defaultVhost__/live/idle");

    once = pull(args, "once", "rtmp://127.0.0.1:1/live/off");
    args[4] = pair("retry_count", "0");
    once.args_len = 5;
    wanted(handle, &once);
    wait_until_forgotten(handle, "__defaultVhost__/live/once");
    CHECK(zlm_journal_mk_close(handle) == 0);
}

/* What the test does in between: it says when it has. */
static void wait_for_test(const char *said) {
    char line[64];
    puts(said);
    fflush(stdout);
    CHECK(fgets(line, sizeof line, stdin) != NULL);
}

static void push(const char *dir, const char *url, const char *schema, const char *target) {
    zlm_journal_pair args[4], of_push[5];
    zlm_journal_call pulled = pull(args, "first", url), pushed, gone;
    zlm_journal_handle handle = open_host(dir);
    of_push[0] = pair("schema", schema);
    of_push[1] = pair("vhost", "__defaultVhost__");
    of_push[2] = pair("app", "live");
    of_push[3] = pair("stream", "first");
    of_push[4] = pair("dst_url", target);
    pushed = call_of(ZLM_JOURNAL_ADD, "", of_push, 5);
    pushed.kind = text("push");
    /* It waits for its source. */
    wanted(handle, &pushed);
    wait_for_status(handle, "\"blocked\":1", "\"playing\":0");
    wanted(handle, &pulled);
    wait_for_status(handle, "\"blocked\":0", "\"playing\":2");
    wait_for_test("pushes");
    /* The test has taken its target away. */
    wait_for_status(handle, "\"retrying\":1", "\"playing\":1");
    wait_for_test("retries");
    /* And given it back. */
    wait_for_status(handle, "\"retrying\":0", "\"playing\":2");
    gone = pulled;
    gone.op = ZLM_JOURNAL_REMOVE;
    wanted(handle, &gone);
    wait_for_status(handle, "\"playing\":0", "\"kind\":\"push\"");
    wanted(handle, &pulled);
    wait_for_status(handle, "\"blocked\":0", "\"playing\":2");
    CHECK(zlm_journal_mk_close(handle) == 0);
}

int main(int argc, char **argv) {
    CHECK(argc >= 4);
    environment();
    if (strcmp(argv[1], "cycles") == 0) {
        CHECK(argc == 5);
        cycles(argv[2], atoi(argv[3]), argv[4]);
    } else if (strcmp(argv[1], "close-while-restoring") == 0) {
        close_while_restoring(argv[2], atoi(argv[3]));
    } else if (strcmp(argv[1], "ends") == 0) {
        ends(argv[2], argv[3]);
    } else if (strcmp(argv[1], "push") == 0) {
        CHECK(argc == 6);
        push(argv[2], argv[3], argv[4], argv[5]);
    } else {
        call_back(argv[2], argv[3]);
    }
    puts("mk_host_test: passed");
    fflush(stdout);
    /* ZLMediaKit's own threads go with the process. */
    _exit(0);
}
