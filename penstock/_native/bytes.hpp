// Bytes of text, several at a time.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "inline.hpp"

namespace penstock {

// Eight bytes, the first one lowest.
inline uint64_t word_at(const char* at) {
    uint64_t word;
    std::memcpy(&word, at, sizeof word);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

// Sixteen bytes, of which all bits are set or none where a comparison holds or not.
typedef uint8_t Bytes __attribute__((vector_size(16)));

PENSTOCK_INLINE Bytes bytes_at(const char* at) {
    Bytes bytes;
    std::memcpy(&bytes, at, sizeof bytes);
    return bytes;
}

// The highest bit of each, that of the first one lowest.
PENSTOCK_INLINE uint32_t highest_bits(Bytes bytes) {
#if defined(__SSE2__)
    return static_cast<uint32_t>(_mm_movemask_epi8(reinterpret_cast<__m128i>(bytes)));
#else
    char text[16];
    std::memcpy(text, &bytes, sizeof text);
    auto gather = [&](int first) {  // the product moves the bit of byte i to 56 + i, and none to where another one is
        return static_cast<uint32_t>((word_at(text + first) >> 7 & 0x0101010101010101u) * 0x0102040810204080u >> 56);
    };
    return gather(0) | gather(8) << 8;
#endif
}

}  // namespace penstock
