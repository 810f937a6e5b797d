// What is UTF-8 and what is not.

#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace penstock {

// Bytes of the character that begins at `at`, of those beyond ASCII (Unicode 15, table 3-7); 0 if it is none.
inline int length_of_character(const char* at, const char* end) {
    auto byte = reinterpret_cast<const unsigned char*>(at);
    const auto left = end - at;
    auto continues = [&](int i) { return (byte[i] & 0xC0) == 0x80; };
    if (byte[0] < 0xC2 || byte[0] > 0xF4) return 0;
    if (byte[0] < 0xE0) return left >= 2 && continues(1) ? 2 : 0;
    const unsigned char lowest = byte[0] == 0xE0 ? 0xA0 : byte[0] == 0xF0 ? 0x90 : 0x80;
    const unsigned char highest = byte[0] == 0xED ? 0x9F : byte[0] == 0xF4 ? 0x8F : 0xBF;
    const int length = byte[0] < 0xF0 ? 3 : 4;
    if (left < length || byte[1] < lowest || byte[1] > highest || !continues(2)) return 0;
    return length == 3 || continues(3) ? length : 0;
}

inline bool is_utf8(std::string_view text) {
    const char *at = text.data(), *end = at + text.size();
    while (at != end) {
        uint64_t word;
        while (end - at >= 8 && (std::memcpy(&word, at, 8), (word & 0x8080808080808080u) == 0)) at += 8;
        if (at == end) break;
        if (static_cast<unsigned char>(*at) < 0x80) {
            ++at;
            continue;
        }
        const int length = length_of_character(at, end);
        if (length == 0) return false;
        at += length;
    }
    return true;
}

}  // namespace penstock
