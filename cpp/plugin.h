// What the parts of the plugin inside MediaServer share. They report events to the journal and do what it asks for.
#ifndef ZLM_JOURNAL_PLUGIN_H
#define ZLM_JOURNAL_PLUGIN_H

#include <memory>
#include <set>
#include <string>

#include "Common/config.h"
#include "api_calls.h"
#include "zlm_journal.h"

namespace zlm_journal {

// Set by open(), before MediaServer listens.
struct Plugin {
    zlm_journal_handle journal = 0;
    // Null if the journal is off; then every call takes its normal way.
    std::unique_ptr<ApiCalls> api;
    // The calls of MediaServer that the journal watches, and those that it answers itself.
    std::set<std::string, mediakit::StrCaseCompare> watched, ours;
};

// Whether MediaServer has an event for each failed connect of a pull.
#ifdef BroadcastPlayerProxyFailedArgs
const bool kTellsFailures = true;
#else
const bool kTellsFailures = false;
#endif

// One object per process; it is never destroyed, because pollers outlive main().
Plugin &plugin();

// intercept.cpp: adds the journal's API calls to MediaServer's, and watches those that the journal has to know of.
void serveCalls();
// page.cpp: answers requests for the journal's page.
void servePage();
// events.cpp: passes MediaServer's events to the journal.
void listenToEvents();
// host.cpp: lets the journal start and end proxies in MediaServer.
void startRestore();

} // namespace zlm_journal

#endif
