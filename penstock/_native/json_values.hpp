// The values of JSON that need no room of their own: those that are one word, and those that nobody wants.

#pragma once

#include <cstring>
#include <string>
#include <string_view>

#include "inline.hpp"
#include "json_text.hpp"

namespace penstock {

struct Scalar {
    enum Kind { kMissing, kFalse, kTrue, kInteger, kDecimal, kText, kOther } kind = kMissing;
    double number = 0.0;
    std::string_view text;  // as it stands in the record

    bool is_absent() const { return kind == kMissing && text.empty(); }  // null has a text
    bool is_number() const { return kind == kInteger || kind == kDecimal; }
    // Whether an integer is what Python would print for it.
    bool is_integer() const { return kind == kInteger && text != "-0"; }
};

PENSTOCK_INLINE const char* read_word(const char* at, const char* end, std::string_view word) {
    if (static_cast<size_t>(end - at) < word.size() || std::memcmp(at, word.data(), word.size()) != 0) return nullptr;
    return at + word.size();
}

// A value that is no container; a container is declined. Text with escapes is kOther.
PENSTOCK_INLINE const char* read_scalar(const char* at, const char* end, std::string& scratch, Scalar& value) {
    const char* first = at;
    if (at >= end) return nullptr;
    switch (*at) {
        case '"':
            at = read_string(first + 1, end, scratch, value.text);
            if (at == nullptr) return nullptr;
            value.kind = value.text.data() == first + 1 ? Scalar::kText : Scalar::kOther;
            return at;
        case 't': value.kind = Scalar::kTrue; at = read_word(at, end, "true"); break;
        case 'f': value.kind = Scalar::kFalse; at = read_word(at, end, "false"); break;
        case 'n': value.kind = Scalar::kMissing; at = read_word(at, end, "null"); break;
        default: {
            Number number;
            at = read_number(at, end, number);
            if (at == nullptr) return nullptr;
            value.kind = number.is_integer ? Scalar::kInteger : Scalar::kDecimal;
            value.number = number.value;
        }
    }
    if (at != nullptr) value.text = std::string_view(first, static_cast<size_t>(at - first));
    return at;
}

// Any value, checked and left out, of at most so many levels.
inline const char* skip_value(const char* at, const char* end, std::string& scratch, int levels) {
    if (at >= end) return nullptr;
    const bool is_object = *at == '{';
    if (!is_object && *at != '[') {
        Scalar ignored;
        return read_scalar(at, end, scratch, ignored);
    }
    if (levels <= 0) return nullptr;
    const char closing = is_object ? '}' : ']';
    if (skip_space(++at, end) == closing) return at + 1;
    while (true) {
        if (is_object) {
            std::string_view name;
            if (at == end || *at != '"') return nullptr;
            at = read_string(at + 1, end, scratch, name);
            if (at == nullptr || skip_space(at, end) != ':') return nullptr;
            skip_space(++at, end);
        }
        at = skip_value(at, end, scratch, levels - 1);
        if (at == nullptr) return nullptr;
        const char behind = skip_space(at, end);
        if (behind == closing) return at + 1;
        if (behind != ',') return nullptr;
        skip_space(++at, end);
    }
}

}  // namespace penstock
