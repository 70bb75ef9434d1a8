// All classes of the stand-in under ZLMediaKit's names. CMake makes forwarding headers to here. See README.md.
#ifndef ZLM_JOURNAL_STANDIN_H
#define ZLM_JOURNAL_STANDIN_H

#include "media/events.h"
#include "media/http.h"
#include "media/source.h"
#include "toolkit/ini.h"
#include "toolkit/notice.h"
#include "toolkit/poller.h"
#include "toolkit/socket.h"
#include "toolkit/text.h"

#endif
