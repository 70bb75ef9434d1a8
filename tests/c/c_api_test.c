/* The C API as a host uses it: what goes in comes back through the host's callbacks after a restart; misuse is an
 * error, never a crash. */
#define _GNU_SOURCE /* NOLINT(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */
#include "check.h"

#define KEYS 8
#define CALLERS 64
#define ROUNDS 50

typedef struct media {
    zlm_journal_handle handle;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int adds;
    int removes;
    uint64_t call;
    uint64_t seq;
    int replaces;
    char key[KEYS][64];
    char body[KEYS][256];
    char url[256];
} media;

static const zlm_journal_answer accepted = {sizeof accepted, ZLM_JOURNAL_ACCEPTED, 0, {NULL, 0}};
static const zlm_journal_answer refused = {sizeof refused, ZLM_JOURNAL_REPLIED, 0, {"{\"code\":-1}", 11}};
static const zlm_journal_answer no_answer = {sizeof no_answer, 9, 0, {NULL, 0}};

static void copy(char *to, size_t room, zlm_journal_text from) {
    size_t len = from.len < room - 1 ? from.len : room - 1;
    memcpy(to, from.data, len);
    to[len] = 0;
}

static void media_add(void *context, uint64_t call, const zlm_journal_add *add) {
    media *self = (media *)context;
    pthread_mutex_lock(&self->mutex);
    CHECK(self->adds < KEYS);
    copy(self->key[self->adds], sizeof self->key[0], add->key);
    copy(self->body[self->adds], sizeof self->body[0], add->body);
    self->replaces += add->replace;
    for (size_t i = 0; i < add->args_len; ++i) {
        if (add->args[i].name.len == 3 && memcmp(add->args[i].name.data, "url", 3) == 0) {
            copy(self->url, sizeof self->url, add->args[i].value);
        }
    }
    self->adds += 1;
    self->call = call;
    self->seq = add->seq;
    pthread_cond_signal(&self->changed);
    pthread_mutex_unlock(&self->mutex);
}

typedef struct caller_closes {
    zlm_journal_handle handle;
    int closed;
} caller_closes;

static void media_remove(void *context, uint64_t call, zlm_journal_text remove_api, zlm_journal_text key) {
    media *self = (media *)context;
    CHECK(remove_api.len == 14 && memcmp(remove_api.data, "delStreamProxy", 14) == 0 && key.len > 0);
    pthread_mutex_lock(&self->mutex);
    self->removes += 1;
    self->call = call;
    pthread_cond_signal(&self->changed);
    pthread_mutex_unlock(&self->mutex);
}

static void record(
    zlm_journal_handle handle, uint32_t op, const char *key, const zlm_journal_pair *args, size_t len, waiter *told) {
    zlm_journal_call call = call_of(op, key, args, len);
    waiter_init(told);
    CHECK(zlm_journal_record(handle, &call, on_ack, told) == 0);
    wait_ack(told);
}

