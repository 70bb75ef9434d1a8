// The API that makes, lists and ends proxies. It acts when and on what threads the host's does.
#ifndef ZLM_JOURNAL_STANDIN_PROXIES_H
#define ZLM_JOURNAL_STANDIN_PROXIES_H

namespace standin {

void registProxyApi();
// Takes all proxies down.
void clearProxies();

} // namespace standin

#endif
