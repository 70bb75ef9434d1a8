#include "kind.h"

#include <utility>

#include "Common/MediaSource.h"
#include "Common/config.h"
#include "Util/mini.h"
#include "rust/cxx.h"
#include "zlm-journal/src/ffi/bridge.rs.h"

using namespace toolkit;
using namespace mediakit;

namespace zlm_journal {

std::vector<Kind> Kind::all() {
    std::vector<Kind> all;
    for (const auto &row : kinds()) {
        Kind kind;
        kind.name = std::string(row.name);
        kind.add = std::string(row.add);
        kind.remove = std::string(row.remove);
        kind.list = std::string(row.list);
        kind.find = std::string(row.find);
        for (const auto &argument : row.key_args) {
            kind.key_args.push_back(std::string(argument));
        }
        kind.key_is_stream = row.key_is_stream;
        kind.takes_named_stream = row.takes_named_stream;
        kind.stream_url = std::string(row.stream_url);
        kind.again_is_success = row.again_is_success;
        kind.names_setting = std::string(row.names_setting);
        kind.is_supported = false;
        all.push_back(kind);
    }
    return all;
}

std::string Kind::keyOf(const Args &args) const {
    rust::Vec<rust::String> values;
    for (const auto &argument : key_args) {
        values.push_back(rust::String::lossy(args(argument)));
    }
    return std::string(key_of(name, std::move(values)));
}

std::string Kind::streamOf(const Json::Value &item) const {
    if (key_is_stream) {
        return item["key"].asString();
    }
    if (stream_url.empty() || !item[stream_url].isString()) {
        return "";
    }
    return std::string(stream_here(item[stream_url].asString()));
}

std::string Kind::whatIsMissing(const Args &args) const {
    if (!is_supported) {
        return "this MediaServer lacks one of " + add + ", " + remove + " and " + list;
    }
    if (takes_named_stream
        && !MediaSource::find(args("schema"), args("vhost"), args("app"), args("stream"))) {
        return "the stream that it takes, " + args("schema") + "/" + args("vhost") + "/" + args("app") + "/"
            + args("stream") + ", is not there";
    }
    const std::string setting = names_setting.empty() ? std::string() : args(names_setting);
    if (!setting.empty() && mINI::Instance().find(setting) == mINI::Instance().end()) {
        return "config.ini has no " + setting + ", which its argument " + names_setting
            + " names: put it back, restart the server or call restoreJournal";
    }
    return "";
}

} // namespace zlm_journal
