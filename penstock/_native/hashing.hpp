// Names to numbers, as Vowpal Wabbit does it (`--hash strings --hash_seed 0`).

#pragma once

#include <cstddef>
#include <cstdint>

namespace penstock {

inline uint32_t rotate_left(uint32_t x, int r) { return (x << r) | (x >> (32 - r)); }

inline uint32_t scramble(uint32_t block) { return rotate_left(block * 0xCC9E2D51u, 15) * 0x1B873593u; }

// MurmurHash3 (x86, 32 bits; Appleby 2011, public domain), little-endian on every processor, so that a
// model means the same everywhere.
inline uint32_t murmur(const unsigned char* data, size_t length, uint32_t seed) {
    uint32_t h = seed;
    const unsigned char* tail = data + (length & ~size_t{3});
    while (data != tail) {
        const uint32_t block = data[0] | uint32_t{data[1]} << 8 | uint32_t{data[2]} << 16 | uint32_t{data[3]} << 24;
        h = rotate_left(h ^ scramble(block), 13) * 5 + 0xE6546B64u;
        data += 4;
    }
    if (length & 3) {
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

// VW's `hashstring`: stripped of white space, and digits alone are their number; the empty name hashes to
// `seed`.
inline uint32_t hash_name(const char* name, size_t length, uint32_t seed) {
    auto first = reinterpret_cast<const unsigned char*>(name), last = first + length;
    while (first != last && *first <= ' ') ++first;
    while (first != last && last[-1] <= ' ') --last;
    uint32_t number = 0;
    for (auto at = first; at != last; ++at) {
        if (*at < '0' || *at > '9') return murmur(first, static_cast<size_t>(last - first), seed);
        number = 10 * number + (*at - '0');
    }
    return number + seed;
}

}  // namespace penstock
