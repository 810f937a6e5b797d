// Numbers as text formats spell them: ``[+-]digits[.digits][e[+-]digits]``.

#pragma once

#include <charconv>
#include <cstdint>
#include <string_view>
#include <system_error>

#include "digits.hpp"

namespace penstock {

enum class Spelling : uint8_t { kNothing, kNumber, kTooLarge, kUnclear };

// The number ``[+-]digits[.digits][e[+-]digits]`` that begins at `at`, as long as it goes, rounded correctly.
//
// kTooLarge is of magnitude > 1e18; kUnclear is what a double cannot hold, mostly for being too close to 0.
// Zero keeps its sign.
inline const char* read_decimal(const char* at, const char* end, double& value, Spelling& spelling) {
    constexpr uint64_t largest = 1'000'000'000'000'000'000;
    auto digit = [&](const char* p) { return p != end && static_cast<unsigned char>(*p - '0') < 10; };
    spelling = Spelling::kNothing;
    const bool is_negative = at != end && *at == '-';
    at += is_negative || (at != end && *at == '+');
    const char* start = at;
    uint64_t mantissa = 0;
    while (at != end && *at == '0') ++at;
    const char* significant = at;
    at = read_digits(at, end, mantissa);
    auto n_digits = at - significant;
    bool has_digits = at != start;
    const bool has_point = at != end && *at == '.';
    int64_t exponent = 0;
    if (has_point) {
        const char* fraction = ++at;
        at = read_digits(fraction, end, mantissa);
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
            value = exponent < 0 ? exact / kPowersOfTen[-exponent] : exact * kPowersOfTen[exponent];
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

// Of the whole text.
inline Spelling spelling_of(std::string_view text, double& value) {
    Spelling spelling;
    const char* end = text.data() + text.size();
    return read_decimal(text.data(), end, value, spelling) == end ? spelling : Spelling::kNothing;
}

}  // namespace penstock
