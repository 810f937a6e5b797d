// One line of VW's text format to hashed features, label, importance and tag, in one pass.
//
// Does what `penstock.codecs.vw` and `text.encode_vw` do.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>

#include "bytes.hpp"
#include "decimal.hpp"
#include "digits.hpp"
#include "hashing.hpp"
#include "records.hpp"
#include "text_label.hpp"
#include "unicode.hpp"

namespace penstock {

class LineReader : public EventReader {
  public:
    TextLabel label;

  private:
    using At = const char*;

    bool read_record(const Record& record) override {
        At at = record.begin;
        auto length = static_cast<size_t>(record.end - at);
        while (length != 0 && (at[length - 1] == '\r' || at[length - 1] == '\n')) --length;
        const std::string_view line(at, length);
        const size_t bar = line.find('|');
        if (bar == line.npos || line.find('\r') != line.npos || line.find('\n') != line.npos) return false;
        if (!is_utf8(line)) return false;
        const At end = at + length;
        at += bar;
        while (at != end) {
            at = read_namespace(at + 1, end);
            if (at == nullptr) return false;
        }
        return take_head(line.substr(0, bar));
    }

    // Label, importance, initial prediction and tag: what precedes the first bar.
    bool take_head(std::string_view head) {
        if (head.find('\t') != head.npos) return false;
        const bool touches_bar = !head.empty() && head.back() != ' ';
        std::string_view words[kMaxWords];
        size_t n = 0;
        for (size_t at = head.find_first_not_of(' '); at != head.npos; at = head.find_first_not_of(' ', at)) {
            if (n == kMaxWords) return false;
            const size_t end = std::min(head.find(' ', at), head.size());
            words[n++] = head.substr(at, end - at);
            at = end;
        }
        std::string_view tag;
        if (n != 0 && (touches_bar || words[n - 1].front() == '\'')) {
            tag = words[--n];
            if (tag.front() == '\'') tag.remove_prefix(1);
        }
        double value = std::numeric_limits<double>::quiet_NaN(), weight = 1.0, initial = 0.0;
        std::string_view name;
        if (n == kMaxWords || !label.take(Word{n == 0, words[0]}, value, name)) return false;
        if (n > 1 && (spelling_of(words[1], weight) != Spelling::kNumber || weight < 0.0)) return false;
        if (n > 2 && (spelling_of(words[2], initial) != Spelling::kNumber || initial != 0.0)) return false;
        events.labels.push_back(value);
        if (label.labels == Labels::kMulticlass) events.classes.push_back(name);
        events.weights.push_back(weight);
        events.times.push_back(std::numeric_limits<double>::quiet_NaN());
        events.ids.push_back(tag);
        events.has_ids |= !tag.empty();
        return true;
    }

    // The bar lies before `at`; returns where the next one is, or the end.
    At read_namespace(At at, At end) {
        At behind = token_end(at, end);
        const bool has_name = behind != at;
        const uint32_t space = hash_name(at, static_cast<size_t>(behind - at), 0);
        double scale = 1.0;
        if (behind != end && *behind == ':') {
            at = behind + 1;
            behind = read_value(at, end, scale);
            if (!has_name || behind == nullptr || (behind != end && *behind == ':')) return nullptr;
        }
        uint32_t n_anonymous = 0;
        at = behind;
        while (at != end && *at != '|') {
            if (*at == ' ' || *at == '\t') {
                ++at;
                continue;
            }
            behind = token_end(at, end);
            const bool is_anonymous = behind == at;
            uint32_t index = hash_name(at, static_cast<size_t>(behind - at), space);
            double value = 1.0;
            if (behind != end && *behind == ':') {
                at = behind + 1;
                behind = read_value(at, end, value);
                if (behind == nullptr || (behind != end && *behind == ':')) {
                    behind = word_end(at, end);
                    if (is_unsure(at, behind)) return nullptr;
                    add(hash_name(at, static_cast<size_t>(behind - at), index), 1.0, space);
                    at = behind;
                    continue;
                }
                if (is_anonymous) index = space + n_anonymous++;
            }
            value *= scale;
            if (!(std::fabs(value) <= kLargest)) return nullptr;
            if (value != 0.0) add(index, value, space);
            at = behind;
        }
        return at;
    }

    // The number that is a whole token; nullptr if it is none.
    static At read_value(At at, At end, double& value) {
        PlainNumber plain;
        Spelling spelling = Spelling::kNumber;
        At behind = read_plain_number(at, end, plain);
        if (behind != nullptr) {
            value = plain.value();
        } else {
            behind = read_decimal(at, end, value, spelling);
        }
        return spelling == Spelling::kNumber && (behind == end || ends_token(*behind)) ? behind : nullptr;
    }

    // Whether VW would read (a beginning of) this category as a number, or might.
    static bool is_unsure(At at, At end) {
        while (at != end && (*at == ' ' || (*at >= '\t' && *at <= '\r'))) ++at;
        if (at != end && (*at == '+' || *at == '-')) ++at;
        auto is_digit = [&](At p) { return p != end && *p >= '0' && *p <= '9'; };
        auto begins = [&](const char (&word)[4]) {
            return end - at >= 3 && (at[0] | 0x20) == word[0] && (at[1] | 0x20) == word[1] && (at[2] | 0x20) == word[2];
        };
        if (at == end || is_digit(at) || begins("nan") || begins("inf")) return true;
        if (*at == '.' && is_digit(at + 1)) return true;
        At p = at + (*at == '.');
        if (p != end && (*p == 'e' || *p == 'E')) {
            ++p;
            p += p != end && *p == '-';
            while (is_digit(p)) ++p;
        }
        return p == end;
    }

    static bool ends_token(char c) { return c == ' ' || c == '\t' || c == ':' || c == '|'; }

    static At token_end(At at, At end) {
        for (; end - at >= 16; at += 16) {
            const Bytes bytes = bytes_at(at);
            const uint32_t ends = highest_bits((bytes == ' ') | (bytes == '\t') | (bytes == ':') | (bytes == '|'));
            if (ends != 0) return at + __builtin_ctz(ends);
        }
        while (at != end && !ends_token(*at)) ++at;
        return at;
    }

    static At word_end(At at, At end) {
        while (at != end && *at != ' ' && *at != '\t') ++at;
        return at;
    }

    void add(uint32_t index, double value, uint32_t space) {
        events.entries.add(index, value, space);
    }

    static constexpr size_t kMaxWords = 4;  // the tag included
    static constexpr double kLargest = 1e18;
};

}  // namespace penstock
