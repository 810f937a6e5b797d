// The words of CSV (RFC 4180): cells, and the numbers that they spell.

#pragma once

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <system_error>

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

enum class Spelling : uint8_t { kNothing, kNumber, kTooLarge, kUnclear };

inline bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// The number ``[+-]digits[.digits][e[+-]digits]`` that begins at `at`, as long as it goes, rounded correctly.
//
// kTooLarge is of magnitude > 1e18; kUnclear is what a double cannot hold, mostly for being too close to 0.
// Zero keeps its sign.
inline const char* read_decimal(const char* at, const char* end, double& value, Spelling& spelling) {
    static constexpr double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                        1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    constexpr uint64_t largest = 1'000'000'000'000'000'000;
    auto digit = [&](const char* p) { return p != end && static_cast<unsigned char>(*p - '0') < 10; };
    spelling = Spelling::kNothing;
    const bool is_negative = at != end && *at == '-';
    at += is_negative || (at != end && *at == '+');
    const char* start = at;
    uint64_t mantissa = 0;
    while (at != end && *at == '0') ++at;
    const char* significant = at;
    for (; digit(at); ++at) mantissa = 10 * mantissa + static_cast<uint64_t>(*at - '0');
    auto n_digits = at - significant;
    bool has_digits = at != start;
    const bool has_point = at != end && *at == '.';
    int64_t exponent = 0;
    if (has_point) {
        const char* fraction = ++at;
        for (; digit(at); ++at) mantissa = 10 * mantissa + static_cast<uint64_t>(*at - '0');
        exponent = fraction - at;
        n_digits -= exponent;  // leading zeros count too: they cost no more than the slower way
        has_digits |= at != fraction;
    }
    if (!has_digits) return at;
    int64_t power = 0;
    const bool has_power = at != end && (*at | 0x20) == 'e';
    if (has_power) {
        const char* p = at + 1;
        const bool is_small = p != end && *p == '-';
        p += is_small || (p != end && *p == '+');
        if (!digit(p)) return at;
        for (; digit(p); ++p) power = power < 100000 ? 10 * power + (*p - '0') : power;
        power = is_small ? -power : power;
        at = p;
    }
    if (!has_point && !has_power) {
        const bool is_large = n_digits > 19 || mantissa > largest;
        spelling = is_large ? Spelling::kTooLarge : Spelling::kNumber;
        value = static_cast<double>(mantissa);
    } else {
        exponent += power;
        if (n_digits <= 19 && mantissa <= uint64_t{1} << 53 && exponent >= -22 && exponent <= 22) {
            // Of two exact doubles, quotient and product are rounded once (Clinger 1990).
            const auto exact = static_cast<double>(mantissa);
            value = exponent < 0 ? exact / powers[-exponent] : exact * powers[exponent];
        } else if (std::from_chars(start, at, value).ec != std::errc()) {
            // At 300 digits or fewer a positive power of ten leads up, never down.
            spelling = power > 0 && n_digits <= 300 ? Spelling::kTooLarge : Spelling::kUnclear;
            return at;
        }
        spelling = value <= 1e18 ? Spelling::kNumber : Spelling::kTooLarge;
    }
    if (is_negative) value = -value;
    return at;
}

// Whether these letters, in whatever case, are those of a number that is not finite.
inline bool is_not_finite(std::string_view text) {
    auto is = [&](std::string_view word) {
        if (text.size() != word.size()) return false;
        for (size_t i = 0; i < word.size(); ++i) {
            if ((text[i] | 0x20) != word[i]) return false;
        }
        return true;
    };
    return is("nan") || is("inf") || is("infinity");
}

}  // namespace penstock
