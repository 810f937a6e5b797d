// The words of CSV (RFC 4180): cells.

#pragma once

#include <cstdint>
#include <cstring>

#include "bytes.hpp"
#include "unicode.hpp"

namespace penstock {

// Where the first of these bytes is that is a delimiter, a control character or beyond ASCII; nullptr if none is.
PENSTOCK_INLINE const char* find_delimiter(Bytes bytes, const char* at, char delimiter) {
    const uint32_t found = highest_bits((bytes == static_cast<uint8_t>(delimiter)) | (bytes - ' ') | bytes);
    return found != 0 ? at + __builtin_ctz(found) : nullptr;
}

// Where the next of those is; `end` if there is none.
inline const char* find_delimiter(const char* at, const char* end, char delimiter) {
    for (; end - at >= 16; at += 16) {
        const char* found = find_delimiter(bytes_at(at), at, delimiter);
        if (found != nullptr) return found;
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
