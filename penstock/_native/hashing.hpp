// Names to numbers, as Vowpal Wabbit does it (`--hash strings --hash_seed 0`).

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "inline.hpp"

namespace penstock {

inline uint32_t rotate_left(uint32_t x, int r) { return (x << r) | (x >> (32 - r)); }

inline uint32_t scramble(uint32_t block) { return rotate_left(block * 0xCC9E2D51u, 15) * 0x1B873593u; }

// Four bytes as a number, little-endian on every processor, so that a model means the same everywhere.
inline uint32_t block_at(const unsigned char* data) {
    uint32_t block;
    std::memcpy(&block, data, sizeof block);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    block = __builtin_bswap32(block);
#endif
    return block;
}

// MurmurHash3 (x86, 32 bits; Appleby 2011, public domain).
PENSTOCK_INLINE uint32_t murmur(const unsigned char* data, size_t length, uint32_t seed) {
    uint32_t h = seed;
    const unsigned char *end = data + length, *tail = data + (length & ~size_t{3});
    while (data != tail) {
        h = rotate_left(h ^ scramble(block_at(data)), 13) * 5 + 0xE6546B64u;
        data += 4;
    }
    if (length >= 4) {  // what is left are the high bytes of the last four: no branch depends on how many they are
        h ^= scramble(static_cast<uint32_t>(uint64_t{block_at(end - 4)} >> (32 - 8 * (length & 3))));
    } else if (length) {
        uint32_t block = tail[0];
        if (length & 2) {
            block |= uint32_t{tail[1]} << 8;
            if (length & 1) block |= uint32_t{tail[2]} << 16;
        }
        h ^= scramble(block);
    }
    h ^= static_cast<uint32_t>(length);
    h = (h ^ (h >> 16)) * 0x85EBCA6Bu;
    h = (h ^ (h >> 13)) * 0xC2B2AE35u;
    return h ^ (h >> 16);
}

// As VW strips a name of white space, and takes digits alone for their number; the empty name hashes to `seed`.
__attribute__((noinline)) inline uint32_t hash_stripped(
    const unsigned char* first, const unsigned char* last, uint32_t seed) {
    while (first != last && *first <= ' ') ++first;
    while (first != last && last[-1] <= ' ') --last;
    uint32_t number = 0;
    for (auto at = first; at != last; ++at) {
        if (*at < '0' || *at > '9') return murmur(first, static_cast<size_t>(last - first), seed);
        number = 10 * number + (*at - '0');
    }
    return number + seed;
}

// VW's `hashstring`. Most names begin with a letter and end without white space.
PENSTOCK_INLINE uint32_t hash_name(const char* name, size_t length, uint32_t seed) {
    auto first = reinterpret_cast<const unsigned char*>(name), last = first + length;
    if (length && *first > '9' && last[-1] > ' ') return murmur(first, length, seed);
    return hash_stripped(first, last, seed);
}

}  // namespace penstock
