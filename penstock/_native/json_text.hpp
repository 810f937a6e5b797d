// The words of JSON (RFC 8259): strings and numbers, read strictly and without going back.
//
// Every reader takes `at`, where its word begins, and `end`, behind the last byte there is, and returns where
// the word ends; or nullptr for what is not JSON, *and* for what is left to a reader that takes more time.

#pragma once

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <system_error>

#include "bytes.hpp"
#include "digits.hpp"
#include "unicode.hpp"

namespace penstock {

// Moves `at` behind white space and returns what is there; NUL, which is nothing in JSON, at the end and behind it.
PENSTOCK_INLINE char skip_space(const char*& at, const char* end) {
    if (at < end && *at > ' ') return *at;
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r')) ++at;
    return at < end ? *at : '\0';
}

inline bool is_digit(const char* at, const char* end) { return at != end && *at >= '0' && *at <= '9'; }

// Of each byte, whether it is a quote, a backslash, a control character or beyond ASCII.
PENSTOCK_INLINE uint32_t find_special(Bytes bytes) {
    return highest_bits((bytes == '"') | (bytes == '\\') | (bytes - ' ') | bytes);
}

// Where the next of those is; `end` if there is none.
inline const char* find_special(const char* at, const char* end) {
    for (; end - at >= 16; at += 16) {
        const uint32_t special = find_special(bytes_at(at));
        if (special != 0) return at + __builtin_ctz(special);
    }
    while (at != end && *at != '"' && *at != '\\' && static_cast<unsigned char>(*at - ' ') < 0x80 - ' ') ++at;
    return at;
}

inline int four_hex_digits(const char* at, const char* end) {
    if (end - at < 4) return -1;
    int value = 0;
    for (int i = 0; i < 4; ++i) {
        const char c = at[i];
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0) return -1;
        value = 16 * value + digit;
    }
    return value;
}

inline void append_character(std::string& out, uint32_t point) {
    if (point < 0x80) {
        out += static_cast<char>(point);
        return;
    }
    if (point < 0x800) {
        out += static_cast<char>(0xC0 | point >> 6);
    } else {
        if (point < 0x10000) {
            out += static_cast<char>(0xE0 | point >> 12);
        } else {
            out += static_cast<char>(0xF0 | point >> 18);
            out += static_cast<char>(0x80 | (point >> 12 & 0x3F));
        }
        out += static_cast<char>(0x80 | (point >> 6 & 0x3F));
    }
    out += static_cast<char>(0x80 | (point & 0x3F));
}

// What follows a backslash.
inline const char* read_escape(const char* at, const char* end, std::string& out) {
    if (at == end) return nullptr;
    switch (*at++) {
        case '"': out += '"'; return at;
        case '\\': out += '\\'; return at;
        case '/': out += '/'; return at;
        case 'b': out += '\b'; return at;
        case 'f': out += '\f'; return at;
        case 'n': out += '\n'; return at;
        case 'r': out += '\r'; return at;
        case 't': out += '\t'; return at;
        case 'u': break;
        default: return nullptr;
    }
    const int unit = four_hex_digits(at, end);
    if (unit < 0) return nullptr;
    at += 4;
    if (unit < 0xD800 || unit > 0xDFFF) {
        append_character(out, static_cast<uint32_t>(unit));
        return at;
    }
    if (unit > 0xDBFF || end - at < 6 || at[0] != '\\' || at[1] != 'u') return nullptr;
    const int low = four_hex_digits(at + 2, end);
    if (low < 0xDC00 || low > 0xDFFF) return nullptr;
    append_character(out, 0x10000 + (static_cast<uint32_t>(unit - 0xD800) << 10) + static_cast<uint32_t>(low - 0xDC00));
    return at + 6;
}

// The string whose opening quote lies before `at`. `text` borrows from the source, or from `scratch` where
// escapes had to be taken out: until the next string is read.
inline const char* read_string(const char* at, const char* end, std::string& scratch, std::string_view& text) {
    const char* first = at;
    bool is_copied = false;
    while (true) {
        at = find_special(at, end);
        if (at == end) return nullptr;
        if (*at == '"') {
            if (is_copied) scratch.append(first, at);
            text = is_copied ? std::string_view(scratch) : std::string_view(first, static_cast<size_t>(at - first));
            return at + 1;
        }
        if (*at == '\\') {
            if (!is_copied) scratch.clear();
            scratch.append(first, at);
            is_copied = true;
            at = read_escape(at + 1, end, scratch);
            if (at == nullptr) return nullptr;
            first = at;
        } else {
            const int length = static_cast<unsigned char>(*at) < 0x80 ? 0 : length_of_character(at, end);
            if (length == 0) return nullptr;
            at += length;
        }
    }
}

// Where the closing quote is of the string whose opening one lies before `at`; nullptr if that is not as short and
// plain as most are.
PENSTOCK_INLINE const char* find_close(const char* at, const char* limit) {
    if (limit - at < 16) return nullptr;
    const uint32_t special = find_special(bytes_at(at));
    if (special == 0) return nullptr;
    at += __builtin_ctz(special);
    return *at == '"' ? at : nullptr;
}

struct Number {
    double value;
    bool is_integer;  // written as one, of at most 18 digits
};

// A number, rounded correctly. Longer integers, and what leaves the range of a double, are left to others.
inline const char* read_number(const char* at, const char* end, Number& number) {
    const char* start = at;
    const bool is_negative = at != end && *at == '-';
    at += is_negative;
    if (!is_digit(at, end)) return nullptr;
    const char* digits = at;
    uint64_t mantissa = 0;
    if (*at == '0') {
        if (is_digit(++at, end)) return nullptr;
    } else {
        at = read_digits(at, end, mantissa);
    }
    auto n_digits = at - digits;
    const bool has_fraction = at != end && *at == '.', has_exponent = at != end && (*at | 0x20) == 'e';
    if (!has_fraction && !has_exponent) {
        if (n_digits > 18) return nullptr;
        const auto integer = static_cast<int64_t>(mantissa);
        number.value = static_cast<double>(is_negative ? -integer : integer);
        number.is_integer = true;
        return at;
    }
    number.is_integer = false;
    int64_t exponent = 0;
    if (has_fraction) {
        const char* fraction = ++at;
        at = read_digits(fraction, end, mantissa);
        if (at == fraction) return nullptr;
        exponent = fraction - at;
        n_digits -= exponent;  // leading zeros count too: they cost no more than the slower way
    }
    if (at != end && (*at | 0x20) == 'e') {
        ++at;
        const bool is_small = at != end && *at == '-';
        if (at != end && (*at == '-' || *at == '+')) ++at;
        if (!is_digit(at, end)) return nullptr;
        int64_t power = 0;
        for (; is_digit(at, end); ++at) power = power < 100000 ? 10 * power + (*at - '0') : power;
        exponent += is_small ? -power : power;
    }
    // Of two exact doubles, quotient and product are rounded once (Clinger 1990).
    if (n_digits <= 19 && mantissa <= uint64_t{1} << 53 && exponent >= -22 && exponent <= 22) {
        const auto exact = static_cast<double>(mantissa);
        const double size = exponent < 0 ? exact / kPowersOfTen[-exponent] : exact * kPowersOfTen[exponent];
        number.value = is_negative ? -size : size;
        return at;
    }
    return std::from_chars(start, at, number.value).ec == std::errc() ? at : nullptr;
}

}  // namespace penstock