static void restored_after_restart(const char *dir) {
    bool success = true;
    zlm_journal_handle handle = 0;
    zlm_journal_pair args[3];
    zlm_journal_host host;
    zlm_journal_facts facts;
    uint64_t made;
    media server;
    waiter told;

    args[0] = pair("url", "rtsp://user:p%20w@127.0.0.1/\"1\"");
    args[1] = pair("secret", "035c73f7");
    args[2] = pair("stream", "");
    CHECK(open_in(dir, &handle) == 0 && handle != 0);
    record(handle, ZLM_JOURNAL_ADD, "__defaultVhost__/live/1", args, 3, &told);
    CHECK(told.ack.seq == 1 && told.ack.persisted == ZLM_JOURNAL_PERSISTED && told.ack.code == 0);
    /* The server has it and has left it as it was: so does the journal. */
    record(handle, ZLM_JOURNAL_ADD_EXISTING, "__defaultVhost__/live/1", args + 1, 2, &told);
    CHECK(told.ack.seq == 1 && told.ack.persisted == ZLM_JOURNAL_PERSISTED);
    record(handle, ZLM_JOURNAL_ADD_EXISTING, "__defaultVhost__/live/there", args, 1, &told);
    CHECK(told.ack.seq == 2);
    record(handle, ZLM_JOURNAL_ADD, "__defaultVhost__/live/gone", args, 1, &told);
    record(handle, ZLM_JOURNAL_REMOVE, "__defaultVhost__/live/gone", NULL, 0, &told);
    CHECK(told.ack.seq == 4 && told.ack.persisted == ZLM_JOURNAL_PERSISTED);
    CHECK(zlm_journal_close(handle) == 0);

    memset(&server, 0, sizeof server);
    pthread_mutex_init(&server.mutex, NULL);
    pthread_cond_init(&server.changed, NULL);
    memset(&host, 0, sizeof host);
    host.size = sizeof host;
    host.context = &server;
    CHECK(open_in(dir, &server.handle) == 0 && server.handle != handle);
    /* One is there already: nobody may start it again. */
    CHECK(zlm_journal_made(server.handle, ZLM_JOURNAL_PULL, text("__defaultVhost__/live/there"), &made) == 0);
    CHECK(made == 0);
    CHECK(zlm_journal_start(server.handle, &host) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    host.add = media_add;
    host.remove = media_remove;
    CHECK(zlm_journal_start(server.handle, &host) == 0);
    CHECK(zlm_journal_start(server.handle, &host) == 0);
    args[0] = pair("on_idle_close", "dormant");
    args[1] = pair("revive_sec", "never");
    memset(&facts, 0, sizeof facts);
    facts.size = sizeof facts;
    CHECK(zlm_journal_reload(server.handle, args, 2, &facts) == 0);
    /* A path in GBK, as [protocol] may have. */
    zlm_journal_pair path = {text("mp4_save_path"), text("\xc2\xbc\xcf\xf1")};
    facts.protocol = &path;
    facts.protocol_len = 1;
    CHECK(zlm_journal_reload(server.handle, args, 2, &facts) == 0);
    CHECK(zlm_journal_reload(server.handle, args, 2, NULL) == 0);
    CHECK(zlm_journal_reload(server.handle, NULL, 2, &facts) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    CHECK(zlm_journal_reload(handle, args, 2, &facts) == ZLM_JOURNAL_CODE_INVALID_HANDLE);
    pthread_mutex_lock(&server.mutex);
    while (server.adds == 0) {
        pthread_cond_wait(&server.changed, &server.mutex);
    }
    pthread_mutex_unlock(&server.mutex);
    CHECK(zlm_journal_made(server.handle, ZLM_JOURNAL_PULL, text(server.key[0]), &made) == 0);
    CHECK(made == server.call && server.seq == 1);
    /* A number that is nobody's: what is said of it counts all the same. */
    CHECK(zlm_journal_host_added(server.handle, 4711, &refused, &success) == 0 && !success);
    CHECK(zlm_journal_host_added(server.handle, server.call, &accepted, &success) == 0 && success);
    CHECK(zlm_journal_close(server.handle) == 0);
    CHECK(server.adds == 1);
    CHECK(strcmp(server.key[0], "__defaultVhost__/live/1") == 0);
    CHECK(
        strcmp(server.body[0], "{\"stream\":\"\",\"url\":\"rtsp://user:p%20w@127.0.0.1/\\\"1\\\"\",\"force\":\"1\"}") == 0);
}

/* A host that makes proxies only when it is asked for them. */
static void what_is_wanted_is_asked_of_the_host(const char *dir) {
    zlm_journal_pair args[4];
    zlm_journal_call call;
    zlm_journal_host host;
    uint64_t made;
    bool success;
    media server;
    waiter told;

    memset(&server, 0, sizeof server);
    pthread_mutex_init(&server.mutex, NULL);
    pthread_cond_init(&server.changed, NULL);
    memset(&host, 0, sizeof host);
    host.size = sizeof host;
    host.context = &server;
    host.add = media_add;
    host.remove = media_remove;
    CHECK(open_in(dir, &server.handle) == 0);
    CHECK(zlm_journal_start(server.handle, &host) == 0);
    args[0] = pair("vhost", "__defaultVhost__");
    args[1] = pair("app", "live");
    args[2] = pair("stream", "wanted");
    args[3] = pair("url", "rtsp://127.0.0.1:1/1");
    for (int round = 1; round <= 2; ++round) {
        /* The second time it is changed. */
        args[3] = pair("url", round == 1 ? "rtsp://127.0.0.1:1/1" : "rtsp://127.0.0.1:1/2");
        call = call_of(ZLM_JOURNAL_ADD, "", args, 4);
        waiter_init(&told);
        CHECK(zlm_journal_want(server.handle, &call, on_ack, &told) == 0);
        wait_ack(&told);
        CHECK(told.ack.persisted == ZLM_JOURNAL_PERSISTED && told.ack.size == sizeof told.ack);
        pthread_mutex_lock(&server.mutex);
        while (server.adds < round) {
            pthread_cond_wait(&server.changed, &server.mutex);
        }
        pthread_mutex_unlock(&server.mutex);
        CHECK(strcmp(server.key[round - 1], "__defaultVhost__/live/wanted") == 0);
        CHECK(server.replaces == (round == 2) && strcmp(server.url, args[3].value.data) == 0);
        if (round == 2) {
            CHECK(zlm_journal_ended(server.handle, ZLM_JOURNAL_PULL, text(server.key[0]), server.call) == 0);
        }
        CHECK(zlm_journal_made(server.handle, ZLM_JOURNAL_PULL, text(server.key[0]), &made) == 0);
        CHECK(made == server.call);
        CHECK(zlm_journal_host_added(server.handle, server.call, &accepted, &success) == 0 && success);
    }
    /* What is refused changes nothing, and says so. */
    call = call_of(ZLM_JOURNAL_ADD, "another/key/than", args, 4);
    waiter_init(&told);
    CHECK(zlm_journal_want(server.handle, &call, on_ack, &told) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    CHECK(told.times == 1 && told.ack.code == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    call = call_of(ZLM_JOURNAL_ADD, "", args, 3);
    CHECK(zlm_journal_want(server.handle, &call, NULL, NULL) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    CHECK(strstr(told.error, "__defaultVhost__/live/wanted") != NULL);
    call = call_of(ZLM_JOURNAL_ADD_EXISTING, "", args, 4);
    CHECK(zlm_journal_want(server.handle, &call, NULL, NULL) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);

    call = call_of(ZLM_JOURNAL_REMOVE, "", args, 3);
    waiter_init(&told);
    CHECK(zlm_journal_want(server.handle, &call, on_ack, &told) == 0);
    wait_ack(&told);
    CHECK(told.ack.persisted == ZLM_JOURNAL_PERSISTED);
    pthread_mutex_lock(&server.mutex);
    while (server.removes == 0) {
        pthread_cond_wait(&server.changed, &server.mutex);
    }
    pthread_mutex_unlock(&server.mutex);
    CHECK(zlm_journal_ended(server.handle, ZLM_JOURNAL_PULL, text(server.key[0]), server.call) == 0);
    CHECK(zlm_journal_host_removed(server.handle, server.call) == 0);
    CHECK(zlm_journal_close(server.handle) == 0);
    CHECK(zlm_journal_want(server.handle, &call, NULL, NULL) == ZLM_JOURNAL_CODE_INVALID_HANDLE);
}

/* A host may have been compiled with an older header than the library, or with a newer one. */
static void structs_of_other_versions_are_understood(const char *dir) {
    struct {
        zlm_journal_call known;
        uint64_t later;
    } newer;
    zlm_journal_handle handle = 0;
    zlm_journal_call call;
    zlm_journal_pair arg = pair("url", "rtsp://127.0.0.1/1");
    char path[256];
    size_t len = 0;

    CHECK(open_in(dir, &handle) == 0);
    CHECK(zlm_journal_crash_file(handle, path, sizeof path, &len) == 0 && len == strlen(path));
    CHECK(strstr(path, "/journal/proxies.db.crash") != NULL);
    call = call_of(ZLM_JOURNAL_ADD, "__defaultVhost__/live/versions", &arg, 1);
    call.size = 0;
    CHECK(zlm_journal_record(handle, &call, NULL, NULL) == ZLM_JOURNAL_CODE_VERSION_MISMATCH);
    call.size = sizeof call - 1;
    CHECK(zlm_journal_record(handle, &call, NULL, NULL) == ZLM_JOURNAL_CODE_VERSION_MISMATCH);
    memset(&newer, 0, sizeof newer);
    newer.known = call;
    newer.known.size = sizeof newer;
    CHECK(zlm_journal_record(handle, &newer.known, NULL, NULL) == 0);
    newer.later = 1;
    CHECK(zlm_journal_record(handle, &newer.known, NULL, NULL) == ZLM_JOURNAL_CODE_VERSION_MISMATCH);
    CHECK(zlm_journal_close(handle) == 0);
}

static void misuse_is_an_error(const char *dir) {
    bool success;
    zlm_journal_handle handle = 0;
    zlm_journal_options options;
    zlm_journal_call call;
    zlm_journal_pair bad;
    char buffer[16];
    size_t len = 0;
    bool wanted;
    waiter told;

    CHECK(zlm_journal_open(NULL, &handle) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    memset(&options, 0, sizeof options);
    options.size = sizeof options;
    options.abi = ZLM_JOURNAL_ABI + 1;
    CHECK(zlm_journal_open(&options, &handle) == ZLM_JOURNAL_CODE_VERSION_MISMATCH);
    options.abi = ZLM_JOURNAL_ABI;
    CHECK(zlm_journal_open(&options, &handle) == ZLM_JOURNAL_CODE_DISABLED);
    CHECK(zlm_journal_last_error(buffer, sizeof buffer, &len) == 0);
    CHECK(len == strlen("[journal] enable is 0") && strcmp(buffer, "[journal] enabl") == 0);
    CHECK(zlm_journal_last_error(NULL, 0, &len) == 0);
    CHECK(zlm_journal_last_error(NULL, 1, &len) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    options.settings_len = 1;
    CHECK(zlm_journal_open(&options, &handle) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);

    CHECK(open_in(dir, &handle) == 0);
    CHECK(open_in(dir, NULL) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    waiter_init(&told);
    CHECK(zlm_journal_record(handle, NULL, on_ack, &told) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    wait_ack(&told);
    CHECK(told.ack.persisted == ZLM_JOURNAL_NOT_PERSISTED && told.ack.code == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    CHECK(strcmp(told.error, "call is NULL or misaligned") == 0);

    call = call_of(99, "v/a/s", NULL, 0);
    CHECK(zlm_journal_record(handle, &call, NULL, NULL) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    call = call_of(ZLM_JOURNAL_REMOVE, "v/a/\xff", NULL, 0);
    CHECK(zlm_journal_record(handle, &call, NULL, NULL) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    call = call_of(ZLM_JOURNAL_REMOVE, "v/a/s", NULL, 0);
    call.kind = text("ftp");
    CHECK(zlm_journal_record(handle, &call, NULL, NULL) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    bad = pair("na\xffme", "x");
    call = call_of(ZLM_JOURNAL_ADD, "v/a/s", &bad, 1);
    CHECK(zlm_journal_record(handle, &call, NULL, NULL) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    bad = pair("url", "x");
    bad.value.len = (size_t)-1;
    call = call_of(ZLM_JOURNAL_ADD, "v/a/s", &bad, 1);
    CHECK(zlm_journal_record(handle, &call, NULL, NULL) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    call = call_of(ZLM_JOURNAL_REMOVE, "", NULL, 0);
    waiter_init(&told);
    CHECK(zlm_journal_record(handle, &call, on_ack, &told) == 0);
    wait_ack(&told);
    CHECK(told.ack.code == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);

    CHECK(zlm_journal_wants(handle, text("pull"), text("v/a/s"), 1, NULL) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    CHECK(zlm_journal_host_added(handle, 1, &no_answer, &success) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    CHECK(zlm_journal_host_added(handle, 1, NULL, &success) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    CHECK(zlm_journal_host_blocked(handle, 1, 3) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    CHECK(zlm_journal_host_blocked(handle, 4711, ZLM_JOURNAL_NO_STREAM) == 0);
    CHECK(zlm_journal_host_updated(handle, 4711) == 0);
    CHECK(zlm_journal_close(handle) == 0);

    CHECK(zlm_journal_close(handle) == ZLM_JOURNAL_CODE_INVALID_HANDLE);
    CHECK(zlm_journal_close(0) == ZLM_JOURNAL_CODE_INVALID_HANDLE);
    call = call_of(ZLM_JOURNAL_REMOVE, "v/a/s", NULL, 0);
    waiter_init(&told);
    CHECK(zlm_journal_record(handle, &call, on_ack, &told) == ZLM_JOURNAL_CODE_INVALID_HANDLE);
    wait_ack(&told);
    CHECK(told.ack.persisted == ZLM_JOURNAL_NOT_PERSISTED && told.ack.code == ZLM_JOURNAL_CODE_INVALID_HANDLE);
    CHECK(zlm_journal_wants(handle, text("pull"), text("v/a/s"), 1, &wanted) == ZLM_JOURNAL_CODE_INVALID_HANDLE);
}

static int gone;
static int log_lines;
static char first_error[512];

static void on_log(void *context, uint32_t level, zlm_journal_text line) {
    (void)context;
    if (level == 1 && first_error[0] == 0) {
        copy(first_error, sizeof first_error, line);
    }
    __atomic_add_fetch(&log_lines, 1, __ATOMIC_RELAXED);
}

static void a_bad_journal_is_told_and_keeps_nobody_from_starting(void) {
    zlm_journal_pair settings[2];
    zlm_journal_options options;
    zlm_journal_handle handle = 0;
    zlm_journal_pair args;
    zlm_journal_host host;
    waiter told;

    settings[0] = pair("enable", "1");
    settings[1] = pair("path", "/proc/no/such/place.db");
    memset(&options, 0, sizeof options);
    options.size = sizeof options;
    options.abi = ZLM_JOURNAL_ABI;
    options.settings = settings;
    options.settings_len = 2;
    options.base_dir = text("/");
    CHECK(zlm_journal_set_log(on_log, NULL) == 0);
    CHECK(zlm_journal_open(&options, &handle) == 0);
    CHECK(strstr(first_error, "/proc/no/such") != NULL);
    memset(&host, 0, sizeof host);
    host.size = sizeof host;
    host.add = media_add;
    host.remove = media_remove;
    CHECK(zlm_journal_start(handle, &host) == 0);
    args = pair("url", "rtsp://x");
    record(handle, ZLM_JOURNAL_ADD, "v/a/s", &args, 1, &told);
    CHECK(told.ack.persisted == ZLM_JOURNAL_NOT_PERSISTED && told.ack.code == ZLM_JOURNAL_CODE_STORAGE);
    CHECK(zlm_journal_close(handle) == 0);
    CHECK(zlm_journal_set_log(NULL, NULL) == 0);
}

/* The reply to an API call of the journal's own. */
typedef struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int replies;
    char content_type[64];
    char body[4096];
} client;

static void on_reply(void *context, zlm_journal_text content_type, zlm_journal_text body) {
    client *self = (client *)context;
    pthread_mutex_lock(&self->mutex);
    copy(self->content_type, sizeof self->content_type, content_type);
    copy(self->body, sizeof self->body, body);
    ++self->replies;
    pthread_cond_signal(&self->changed);
    pthread_mutex_unlock(&self->mutex);
}

static int ask(zlm_journal_handle handle, const char *name, const char *body, client *self) {
    zlm_journal_request request;
    int code;
    memset(&request, 0, sizeof request);
    request.size = sizeof request;
    request.name = text(name);
    request.caller = text("10.0.0.9:1");
    self->replies = 0;
    code = zlm_journal_api_call(handle, &request, text(body), on_reply, self);
    pthread_mutex_lock(&self->mutex);
    while (self->replies == 0) {
        pthread_cond_wait(&self->changed, &self->mutex);
    }
    pthread_mutex_unlock(&self->mutex);
    CHECK(self->replies == 1);
    return code;
}

static void api_calls_are_answered(const char *dir) {
    zlm_journal_handle handle = 0;
    client asker;

    memset(&asker, 0, sizeof asker);
    pthread_mutex_init(&asker.mutex, NULL);
    pthread_cond_init(&asker.changed, NULL);
    CHECK(open_in(dir, &handle) == 0);
    CHECK(ask(handle, "getJournalStatus", "", &asker) == 0);
    CHECK(strstr(asker.content_type, "application/json") != NULL);
    CHECK(strstr(asker.body, "\"state\":\"ok\"") != NULL && strstr(asker.body, "\"schema\":5") != NULL);
    CHECK(strstr(asker.body, "/journal/proxies.db\"") != NULL);
    CHECK(strstr(asker.body, "\"phase\":\"not started\"") != NULL);
    CHECK(ask(handle, "getJournalMetrics", "", &asker) == 0);
    CHECK(strstr(asker.content_type, "text/plain") != NULL && strstr(asker.body, "# HELP") == asker.body);
    CHECK(ask(handle, "delStreamProxies", "[\"v/a/none\"]", &asker) == 0);
    CHECK(strstr(asker.body, "\"flag\":false") != NULL);
    /* Nothing is restored before zlm_journal_start. */
    CHECK(ask(handle, "restoreJournal", "", &asker) == 0);
    CHECK(strstr(asker.body, "the server is still starting") != NULL);
    CHECK(ask(handle, "noSuchCall", "", &asker) == 0);
    CHECK(strstr(asker.body, "not an API call") != NULL);
    /* Whatever goes wrong, there is a reply. */
    CHECK(zlm_journal_api_call(handle, NULL, text(""), on_reply, &asker) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    CHECK(asker.replies == 2 && strstr(asker.body, "\"code\":-300") != NULL);
    CHECK(zlm_journal_close(handle) == 0);
    CHECK(ask(handle, "getJournalStatus", "", &asker) == ZLM_JOURNAL_CODE_INVALID_HANDLE);
    CHECK(strstr(asker.body, "closed or never opened") != NULL);
}

/* What no journal can hold is undone where the ini says so: refused, and the server told to end it. */
static void what_cannot_be_journaled_is_undone(const char *dir) {
    zlm_journal_pair settings[3];
    zlm_journal_pair many[10000];
    static char names[10000][16];
    zlm_journal_options options;
    zlm_journal_host host;
    zlm_journal_call call;
    char *huge = (char *)malloc(10 << 20);
    uint64_t made;
    media server;
    waiter told;

    memset(huge, 'x', 10 << 20);
    settings[0] = pair("enable", "1");
    settings[1] = pair("path", "journal/proxies.db");
    settings[2] = pair("on_error", "reject");
    memset(&options, 0, sizeof options);
    options.size = sizeof options;
    options.abi = ZLM_JOURNAL_ABI;
    options.settings = settings;
    options.settings_len = 3;
    options.base_dir = text(dir);
    memset(&server, 0, sizeof server);
    pthread_mutex_init(&server.mutex, NULL);
    pthread_cond_init(&server.changed, NULL);
    memset(&host, 0, sizeof host);
    host.size = sizeof host;
    host.context = &server;
    host.add = media_add;
    host.remove = media_remove;
    CHECK(zlm_journal_open(&options, &server.handle) == 0);
    CHECK(zlm_journal_start(server.handle, &host) == 0);
    CHECK(zlm_journal_made(server.handle, ZLM_JOURNAL_PULL, text("v/live/huge"), &made) == 0);

    many[0] = pair("url", "");
    many[0].value.data = huge;
    many[0].value.len = 10 << 20;
    call = call_of(ZLM_JOURNAL_ADD, "v/live/huge", many, 1);
    waiter_init(&told);
    CHECK(zlm_journal_record(server.handle, &call, on_ack, &told) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    wait_ack(&told);
    CHECK(told.ack.undone && told.ack.persisted == ZLM_JOURNAL_NOT_PERSISTED && told.ack.seq == 0);
    CHECK(strstr(told.error, "maximum that is journaled") != NULL);
    pthread_mutex_lock(&server.mutex);
    while (server.removes == 0) {
        pthread_cond_wait(&server.changed, &server.mutex);
    }
    pthread_mutex_unlock(&server.mutex);
    CHECK(zlm_journal_ended(server.handle, ZLM_JOURNAL_PULL, text("v/live/huge"), server.call) == 0);
    CHECK(zlm_journal_host_removed(server.handle, server.call) == 0);

    /* Many are no trouble as long as they are not too long; any byte goes in a value. */
    for (int n = 0; n < 10000; ++n) {
        snprintf(names[n], sizeof names[n], "arg%d", n);
        many[n] = pair(names[n], "\xff\xfe");
    }
    many[1].value.data = "a\0b";
    many[1].value.len = 3;
    record(server.handle, ZLM_JOURNAL_ADD, "v/live/many", many, 10000, &told);
    CHECK(told.ack.persisted == ZLM_JOURNAL_PERSISTED && !told.ack.undone);
    record(server.handle, ZLM_JOURNAL_REMOVE, "v/live/many", NULL, 0, &told);
    CHECK(told.ack.persisted == ZLM_JOURNAL_PERSISTED);
    CHECK(zlm_journal_close(server.handle) == 0);
    free(huge);
}

static void on_go(void *context) {
    (void)context;
    __atomic_add_fetch(&gone, 1, __ATOMIC_RELAXED);
}

static uint64_t open_call(zlm_journal_handle handle, const char *name, const char *url, waiter *told, uint32_t expected) {
    zlm_journal_pair args[4];
    zlm_journal_request request;
    zlm_journal_client client;
    zlm_journal_verdict verdict = {sizeof verdict, 99, true, 99};

    args[0] = pair("vhost", "__defaultVhost__");
    args[1] = pair("app", "live");
    args[2] = pair("stream", "a");
    args[3] = pair(url != NULL ? "url" : "key", url != NULL ? url : "__defaultVhost__/live/a");
    memset(&request, 0, sizeof request);
    request.size = sizeof request;
    request.name = text(name);
    request.args = args;
    request.args_len = 4;
    request.caller = text("127.0.0.1:1");
    waiter_init(told);
    memset(&client, 0, sizeof client);
    client.size = sizeof client;
    client.context = told;
    client.go = on_go;
    client.done = on_client_reply;
    CHECK(zlm_journal_call_open(handle, &request, &client, &verdict) == 0);
    CHECK(verdict.verdict == expected && (verdict.call != 0) == (expected != ZLM_JOURNAL_PASS));
    CHECK(verdict.settles == (strcmp(name, "close_streams") == 0));
    return verdict.call;
}

static void answer(zlm_journal_handle handle, uint64_t call, const char *body) {
    const zlm_journal_answer replied = {sizeof replied, ZLM_JOURNAL_REPLIED, 0, text(body)};
    CHECK(zlm_journal_call_answered(handle, call, &replied) == 0);
}

/* A client's call counts by what it makes and ends, not by its answer. */
static void calls_count_by_their_effects(const char *dir) {
    const zlm_journal_text key = text("__defaultVhost__/live/a");
    zlm_journal_handle handle = 0;
    zlm_journal_request request;
    zlm_journal_client client;
    zlm_journal_stream stream;
    waiter first, second, closing, deleting;
    zlm_journal_verdict verdict = {sizeof verdict, 0, false, 0};
    uint64_t add, again, close, del, made;
    bool wanted;

    CHECK(open_in(dir, &handle) == 0);
    add = open_call(handle, "addStreamProxy", "rtsp://1", &first, ZLM_JOURNAL_GO);
    again = open_call(handle, "ADDSTREAMPROXY", "rtsp://2", &second, ZLM_JOURNAL_WAIT);
    CHECK(zlm_journal_made(handle, ZLM_JOURNAL_PULL, key, &made) == 0 && gone == 1 && made == 0);
    CHECK(zlm_journal_made(handle, ZLM_JOURNAL_PULL, key, NULL) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    answer(handle, again, "{\"code\":-1}");
    wait_ack(&second);
    CHECK(strcmp(second.reply, "{\"code\":-1}") == 0);
    answer(handle, add, "{\"code\":0}");
    wait_ack(&first);
    CHECK(strstr(first.reply, "{\"code\":0,") == first.reply);
    CHECK(strstr(first.reply, "\"journal\" : {\"seq\":1,\"persisted\":true}") != NULL);
    CHECK(zlm_journal_wants(handle, text("pull"), key, 1, &wanted) == 0 && wanted);

    /* The server ends it by itself: it is wanted all the same. */
    stream.vhost = text("__defaultVhost__");
    stream.app = text("live");
    stream.stream = text("a");
    CHECK(zlm_journal_stream_changed(handle, text("rtsp"), &stream, true) == 0);
    CHECK(zlm_journal_failed(handle, 0, key, text("off")) == 0);
    CHECK(zlm_journal_connected(handle, 0, key) == 0);
    CHECK(zlm_journal_ended(handle, ZLM_JOURNAL_PULL, key, 0) == 0);
    CHECK(zlm_journal_wants(handle, text("pull"), key, 0, &wanted) == 0 && wanted);
    CHECK(zlm_journal_stream_unwatched(handle, &stream) == 0);
    CHECK(zlm_journal_stream_not_found(handle, &stream) == 0);

    /* A close call that hits nothing has nothing to say; a delete counts also for what is not there. */
    close = open_call(handle, "close_streams", NULL, &closing, ZLM_JOURNAL_GO);
    CHECK(zlm_journal_call_answered(handle, close, &accepted) == 0);
    CHECK(closing.times == 0);
    CHECK(zlm_journal_call_settled(handle, close) == 0);
    wait_ack(&closing);
    CHECK(strcmp(closing.reply, "{\"code\":0}") == 0);
    del = open_call(handle, "delStreamProxy", NULL, &deleting, ZLM_JOURNAL_GO);
    CHECK(zlm_journal_call_answered(handle, del, &accepted) == 0);
    wait_ack(&deleting);
    CHECK(strstr(deleting.reply, "\"persisted\":true") != NULL);
    CHECK(zlm_journal_wants(handle, text("pull"), key, 0, &wanted) == 0 && !wanted);

    open_call(handle, "getMediaList", NULL, &first, ZLM_JOURNAL_PASS);
    CHECK(first.times == 0);
    memset(&request, 0, sizeof request);
    request.size = sizeof request;
    memset(&client, 0, sizeof client);
    client.size = sizeof client;
    CHECK(zlm_journal_call_open(handle, NULL, &client, &verdict) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    CHECK(zlm_journal_call_open(handle, &request, &client, &verdict) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    CHECK(zlm_journal_made(handle, 3, key, &made) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    CHECK(zlm_journal_ended(handle, 77, key, 0) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    CHECK(zlm_journal_stream_changed(handle, text("rtsp"), NULL, true) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    CHECK(zlm_journal_call_answered(handle, 4711, &accepted) == 0);
    CHECK(zlm_journal_call_answered(handle, 4711, &no_answer) == ZLM_JOURNAL_CODE_INVALID_ARGUMENT);
    CHECK(zlm_journal_close(handle) == 0);
    CHECK(zlm_journal_made(handle, ZLM_JOURNAL_PULL, key, &made) == ZLM_JOURNAL_CODE_INVALID_HANDLE);
}

static void *close_it(void *context) {
    caller_closes *self = (caller_closes *)context;
    int result = zlm_journal_close(self->handle);
    CHECK(result == 0 || result == ZLM_JOURNAL_CODE_INVALID_HANDLE);
    __atomic_add_fetch(&self->closed, result == 0, __ATOMIC_RELAXED);
    return NULL;
}

static void many_may_close_and_nobody_has_to(const char *dir) {
    pthread_t threads[8];
    caller_closes closing = {0, 0};
    zlm_journal_pair args = pair("url", "rtsp://x");
    zlm_journal_handle never_closed = 0;
    waiter told;
    char other[64];

    CHECK(open_in(dir, &closing.handle) == 0);
    for (int n = 0; n < 8; ++n) {
        CHECK(pthread_create(&threads[n], NULL, close_it, &closing) == 0);
    }
    for (int n = 0; n < 8; ++n) {
        pthread_join(threads[n], NULL);
    }
    CHECK(closing.closed >= 1);
    /* The process ends with this one open: what it acknowledged is on disk all the same. */
    snprintf(other, sizeof other, "%s/other", dir);
    CHECK(open_in(other, &never_closed) == 0);
    record(never_closed, ZLM_JOURNAL_ADD, "v/live/1", &args, 1, &told);
    CHECK(told.ack.persisted == ZLM_JOURNAL_PERSISTED);
}

typedef struct caller {
    zlm_journal_handle handle;
    int number;
} caller;

static void *call_around(void *context) {
    caller *self = (caller *)context;
    zlm_journal_pair args = pair("url", "rtsp://x");
    char key[64];
    for (int round = 0; round < ROUNDS; ++round) {
        waiter told;
        zlm_journal_call call;
        snprintf(key, sizeof key, "v/%d/%d", self->number, round);
        call = call_of(ZLM_JOURNAL_ADD, key, &args, 1);
        waiter_init(&told);
        (void)zlm_journal_record(self->handle, &call, on_ack, &told);
        /* Told exactly once, whether the journal was open, closing or closed. */
        wait_ack(&told);
    }
    return NULL;
}

static void closing_in_the_middle_leaves_no_caller_waiting(const char *dir) {
    pthread_t threads[CALLERS];
    caller callers[CALLERS];
    zlm_journal_handle handle = 0;
    CHECK(open_in(dir, &handle) == 0);
    for (int n = 0; n < CALLERS; ++n) {
        callers[n].handle = handle;
        callers[n].number = n;
        CHECK(pthread_create(&threads[n], NULL, call_around, &callers[n]) == 0);
    }
    usleep(20000);
    CHECK(zlm_journal_close(handle) == 0);
    for (int n = 0; n < CALLERS; ++n) {
        pthread_join(threads[n], NULL);
    }
}

int main(void) {
    const char *dir = scratch_dir();
    char other[64];
    restored_after_restart(dir);
    misuse_is_an_error(dir);
    a_bad_journal_is_told_and_keeps_nobody_from_starting();
    closing_in_the_middle_leaves_no_caller_waiting(dir);
    snprintf(other, sizeof other, "%s/reject", dir);
    what_cannot_be_journaled_is_undone(other);
    snprintf(other, sizeof other, "%s/calls", dir);
    calls_count_by_their_effects(other);
    snprintf(other, sizeof other, "%s/api", dir);
    api_calls_are_answered(other);
    snprintf(other, sizeof other, "%s/wanted", dir);
    what_is_wanted_is_asked_of_the_host(other);
    snprintf(other, sizeof other, "%s/versions", dir);
    structs_of_other_versions_are_understood(other);
    many_may_close_and_nobody_has_to(dir);
    CHECK(remove_scratch(dir) == 0);
    puts("c_api_test: 10 passed");
    return 0;
}
