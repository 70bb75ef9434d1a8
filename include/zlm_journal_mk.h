/*
 * zlm-journal: a ready host for programs that embed ZLMediaKit through its C API (libmk_api).
 *
 * It makes the pulls (mk_proxy_player) and pushes (mk_pusher) that the journal asks for, tells the journal what becomes of
 * them, and makes them anew after a restart. A program asks for them by zlm_journal_want, or by the API calls of the journal
 * (zlm_journal_api_call); it does not create players for them itself.
 *
 * Life cycle: mk_env_init, zlm_journal_mk_open; then zlm_journal_want and whatever else zlm_journal.h has, with the same
 * handle; zlm_journal_mk_close. Not zlm_journal_start and zlm_journal_close, nor what that header has for a host to report.
 * Before it is opened, the program installs zlm_journal_mk_media_changed in its mk_events, and the two others if it likes.
 * A source that the program itself closes (mk_media_source_close) comes back, as one that has failed does: to end a proxy, take
 * it out of the journal, by zlm_journal_want.
 * Threads: every function may be called from any thread, also from callbacks of libmk_api and of the journal, but for
 * zlm_journal_mk_close. The host has one thread of its own, on which it creates and starts players.
 * Results and texts: as in zlm_journal.h.
 *
 * FFmpeg sources are not in ZLMediaKit's C API: they stay in the journal, as blocked. A pull that is changed is replaced, as
 * libmk_api cannot give a player another URL. A push reconnects by the host, after 2 to 60 seconds and `retry_count` times
 * (default -1: for ever), as a MediaServer's does.
 */

#ifndef ZLM_JOURNAL_MK_H
#define ZLM_JOURNAL_MK_H

#include "mk_events_objects.h"
#include "zlm_journal.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 Opens a journal as zlm_journal_open does, sets `*handle`, and begins its restore. If `options->facts` is NULL, they are
 taken from ZLMediaKit's settings as they are now. Call it after mk_env_init and mk_events_listen. Blocks on the disk.
 ZLM_JOURNAL_CODE_PANIC also if there is no thread or memory for the host.
 */
int32_t zlm_journal_mk_open(const zlm_journal_options *options, zlm_journal_handle *handle);

/*
 Closes the journal as zlm_journal_close does, and then releases all players and pushers that it has made. When this returns,
 no callback of theirs runs any more. Blocks on the disk, and for up to ten seconds on ZLMediaKit's threads: do not call it
 on one of these. What the journal has is not changed by this: the next start has it all again.
 */
int32_t zlm_journal_mk_close(zlm_journal_handle handle);

/*
 mk_events.on_mk_media_changed, or called by the program's own: a media source was registered (`regist` 1) or unregistered.
 Necessary: without it, no pull is known to play, and one with backup URLs goes from one to the next.
 */
void zlm_journal_mk_media_changed(int regist, const mk_media_source sender);

/*
 mk_events.on_mk_media_not_found, or called by the program's own: a player waits for a source that is not there. Starts the
 proxy that makes it, if the journal has one that is dormant or waits for its turn. Returns 0: the player may wait.
 */
int zlm_journal_mk_media_not_found(const mk_media_info url_info, const mk_sock_info sender);

/*
 Nobody watches a source, and it is closed for that reason: call it right before mk_media_source_close, or, with
 `auto_close`, have it as mk_events.on_mk_media_no_reader. The journal then does as `on_idle_close` says: it forgets the
 proxy, or starts it again when a player asks. Do not call it if the source is not closed: a later end would be taken for that.
 */
void zlm_journal_mk_media_no_reader(const mk_media_source sender);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* ZLM_JOURNAL_MK_H */
