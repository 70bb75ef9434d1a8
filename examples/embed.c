/* A program that embeds ZLMediaKit through its C API, and whose cameras survive a restart.
 *
 *   embed DIRECTORY CAMERAS URL
 *
 * keeps its journal in DIRECTORY, asks for pulls of URL until there are CAMERAS of them (camera0, camera1, …), and waits until
 * all play. Kill it, start it again, and they are back. From standard input it takes `update N URL`, `delete N`, `status`,
 * and `close`. The program creates no player itself: zlm_journal_mk_open has a host that does.
 *
 *   cc embed.c $(pkg-config --cflags --libs zlm-journal-mk) -lmk_api
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mk_mediakit.h"
#include "zlm_journal_mk.h"

static zlm_journal_handle journal;

static zlm_journal_text text(const char *string) {
    zlm_journal_text result;
    result.data = string;
    result.len = strlen(string);
    return result;
}

static zlm_journal_pair pair(const char *name, const char *value) {
    zlm_journal_pair result;
    result.name = text(name);
    result.value = text(value);
    return result;
}

static void fail(const char *step) {
    char message[512] = "";
    size_t len = 0;
    (void)zlm_journal_last_error(message, sizeof message, &len);
    fprintf(stderr, "embed: %s: %s\n", step, message);
    exit(1);
}

/* ---- what is done later, on another thread */

typedef struct answer {
    pthread_mutex_t mutex;
    pthread_cond_t came;
    int is_there;
    int is_error;
    char *body;
} answer;

static void answer_begin(answer *self) {
    memset(self, 0, sizeof *self);
    pthread_mutex_init(&self->mutex, NULL);
    pthread_cond_init(&self->came, NULL);
}

static void answer_comes(answer *self, zlm_journal_text body, int is_error) {
    char *copy = (char *)malloc(body.len + 1);
    if (copy != NULL && body.len > 0) {
        memcpy(copy, body.data, body.len);
    }
    if (copy != NULL) {
        copy[body.len] = 0;
    }
    pthread_mutex_lock(&self->mutex);
    self->body = copy;
    self->is_error = is_error;
    self->is_there = 1;
    pthread_cond_signal(&self->came);
    pthread_mutex_unlock(&self->mutex);
}

/* Returns the body, which the caller frees. */
static char *answer_wait(answer *self) {
    pthread_mutex_lock(&self->mutex);
    while (!self->is_there) {
        pthread_cond_wait(&self->came, &self->mutex);
    }
    pthread_mutex_unlock(&self->mutex);
    pthread_mutex_destroy(&self->mutex);
    pthread_cond_destroy(&self->came);
    return self->body;
}

static void on_ack(void *context, const zlm_journal_ack *ack) {
    answer_comes((answer *)context, ack->error, ack->persisted != ZLM_JOURNAL_PERSISTED);
}

static void on_reply(void *context, zlm_journal_text content_type, zlm_journal_text body) {
    (void)content_type;
    answer_comes((answer *)context, body, 0);
}

/* ---- what the program asks of the journal */

/* Adds a pull, changes it, or, without a URL, ends it. Returns when that is on disk. */
static void want(size_t number, const char *url) {
    char stream[32];
    zlm_journal_pair args[4];
    zlm_journal_call call;
    answer told;
    snprintf(stream, sizeof stream, "camera%zu", number);
    args[0] = pair("vhost", "__defaultVhost__");
    args[1] = pair("app", "live");
    args[2] = pair("stream", stream);
    args[3] = pair("url", url ? url : "");
    memset(&call, 0, sizeof call);
    call.size = sizeof call;
    call.op = url ? ZLM_JOURNAL_ADD : ZLM_JOURNAL_REMOVE;
    call.kind = text("pull");
    call.args = args;
    call.args_len = url ? 4 : 3;
    call.reason = text("embed");
    answer_begin(&told);
    if (zlm_journal_want(journal, &call, on_ack, &told) != 0) {
        fail("want");
    }
    free(answer_wait(&told));
    if (told.is_error) {
        fprintf(stderr, "embed: it is not on disk\n");
        exit(1);
    }
}

