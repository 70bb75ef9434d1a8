// The running pulls, and how to give one of them other arguments in place. Decides nothing.
#ifndef ZLM_JOURNAL_PULLS_H
#define ZLM_JOURNAL_PULLS_H

#include <functional>
#include <memory>
#include <string>

#include "Network/Socket.h"
#include "Player/PlayerProxy.h"
#include "Poller/EventPoller.h"
#include "Util/mini.h"

namespace zlm_journal {
namespace pulls {

// Whether this MediaServer can; 8.0 cannot.
bool canUpdate();

// A pull has entered MediaServer's map, or left it. Called under the map's mutex.
void entered(const std::string &key, mediakit::PlayerProxy &pull);
void left(const std::string &key);
// Null if there is none.
toolkit::EventPoller::Ptr pollerOf(const std::string &key);
// Null if there is none on this thread: whoever holds a pull last destroys it, which must be done on its poller.
std::shared_ptr<mediakit::PlayerProxy> find(const std::string &key);

// On the pull's poller: lets it connect anew, to this URL. `updated` is called when it has the new arguments, `connected`
// once with the result of its first connect.
void update(
    const std::shared_ptr<mediakit::PlayerProxy> &pull, const std::string &url, const toolkit::mINI &args,
    const std::function<void()> &updated, const std::function<void(const toolkit::SockException &)> &connected);

} // namespace pulls
} // namespace zlm_journal

#endif
