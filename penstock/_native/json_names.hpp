// Names that come again: known by how they look, so that nothing of them has to be read.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "bytes.hpp"
#include "inline.hpp"

namespace penstock {

struct ShownName {
    std::string_view text;
    Bytes shown{};          // the first bytes of it as most write it, with quotes and colon
    uint32_t n_shown = 0;   // of how many in all
    uint32_t wanted = ~0u;  // which of `shown` there are; bytes that there cannot be: it is written otherwise

    // To be called once it has the place where it stays.
    void show() {
        // It was valid UTF-8 when it was read; what is left is what only an escape can bring in.
        for (const char c : text) {
            if (c == '"' || c == '\\' || static_cast<unsigned char>(c) < ' ') return;
        }
        const std::string whole = '"' + std::string(text) + "\":";
        const size_t n_bytes = std::min(whole.size(), sizeof shown);
        std::memcpy(&shown, whole.data(), n_bytes);
        n_shown = static_cast<uint32_t>(whole.size());
        wanted = (1u << n_bytes) - 1;
    }

    // Whether it is what begins at `at`.
    PENSTOCK_INLINE bool is_at(const char* at, const char* limit) const {
        if (limit - at < 16 || (highest_bits(bytes_at(at) == shown) & wanted) != wanted) return false;
        return n_shown <= 16 || is_long_at(at, limit);
    }

    bool is_long_at(const char* at, const char* limit) const {
        return limit - at >= n_shown && std::memcmp(at + 1, text.data(), text.size()) == 0 &&
               std::memcmp(at + 1 + text.size(), "\":", 2) == 0;
    }
};

}  // namespace penstock