/* The reply of one of the journal's API calls, which the caller frees. */
static char *ask(const char *name) {
    zlm_journal_request request;
    answer reply;
    memset(&request, 0, sizeof request);
    request.size = sizeof request;
    request.name = text(name);
    answer_begin(&reply);
    (void)zlm_journal_api_call(journal, &request, text(""), on_reply, &reply);
    return answer_wait(&reply);
}

/* The number after the first `name` in the part of the status that begins with `part`. */
static size_t figure(const char *status, const char *part, const char *name) {
    const char *at = strstr(status, part);
    at = at ? strstr(at, name) : NULL;
    return at ? (size_t)strtoul(at + strlen(name), NULL, 10) : 0;
}

static void wait_until_playing(size_t cameras) {
    for (;;) {
        char *status = ask("getJournalStatus");
        const size_t playing = figure(status, "\"now\":", "\"playing\":");
        free(status);
        if (playing == cameras) {
            printf("playing %zu\n", playing);
            fflush(stdout);
            return;
        }
        usleep(20000);
    }
}

static void on_log(void *context, uint32_t level, zlm_journal_text line) {
    (void)context;
    fprintf(stderr, "%u %.*s\n", level, (int)line.len, line.data);
}

int main(int argc, char **argv) {
    mk_config config;
    mk_events events;
    zlm_journal_pair settings[2];
    zlm_journal_options options;
    char line[4096];
    size_t cameras, there;
    char *status;
    if (argc != 4) {
        fprintf(stderr, "usage: embed DIRECTORY CAMERAS URL\n");
        return 2;
    }
    cameras = (size_t)strtoul(argv[2], NULL, 10);

    memset(&config, 0, sizeof config);
    config.thread_num = 4;
    config.log_level = 4;
    config.log_mask = LOG_CONSOLE;
    config.ini = "[protocol]\nenable_hls=0\nenable_mp4=0\n";
    mk_env_init(&config);
    memset(&events, 0, sizeof events);
    events.on_mk_media_changed = zlm_journal_mk_media_changed;
    events.on_mk_media_not_found = zlm_journal_mk_media_not_found;
    mk_events_listen(&events);

    (void)zlm_journal_set_log(on_log, NULL);
    settings[0] = pair("enable", "1");
    settings[1] = pair("path", "journal/proxies.db");
    memset(&options, 0, sizeof options);
    options.size = sizeof options;
    options.abi = ZLM_JOURNAL_ABI;
    options.host_threads = 4;
    options.settings = settings;
    options.settings_len = 2;
    options.base_dir = text(argv[1]);
    if (zlm_journal_mk_open(&options, &journal) != 0) {
        fail("open");
    }
    status = ask("getJournalStatus");
    there = figure(status, "\"proxies\":", "\"enabled\":");
    free(status);
    printf("opened with %zu\n", there);
    fflush(stdout);

    for (; there < cameras; ++there) {
        want(there, argv[3]);
    }
    printf("acknowledged %zu\n", there);
    wait_until_playing(there);
    while (fgets(line, sizeof line, stdin) != NULL && strncmp(line, "close", 5) != 0) {
        char url[4000];
        size_t number;
        if (sscanf(line, "update %zu %3999s", &number, url) == 2) {
            want(number, url);
            wait_until_playing(there);
        } else if (sscanf(line, "delete %zu", &number) == 1) {
            want(number, NULL);
            wait_until_playing(--there);
        } else if (strncmp(line, "status", 6) == 0) {
            status = ask("getJournalStatus");
            printf("%s\n", status);
            fflush(stdout);
            free(status);
        }
    }
    if (zlm_journal_mk_close(journal) != 0) {
        fail("close");
    }
    printf("closed\n");
    fflush(stdout);
    mk_stop_all_server();
    return 0;
}
