// The words of CSV (RFC 4180): cells.

#pragma once

#include <cstdint>
#include <cstring>

#include "unicode.hpp"

namespace penstock {

// Where the next delimiter, control character or byte beyond ASCII is; `end` if there is none.
inline const char* find_delimiter(const char* at, const char* end, char delimiter) {
    constexpr uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    const uint64_t delimiters = ones * static_cast<unsigned char>(delimiter);
    while (end - at >= 8) {
        uint64_t word;
        std::memcpy(&word, at, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        word = __builtin_bswap64(word);
#endif
        // A borrow can mark bytes only behind one that is marked rightly, and the first is all that counts.
        const uint64_t differs = word ^ delimiters;
        const uint64_t found = (((differs - ones) & ~differs) | (word - ones * ' ') | word) & tops;
        if (found) return at + __builtin_ctzll(found) / 8;
        at += 8;
    }
    while (at != end && *at != delimiter && static_cast<unsigned char>(*at - ' ') < 0x80 - ' ') ++at;
    return at;
}

// Where a cell without quotes around it ends; nullptr if it has a line end, a NUL, or what is not UTF-8.
inline const char* read_bare_cell(const char* at, const char* end, char delimiter) {
    while (true) {
        at = find_delimiter(at, end, delimiter);
        if (at == end || *at == delimiter) return at;
        if (static_cast<unsigned char>(*at) < 0x80) {
            if (*at == '\r' || *at == '\n' || *at == '\0') return nullptr;
            ++at;
            continue;
        }
        const int length = length_of_character(at, end);
        if (length == 0) return nullptr;
        at += length;
    }
}

inline bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

}  // namespace penstock
