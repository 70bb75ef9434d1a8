/* What the C and C++ tests share: a check that says where it failed, borrowed text, an acknowledgement to wait for,
 * and a directory of the test's own. */
#ifndef ZLM_JOURNAL_TEST_CHECK_H
#define ZLM_JOURNAL_TEST_CHECK_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "zlm_journal.h"

#define CHECK(condition)                                                                                                   \
    do {                                                                                                                   \
        if (!(condition)) {                                                                                                \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);                                      \
            exit(1);                                                                                                       \
        }                                                                                                                  \
    } while (0)

static inline zlm_journal_text text(const char *string) {
    zlm_journal_text result;
    result.data = string;
    result.len = strlen(string);
    return result;
}

static inline zlm_journal_pair pair(const char *name, const char *value) {
    zlm_journal_pair result;
    result.name = text(name);
    result.value = text(value);
    return result;
}

typedef struct waiter {
    pthread_mutex_t mutex;
    pthread_cond_t told;
    int times;
    zlm_journal_ack ack;
    char error[256];
    char reply[256];
} waiter;

static inline void waiter_init(waiter *self) {
    memset(self, 0, sizeof *self);
    pthread_mutex_init(&self->mutex, NULL);
    pthread_cond_init(&self->told, NULL);
}

static inline void on_ack(void *context, const zlm_journal_ack *ack) {
    waiter *self = (waiter *)context;
    size_t len = ack->error.len < sizeof self->error - 1 ? ack->error.len : sizeof self->error - 1;
    pthread_mutex_lock(&self->mutex);
    self->ack = *ack;
    if (len > 0) {
        memcpy(self->error, ack->error.data, len);
    }
    self->error[len] = 0;
    self->times += 1;
    pthread_cond_signal(&self->told);
    pthread_mutex_unlock(&self->mutex);
}

static inline void on_client_reply(void *context, zlm_journal_text body, bool more) {
    waiter *self = (waiter *)context;
    size_t len = body.len < sizeof self->reply - 1 ? body.len : sizeof self->reply - 1;
    (void)more;
    pthread_mutex_lock(&self->mutex);
    memcpy(self->reply, body.data, len);
    self->reply[len] = 0;
    self->times += 1;
    pthread_cond_signal(&self->told);
    pthread_mutex_unlock(&self->mutex);
}

static inline void wait_ack(waiter *self) {
    pthread_mutex_lock(&self->mutex);
    while (self->times == 0) {
        pthread_cond_wait(&self->told, &self->mutex);
    }
    pthread_mutex_unlock(&self->mutex);
    CHECK(self->times == 1);
}

/* A fresh directory; the test leaves it to the system to clear /tmp when it fails. */
static inline const char *scratch_dir(void) {
    static char dir[] = "/tmp/zlmj-test-XXXXXX";
    CHECK(mkdtemp(dir) != NULL);
    return dir;
}

static inline int remove_scratch(const char *dir) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

/* Opens the journal of this directory by zlm_journal_open or zlm_journal_mk_open. */
static inline int open_by(
    int32_t (*how)(const zlm_journal_options *, zlm_journal_handle *), const char *dir, zlm_journal_handle *handle) {
    zlm_journal_pair settings[2];
    zlm_journal_options options;
    settings[0] = pair("enable", "1");
    settings[1] = pair("path", "journal/proxies.db");
    memset(&options, 0, sizeof options);
    options.size = sizeof options;
    options.abi = ZLM_JOURNAL_ABI;
    options.host_threads = 2;
    options.settings = settings;
    options.settings_len = 2;
    options.base_dir = text(dir);
    return how(&options, handle);
}

static inline int open_in(const char *dir, zlm_journal_handle *handle) {
    return open_by(zlm_journal_open, dir, handle);
}

static inline zlm_journal_call call_of(uint32_t op, const char *key, const zlm_journal_pair *args, size_t len) {
    zlm_journal_call call;
    memset(&call, 0, sizeof call);
    call.size = sizeof call;
    call.op = op;
    call.kind = text("pull");
    call.key = text(key);
    call.args = args;
    call.args_len = len;
    call.caller = text("127.0.0.1:1234");
    call.reason = text(op == ZLM_JOURNAL_ADD ? "addStreamProxy" : "delStreamProxy");
    return call;
}

#endif
