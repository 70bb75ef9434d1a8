#ifndef ZLM_JOURNAL_TEXT_H
#define ZLM_JOURNAL_TEXT_H

#include <string>

#include "zlm_journal.h"

namespace zlm_journal {

inline zlm_journal_text textOf(const std::string &string) {
    return zlm_journal_text{string.data(), string.size()};
}

inline std::string stringOf(const zlm_journal_text &text) {
    return std::string(text.data, text.len);
}

inline std::string lastError() {
    char buffer[1024] = "";
    size_t len = 0;
    (void)zlm_journal_last_error(buffer, sizeof(buffer), &len);
    return buffer;
}

} // namespace zlm_journal

#endif
