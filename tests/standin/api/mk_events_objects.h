/* The part of ZLMediaKit's C API that the host (cpp/mk_*.cpp) and the examples use, for the stand-in. ZLMediaKit has one
 * header for each of these groups; here mk_mediakit.h and this file have them all. */
#ifndef ZLM_JOURNAL_STANDIN_MK_H
#define ZLM_JOURNAL_STANDIN_MK_H

#include <stddef.h>
#include <stdint.h>

#define API_CALL
#define API_EXPORT __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

typedef void(API_CALL *on_user_data_free)(void *user_data);

/* The environment. */
#define LOG_CONSOLE (1 << 0)
typedef struct {
    int thread_num;
    int log_level;
    int log_mask;
    const char *log_file_path;
    int log_file_days;
    int ini_is_path;
    const char *ini;
    int ssl_is_path;
    const char *ssl;
    const char *ssl_pwd;
} mk_config;
API_EXPORT void API_CALL mk_env_init(const mk_config *config);
API_EXPORT void API_CALL mk_stop_all_server(void);

/* Settings. */
typedef struct mk_ini_t *mk_ini;
API_EXPORT mk_ini API_CALL mk_ini_create(void);
API_EXPORT mk_ini API_CALL mk_ini_default(void);
API_EXPORT void API_CALL mk_ini_release(mk_ini ini);
API_EXPORT void API_CALL mk_ini_set_option(mk_ini ini, const char *key, const char *value);
API_EXPORT const char *API_CALL mk_ini_get_option(mk_ini ini, const char *key);

/* The log. */
API_EXPORT void API_CALL
mk_log_printf(int level, const char *file, const char *function, int line, const char *format, ...);
#define log_error(...) mk_log_printf(4, __FILE__, __FUNCTION__, __LINE__, ##__VA_ARGS__)

/* Sources, and who asks for one. */
typedef struct mk_media_source_t *mk_media_source;
typedef struct mk_media_info_t *mk_media_info;
typedef struct mk_sock_info_t *mk_sock_info;
API_EXPORT const char *API_CALL mk_media_source_get_schema(const mk_media_source source);
API_EXPORT const char *API_CALL mk_media_source_get_vhost(const mk_media_source source);
API_EXPORT const char *API_CALL mk_media_source_get_app(const mk_media_source source);
API_EXPORT const char *API_CALL mk_media_source_get_stream(const mk_media_source source);
API_EXPORT int API_CALL mk_media_source_close(const mk_media_source source, int force);
API_EXPORT mk_media_source API_CALL
mk_media_source_find2(const char *schema, const char *vhost, const char *app, const char *stream, int from_mp4);
API_EXPORT const char *API_CALL mk_media_info_get_vhost(const mk_media_info info);
API_EXPORT const char *API_CALL mk_media_info_get_app(const mk_media_info info);
API_EXPORT const char *API_CALL mk_media_info_get_stream(const mk_media_info info);

/* Events: only those that a program passes on to the journal. */
typedef struct {
    void(API_CALL *on_mk_media_changed)(int regist, const mk_media_source sender);
    int(API_CALL *on_mk_media_not_found)(const mk_media_info url_info, const mk_sock_info sender);
    void(API_CALL *on_mk_media_no_reader)(const mk_media_source sender);
} mk_events;
API_EXPORT void API_CALL mk_events_listen(const mk_events *events);

/* Pulls. */
typedef struct mk_proxy_player_t *mk_proxy_player;
typedef void(API_CALL *on_mk_proxy_player_cb)(void *user_data, int error, const char *what, int system_error);
API_EXPORT mk_proxy_player API_CALL
mk_proxy_player_create4(const char *vhost, const char *app, const char *stream, mk_ini option, int retry_count);
API_EXPORT void API_CALL mk_proxy_player_release(mk_proxy_player player);
API_EXPORT void API_CALL mk_proxy_player_set_option(mk_proxy_player player, const char *key, const char *value);
API_EXPORT void API_CALL mk_proxy_player_play(mk_proxy_player player, const char *url);
API_EXPORT void API_CALL mk_proxy_player_set_on_close2(
    mk_proxy_player player, on_mk_proxy_player_cb callback, void *user_data, on_user_data_free user_data_free);
API_EXPORT void API_CALL mk_proxy_player_set_on_play_result(
    mk_proxy_player player, on_mk_proxy_player_cb callback, void *user_data, on_user_data_free user_data_free);

/* Pushes. */
typedef struct mk_pusher_t *mk_pusher;
typedef void(API_CALL *on_mk_push_event)(void *user_data, int error, const char *what);
API_EXPORT mk_pusher API_CALL mk_pusher_create(const char *schema, const char *vhost, const char *app, const char *stream);
API_EXPORT void API_CALL mk_pusher_release(mk_pusher pusher);
API_EXPORT void API_CALL mk_pusher_set_option(mk_pusher pusher, const char *key, const char *value);
API_EXPORT void API_CALL mk_pusher_publish(mk_pusher pusher, const char *url);
API_EXPORT void API_CALL
mk_pusher_set_on_result2(mk_pusher pusher, on_mk_push_event callback, void *user_data, on_user_data_free user_data_free);
API_EXPORT void API_CALL
mk_pusher_set_on_shutdown2(mk_pusher pusher, on_mk_push_event callback, void *user_data, on_user_data_free user_data_free);

#ifdef __cplusplus
}
#endif

#endif
