// One kind of proxy as the glue meets it: a row of the table in src/record/kind.rs.
#ifndef ZLM_JOURNAL_KIND_H
#define ZLM_JOURNAL_KIND_H

#include <functional>
#include <string>
#include <vector>

#include <json/json.h>

namespace zlm_journal {

// Arguments of a call by their names.
using Args = std::function<std::string(const std::string &name)>;

struct Kind {
    // See KindRow in src/ffi/bridge.rs.
    std::string name;
    std::string add;
    std::string remove;
    std::string list;
    std::string find;
    std::vector<std::string> key_args;
    bool key_is_stream;
    bool takes_named_stream;
    std::string stream_url;
    bool again_is_success;
    std::string names_setting;

    // This server has the calls that this takes: not every version has all of them.
    bool is_supported;

    static std::vector<Kind> all();

    // The key that the server will give to what these arguments make.
    std::string keyOf(const Args &args) const;
    // The stream of this server with whose end one of the server's list ends: "vhost/app/stream", or empty.
    std::string streamOf(const Json::Value &item) const;
    // Why an add with these arguments can do no good now; empty where it can.
    std::string whatIsMissing(const Args &args) const;
};

} // namespace zlm_journal

#endif
