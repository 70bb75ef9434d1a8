// The log and the settings of the stand-in.
#ifndef ZLM_JOURNAL_STANDIN_INI_H
#define ZLM_JOURNAL_STANDIN_INI_H

#include <fstream>
#include <iostream>
#include <map>
#include <mutex>
#include <sstream>
#include <string>

#include "toolkit/text.h"

namespace toolkit {

// One whole line to standard output when it goes out of scope.
class LogLine {
public:
    explicit LogLine(char level) { _line << level << ' '; }
    ~LogLine() {
        _line << '\n';
        static std::mutex *mutex = new std::mutex;
        std::lock_guard<std::mutex> lock(*mutex);
        std::cout << _line.str() << std::flush;
    }
    template <typename T>
    LogLine &operator<<(const T &value) {
        _line << value;
        return *this;
    }

private:
    std::ostringstream _line;
};

class mINI : public std::map<std::string, variant> {
public:
    static mINI &Instance() {
        static mINI *ini = new mINI;
        return *ini;
    }

    // Held by whoever changes a setting while pollers run, and to read one. Recursive: a SIGHUP reads the file again on
    // whichever thread it finds.
    static std::recursive_mutex &mutex() {
        static auto *mutex = new std::recursive_mutex;
        return *mutex;
    }

    bool parseFile(const std::string &path) {
        std::lock_guard<std::recursive_mutex> lock(mutex());
        std::ifstream file(path);
        std::string line, section;
        while (std::getline(file, line)) {
            line = trim(line);
            const auto equals = line.find('=');
            if (!line.empty() && line[0] == '[') {
                section = line.substr(1, line.find(']') - 1);
            } else if (!line.empty() && line[0] != '#' && line[0] != ';' && equals != std::string::npos) {
                (*this)[section + "." + trim(line.substr(0, equals))] = trim(line.substr(equals + 1));
            }
        }
        return file.eof();
    }

    void dumpFile(const std::string &path) const {
        std::ofstream file(path);
        std::string section;
        for (const auto &pair : *this) {
            const auto dot = pair.first.find('.');
            if (pair.first.substr(0, dot) != section) {
                section = pair.first.substr(0, dot);
                file << "[" << section << "]\n";
            }
            file << pair.first.substr(dot + 1) << "=" << pair.second << "\n";
        }
    }
};

// A setting as it is now; empty where there is none.
inline variant configured(const std::string &key) {
    std::lock_guard<std::recursive_mutex> lock(mINI::mutex());
    const auto it = mINI::Instance().find(key);
    return it == mINI::Instance().end() ? variant() : it->second;
}

} // namespace toolkit

#define ErrorL ::toolkit::LogLine('E')
#define WarnL ::toolkit::LogLine('W')
#define InfoL ::toolkit::LogLine('I')
#define DebugL ::toolkit::LogLine('D')
#define GET_CONFIG(type, name, key) const type name = ::toolkit::configured(key)

#endif
