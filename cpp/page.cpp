// Answers requests for the journal's page. Decides nothing.
#include "Http/HttpFileManager.h"
#include "Util/NoticeCenter.h"
#include "Util/logger.h"
#include "plugin.h"
#include "text.h"

using namespace toolkit;
using namespace mediakit;

namespace zlm_journal {

namespace {

struct Visitor {
    const Invoker &invoker;
    bool is_answered;

    static void respond(
        void *context, uint32_t status, const zlm_journal_pair *headers, size_t headers_len, zlm_journal_text body) {
        auto *const visitor = static_cast<Visitor *>(context);
        Headers out;
        for (size_t n = 0; n < headers_len; ++n) {
            out[stringOf(headers[n].name)] = stringOf(headers[n].value);
        }
        visitor->invoker(static_cast<int>(status), out, stringOf(body));
        visitor->is_answered = true;
    }
};

} // namespace

void servePage() {
    NoticeCenter::Instance().addListener(&plugin(), Broadcast::kBroadcastHttpRequest, [](BroadcastHttpRequestArgs) {
        // To an address that may not call the API, there is no page. The server answers HEAD by itself.
        if (consumed || parser.method() != "GET" || !HttpFileManager::isIPAllowed(sender.get_peer_ip())) {
            return;
        }
        Visitor visitor{invoker, false};
        const int code = zlm_journal_page(
            plugin().journal, textOf(parser.url()), textOf(parser["If-None-Match"]), Visitor::respond, &visitor);
        if (code != 0 && code != ZLM_JOURNAL_CODE_INVALID_HANDLE) {
            ErrorL << "journal: the page cannot be shown: " << lastError();
        }
        consumed = visitor.is_answered;
    });
}

} // namespace zlm_journal
