// Text of the stand-in: trimming, MD5, values that are text, addresses, and the few small things of ZLToolKit's util.h.
#ifndef ZLM_JOURNAL_STANDIN_TEXT_H
#define ZLM_JOURNAL_STANDIN_TEXT_H

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <strings.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

namespace toolkit {

// Runs the one now and the other when it goes.
class onceToken {
public:
    explicit onceToken(const std::function<void()> &now, std::function<void()> last = nullptr)
        : _last(std::move(last)) {
        if (now) {
            now();
        }
    }
    ~onceToken() {
        if (_last) {
            _last();
        }
    }
    onceToken(const onceToken &) = delete;

private:
    std::function<void()> _last;
};

inline std::string exeDir() {
    char path[4096];
    const ssize_t len = readlink("/proc/self/exe", path, sizeof(path));
    const std::string exe(path, len > 0 ? len : 0);
    return exe.substr(0, exe.rfind('/') + 1);
}

inline std::string trim(const std::string &text) {
    const char *blanks = " \t\r\n";
    const auto begin = text.find_first_not_of(blanks);
    return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(blanks) - begin + 1);
}

inline std::vector<std::string> split(const std::string &text, char at) {
    std::vector<std::string> parts;
    std::istringstream rest(text);
    for (std::string part; std::getline(rest, part, at);) {
        if (!part.empty()) {
            parts.push_back(part);
        }
    }
    return parts;
}

// A text that turns into whatever it is read as; what cannot be read is 0.
struct variant : std::string {
    variant(const std::string &text = std::string())
        : std::string(text) {}
    variant(const char *text)
        : std::string(text) {}
    template <typename T, typename = typename std::enable_if<std::is_arithmetic<T>::value>::type>
    variant(T number)
        : std::string(std::to_string(number)) {}

    template <typename T>
    operator T() const {
        return as<T>();
    }

    template <typename T>
    typename std::enable_if<std::is_class<T>::value, T>::type as() const {
        return T(static_cast<const std::string &>(*this));
    }
    template <typename T>
    typename std::enable_if<!std::is_class<T>::value, T>::type as() const {
        T value = T();
        std::istringstream text(*this);
        return text >> value ? value : T();
    }
};

template <>
inline bool variant::as<bool>() const {
    return strcasecmp(c_str(), "true") == 0 || atof(c_str()) != 0;
}

// RFC 1321.
class MD5 {
public:
    explicit MD5(const std::string &text) {
        std::string padded = text + char(0x80);
        padded.append((120 - padded.size() % 64) % 64, 0);
        for (int n = 0; n < 8; ++n) {
            padded += char(uint64_t(text.size()) * 8 >> 8 * n);
        }
        for (size_t at = 0; at < padded.size(); at += 64) {
            block(reinterpret_cast<const unsigned char *>(padded.data()) + at);
        }
    }
    std::string hexdigest() const {
        std::string hex;
        for (int n = 0; n < 16; ++n) {
            char pair[3];
            snprintf(pair, sizeof(pair), "%02x", _state[n / 4] >> 8 * (n % 4) & 0xff);
            hex += pair;
        }
        return hex;
    }

private:
    void block(const unsigned char *bytes) {
        static const int turns[4][4] = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};
        uint32_t a = _state[0], b = _state[1], c = _state[2], d = _state[3];
        for (int n = 0; n < 64; ++n) {
            uint32_t mixed;
            int word;
            switch (n / 16) {
                case 0:
                    mixed = (b & c) | (~b & d);
                    word = n;
                    break;
                case 1:
                    mixed = (d & b) | (~d & c);
                    word = (5 * n + 1) % 16;
                    break;
                case 2:
                    mixed = b ^ c ^ d;
                    word = (3 * n + 5) % 16;
                    break;
                default:
                    mixed = c ^ (b | ~d);
                    word = 7 * n % 16;
                    break;
            }
            const unsigned char *at = bytes + 4 * word;
            const uint32_t part = at[0] | at[1] << 8 | at[2] << 16 | uint32_t(at[3]) << 24;
            const uint32_t sum = a + mixed + part + uint32_t(int64_t(std::fabs(std::sin(n + 1.0)) * 4294967296.0));
            const int by = turns[n / 16][n % 4];
            a = d;
            d = c;
            c = b;
            b += sum << by | sum >> (32 - by);
        }
        _state[0] += a;
        _state[1] += b;
        _state[2] += c;
        _state[3] += d;
    }

    uint32_t _state[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
};

struct SockUtil {
    // Name and address of each network device of this machine.
    static std::vector<std::map<std::string, std::string>> getInterfaceList() {
        std::vector<std::map<std::string, std::string>> devices;
        ifaddrs *all = nullptr;
        (void)getifaddrs(&all);
        for (ifaddrs *one = all; one; one = one->ifa_next) {
            char ip[INET_ADDRSTRLEN];
            if (one->ifa_addr && one->ifa_addr->sa_family == AF_INET
                && inet_ntop(AF_INET, &reinterpret_cast<sockaddr_in *>(one->ifa_addr)->sin_addr, ip, sizeof(ip))) {
                devices.push_back({{"name", one->ifa_name}, {"ip", ip}});
            }
        }
        freeifaddrs(all);
        return devices;
    }
};

} // namespace toolkit

#endif
