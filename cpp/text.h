#ifndef ZLM_JOURNAL_TEXT_H
#define ZLM_JOURNAL_TEXT_H

#include <string>
#include <vector>

#include "zlm_journal.h"

namespace zlm_journal {

inline zlm_journal_text textOf(const std::string &string) {
    return zlm_journal_text{string.data(), string.size()};
}

inline std::string stringOf(const zlm_journal_text &text) {
    return std::string(text.data, text.len);
}

// The result refers to the names and values.
template <typename Pairs>
std::vector<zlm_journal_pair> pairsOf(const Pairs &values) {
    std::vector<zlm_journal_pair> pairs;
    pairs.reserve(values.size());
    for (const auto &value : values) {
        pairs.push_back({textOf(value.first), textOf(value.second)});
    }
    return pairs;
}

// What a function that copies a text to a buffer gives; empty if it fails.
template <typename Copy>
std::string textFrom(Copy copy) {
    char buffer[4096] = "";
    size_t len = 0;
    (void)copy(buffer, sizeof(buffer), &len);
    return buffer;
}

inline std::string lastError() {
    return textFrom(zlm_journal_last_error);
}

} // namespace zlm_journal

#endif
