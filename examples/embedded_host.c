/* A media server in one page that keeps its proxies in memory alone, as ZLMediaKit does, with a journal behind it.
 *
 *   embedded_host DIRECTORY PROXIES
 *
 * opens the journal in DIRECTORY, lets it restore what it has, adds proxies until PROXIES of them are there, and then
 * waits to be killed. Each step is a line on standard output. The whole use of the C API is in here.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "zlm_journal.h"

/* ---- the server's own state: keys of running proxies */

typedef struct server {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    zlm_journal_handle journal;
    char **keys;
    size_t count;
    size_t capacity;
    size_t acknowledged;
    int restored;
} server;

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
    fprintf(stderr, "embedded_host: %s: %s\n", step, message);
    exit(1);
}

static void server_insert(server *self, const char *key, size_t len) {
    char *copy;
    uint64_t call;
    if (self->count == self->capacity) {
        fprintf(stderr, "embedded_host: more proxies than it was made for\n");
        exit(1);
    }
    copy = (char *)malloc(len + 1);
    if (copy == NULL) {
        exit(1);
    }
    memcpy(copy, key, len);
    copy[len] = 0;
    self->keys[self->count] = copy;
    self->count += 1;
    /* The journal is told under the lock of the map, so that it knows the order of what happens. */
    if (zlm_journal_made(self->journal, ZLM_JOURNAL_PULL, text(copy), &call) != 0) {
        fail("made");
    }
}

/* ---- what the journal asks of the server */

static const zlm_journal_answer accepted = {sizeof accepted, ZLM_JOURNAL_ACCEPTED, 0, {NULL, 0}};

static void host_add(void *context, uint64_t call, const zlm_journal_add *add) {
    server *self = (server *)context;
    bool success;
    /* A real server would connect here, on a thread of its own, with the options in add->body. */
    pthread_mutex_lock(&self->mutex);
    server_insert(self, add->key.data, add->key.len);
    pthread_mutex_unlock(&self->mutex);
    (void)zlm_journal_host_added(self->journal, call, &accepted, &success);
}

static void host_remove(void *context, uint64_t call, zlm_journal_text remove_api, zlm_journal_text key) {
    /* Only what is undone (on_error=reject) or changed by syncJournal and its like, which this server does not have. */
    server *self = (server *)context;
    (void)remove_api;
    (void)key;
    (void)zlm_journal_host_removed(self->journal, call);
}

static void on_log(void *context, uint32_t level, zlm_journal_text line) {
    server *self = (server *)context;
    static const char done[] = "journal: restored";
    (void)level;
    printf("  %.*s\n", (int)line.len, line.data);
    fflush(stdout);
    if (line.len >= sizeof done - 1 && memcmp(line.data, done, sizeof done - 1) == 0) {
        pthread_mutex_lock(&self->mutex);
        self->restored = 1;
        pthread_cond_signal(&self->changed);
        pthread_mutex_unlock(&self->mutex);
    }
}

/* ---- a call of a client */

static void on_durable(void *context, const zlm_journal_ack *ack) {
    server *self = (server *)context;
    if (ack->persisted != ZLM_JOURNAL_PERSISTED) {
        fprintf(stderr, "embedded_host: not persisted: %.*s\n", (int)ack->error.len, ack->error.data);
        exit(1);
    }
    /* Here a real server sends its reply. */
    pthread_mutex_lock(&self->mutex);
    self->acknowledged += 1;
    pthread_cond_signal(&self->changed);
    pthread_mutex_unlock(&self->mutex);
}

static void add_proxy(server *self, size_t number) {
    char key[64], url[64], stream[32];
    zlm_journal_pair args[4];
    zlm_journal_call call;
    snprintf(stream, sizeof stream, "camera%zu", number);
    snprintf(key, sizeof key, "__defaultVhost__/live/%s", stream);
    snprintf(url, sizeof url, "rtsp://127.0.0.1:554/%s", stream);
    args[0] = pair("vhost", "__defaultVhost__");
    args[1] = pair("app", "live");
    args[2] = pair("stream", stream);
    args[3] = pair("url", url);
    memset(&call, 0, sizeof call);
    call.size = sizeof call;
    call.op = ZLM_JOURNAL_ADD;
    call.kind = text("pull");
    call.key = text(key);
    call.args = args;
    call.args_len = 4;
    call.caller = text("127.0.0.1:0");
    call.reason = text("addStreamProxy");
    pthread_mutex_lock(&self->mutex);
    server_insert(self, key, strlen(key));
    if (zlm_journal_record(self->journal, &call, on_durable, self) != 0) {
        fail("record");
    }
    pthread_mutex_unlock(&self->mutex);
}

int main(int argc, char **argv) {
    static server self;
    zlm_journal_pair settings[2];
    zlm_journal_options options;
    zlm_journal_host host;
    size_t proxies, before, number;

    if (argc != 3) {
        fprintf(stderr, "usage: embedded_host DIRECTORY PROXIES\n");
        return 2;
    }
    proxies = (size_t)strtoul(argv[2], NULL, 10);
    pthread_mutex_init(&self.mutex, NULL);
    pthread_cond_init(&self.changed, NULL);
    self.capacity = proxies;
    self.keys = (char **)calloc(proxies + 1, sizeof *self.keys);
    if (self.keys == NULL) {
        return 1;
    }

    (void)zlm_journal_set_log(on_log, &self);
    settings[0] = pair("enable", "1");
    settings[1] = pair("path", "proxies.db");
    memset(&options, 0, sizeof options);
    options.size = sizeof options;
    options.abi = ZLM_JOURNAL_ABI;
    options.host_threads = 4;
    options.settings = settings;
    options.settings_len = 2;
    options.base_dir = text(argv[1]);
    if (zlm_journal_open(&options, &self.journal) != 0) {
        fail("open");
    }
    memset(&host, 0, sizeof host);
    host.size = sizeof host;
    host.context = &self;
    host.add = host_add;
    host.remove = host_remove;
    if (zlm_journal_start(self.journal, &host) != 0) {
        fail("start");
    }
    pthread_mutex_lock(&self.mutex);
    while (!self.restored) {
        pthread_cond_wait(&self.changed, &self.mutex);
    }
    before = self.count;
    pthread_mutex_unlock(&self.mutex);
    printf("running %zu\n", before);
    fflush(stdout);

    for (number = before; number < proxies; ++number) {
        add_proxy(&self, number);
    }
    pthread_mutex_lock(&self.mutex);
    while (self.acknowledged < proxies - before) {
        pthread_cond_wait(&self.changed, &self.mutex);
    }
    pthread_mutex_unlock(&self.mutex);
    printf("acknowledged %zu\n", self.acknowledged);
    fflush(stdout);

    while (getchar() != EOF) {
    }
    (void)zlm_journal_close(self.journal);
    return 0;
}
