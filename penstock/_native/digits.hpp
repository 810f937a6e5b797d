// Numbers of a few digits, all of them at a time.

#pragma once

#include <cstddef>
#include <cstdint>

#include "bytes.hpp"

namespace penstock {

// Those that a double holds exactly.
constexpr double kPowersOfTen[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                   1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

// `n` digits, 1 to 8, as a number: neighbours are joined to pairs, pairs to fours, fours to eight.
PENSTOCK_INLINE int64_t join_digits(const char* at, int n) {
    constexpr uint64_t pairs = 0x000000FF000000FFu;
    uint64_t digits = (word_at(at) ^ 0x3030303030303030u) << (64 - 8 * n);
    digits = digits * 10 + (digits >> 8);
    const uint64_t upper = (digits & pairs) * (100 + (uint64_t{1000000} << 32));
    const uint64_t lower = (digits >> 16 & pairs) * (1 + (uint64_t{10000} << 32));
    return static_cast<int64_t>((upper + lower) >> 32);
}

// Where the run of digits ends that begins at `at`; they are appended to `number`, modulo 2^64.
inline const char* read_digits(const char* at, const char* end, uint64_t& number) {
    for (; end - at >= 8; at += 8) {
        const uint64_t digits = word_at(at) ^ 0x3030303030303030u;  // 0 to 9, if they are
        if ((((digits + 0x7676767676767676u) | digits) & 0x8080808080808080u) != 0) break;
        number = 100000000 * number + static_cast<uint64_t>(join_digits(at, 8));
    }
    for (; at != end && static_cast<unsigned char>(*at - '0') < 10; ++at) {
        number = 10 * number + static_cast<uint64_t>(*at - '0');
    }
    return at;
}

// A number as most are written: up to eight digits, up to eight more behind a point, no exponent.
struct PlainNumber {
    int64_t mantissa;
    int n_decimals;
    bool is_negative;

    double value() const {
        static constexpr double signs[] = {1.0, -1.0};
        // Of two exact doubles, the quotient is rounded once.
        return signs[is_negative] * (static_cast<double>(mantissa) / kPowersOfTen[n_decimals]);
    }
};

// So many bytes there must be to find out.
constexpr ptrdiff_t kPlainBytes = 18;

// Where the number that begins at `at` ends; nullptr if it is none of these, or has zeros before it, or lies so near
// to `limit`, up to which can be read, that one could not tell.
PENSTOCK_INLINE const char* read_plain_number(const char* at, const char* limit, PlainNumber& number) {
    static constexpr int64_t powers[] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};
    constexpr uint32_t beyond = uint32_t{1} << 31;  // there always is an end, if one too far away
    if (limit - at < kPlainBytes) return nullptr;
    const bool is_negative = *at == '-';
    const Bytes digits = bytes_at(at) ^ '0';  // 0 to 9, if they are
    const uint32_t others = highest_bits((digits + (0x80 - 10)) | digits) | beyond;
    const uint32_t ends = others & ~uint32_t{1};  // the sign is no end
    const int end = __builtin_ctz(ends), n_digits = end - is_negative;
    if ((others & 1) != is_negative || n_digits < 1 || n_digits > 8) return nullptr;
    const char* first = at + is_negative;
    if (*first == '0' && n_digits > 1) return nullptr;
    number.is_negative = is_negative;
    number.mantissa = join_digits(first, n_digits);
    number.n_decimals = 0;
    const char* behind = at + end;
    if (*behind == '.') {
        const int n_decimals = __builtin_ctz(ends & (ends - 1)) - end - 1;
        if (n_decimals < 1 || n_decimals > 8) return nullptr;
        number.mantissa = number.mantissa * powers[n_decimals] + join_digits(behind + 1, n_decimals);
        number.n_decimals = n_decimals;
        behind = at + __builtin_ctz(ends & (ends - 1));
    }
    return (*behind | 0x20) != 'e' ? behind : nullptr;
}

}  // namespace penstock
