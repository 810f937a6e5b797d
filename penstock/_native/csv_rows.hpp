// One CSV record to hashed features and what else an event has, in one pass.
//
// Does what `csv.reader`, `penstock.codecs.csv` and `text.encode_cells` do one after the other.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "bytes.hpp"
#include "csv_text.hpp"
#include "decimal.hpp"
#include "digits.hpp"
#include "hashing.hpp"
#include "records.hpp"
#include "text_label.hpp"

namespace penstock {

// What the cells of a column are for. The first four are the kinds of columns of `text.encode_cells`.
enum class Use : int { kAuto, kNumber, kCategory, kLeftOut, kLabel, kWeight, kTime, kId };

struct TableColumn {
    uint32_t index = 0;  // hash of the name
    Use use = Use::kAuto;
};

struct Table {
    TextLabel label;
    bool has_weight = false, has_time = false, has_id = false;
    char delimiter = ',';            // no letter, digit, sign, point or quote, and no line end
    std::vector<TableColumn> columns;
    std::vector<std::string> missing;
    uint64_t missing_sizes = 0;      // a bit for each of theirs, the last one for all that are longer

    void add_missing(const std::string& text) {
        missing.push_back(text);
        missing_sizes |= bit_of(text.size());
    }

    PENSTOCK_INLINE bool is_missing(std::string_view text) const {
        return (missing_sizes & bit_of(text.size())) != 0 &&
               std::find(missing.begin(), missing.end(), text) != missing.end();
    }

    static uint64_t bit_of(size_t size) { return uint64_t{1} << std::min(size, size_t{63}); }
};

class TableReader : public EventReader {
  public:
    Table table;

  private:
    using At = const char*;

    bool read_record(const Record& record) override {
        At at = record.begin;
        const auto length = static_cast<size_t>(record.end - at);
        end_ = record.end - (length != 0 && record.end[-1] == '\r');
        limit_ = record.limit;
        if (at == end_ || length > kLongestRecord) return false;
        for (Word& cell : told_) cell = Word{};
        const size_t n_columns = table.columns.size();
        for (size_t i = 0; i < n_columns; ++i) {
            if (i != 0) {
                if (at == end_) return false;
                ++at;  // the delimiter
            }
            at = read_cell(at, table.columns[i]);
            if (at == nullptr) return false;
        }
        return n_columns != 0 && at == end_ && take_roles();
    }

    // Where the cell ends: at a delimiter or at the end. Most are short, and are seen to be what they are at one look.
    PENSTOCK_INLINE At read_cell(At at, const TableColumn& column) {
        if (limit_ - at >= kPlainBytes) {
            if (column.use <= Use::kNumber && *at <= '9') {
                PlainNumber number;
                const At behind = read_plain_number(at, limit_, number);
                if (behind != nullptr && is_end(behind)) {
                    if (number.mantissa != 0 && !table.is_missing(text_between(at, behind))) {
                        add(column.index, number.value());
                    }
                    return behind;
                }
            } else if (column.use == Use::kAuto && begins_word(at)) {
                const At behind = find_delimiter(bytes_at(at), at, table.delimiter);
                if (behind != nullptr && is_end(behind)) {
                    const std::string_view text = text_between(at, behind);
                    if (!table.is_missing(text)) add_category(column.index, text);
                    return behind;
                }
            }
        }
        return read_odd_cell(at, column);
    }

    // Whether a cell can end here.
    bool is_end(At at) const { return at < end_ ? *at == table.delimiter : at == end_; }

    // Whether what begins here, of three bytes at least, can only be a category.
    static bool begins_word(At at) {
        auto is = [&](const char (&word)[4]) {
            return (at[0] | 0x20) == word[0] && (at[1] | 0x20) == word[1] && (at[2] | 0x20) == word[2];
        };
        return static_cast<unsigned char>((*at | 0x20) - 'a') < 26 && !is("nan") && !is("inf");
    }

    __attribute__((noinline)) At read_odd_cell(At at, const TableColumn& column) {
        if (column.use <= Use::kNumber) {
            double value;
            Spelling spelling;
            const At behind = read_decimal(at, end_, value, spelling);
            if (spelling == Spelling::kNumber && is_end(behind)) {
                if (value != 0.0 && !table.is_missing(text_between(at, behind))) add(column.index, value);
                return behind;
            }
        }
        if (at != end_ && *at == '"') return read_quoted_cell(at + 1, column);
        const At behind = read_bare_cell(at, end_, table.delimiter);
        return behind != nullptr && take(column, text_between(at, behind), true) ? behind : nullptr;
    }

    // The opening quote lies before `at`.
    At read_quoted_cell(At at, const TableColumn& column) {
        At first = at;
        bool is_copied = false;
        while (true) {
            at = std::find(at, end_, '"');
            if (at == end_) return nullptr;
            if (at + 1 == end_ || at[1] != '"') break;
            if (!is_copied) scratch_.clear();
            is_copied = true;
            scratch_.append(first, ++at);  // one of the two
            first = ++at;
        }
        if (is_copied) scratch_.append(first, at);
        const std::string_view text = is_copied ? std::string_view(scratch_) : text_between(first, at);
        ++at;
        if (!is_end(at)) return nullptr;
        if (!is_utf8(text) || text.find('\0') != text.npos) return nullptr;
        return take(column, text, !is_copied) ? at : nullptr;
    }

    static std::string_view text_between(At first, At last) {
        return std::string_view(first, static_cast<size_t>(last - first));
    }

    // `is_lasting`: whether the text is there until the end of the call.
    bool take(const TableColumn& column, std::string_view text, bool is_lasting) {
        if (column.use == Use::kLeftOut || table.is_missing(text)) return true;
        if (column.use > Use::kLeftOut) {
            told_[static_cast<int>(column.use) - static_cast<int>(Use::kLabel)] = Word{false, text};
            return is_lasting;
        }
        if (column.use == Use::kCategory) return add_category(column.index, text);
        std::string_view word = text;
        while (!word.empty() && is_blank(word.front())) word.remove_prefix(1);
        while (!word.empty() && is_blank(word.back())) word.remove_suffix(1);
        double value = 0.0;
        switch (spelling_of(word, value)) {
            case Spelling::kNumber:
                if (value != 0.0) add(column.index, value);
                return true;
            case Spelling::kUnclear: return false;
            default: break;
        }
        const bool has_sign = !word.empty() && (word.front() == '-' || word.front() == '+');
        if (column.use == Use::kNumber || is_not_finite(word.substr(has_sign))) return false;
        return add_category(column.index, text);
    }

    PENSTOCK_INLINE bool add_category(uint32_t seed, std::string_view text) {
        add(hash_name(text.data(), text.size(), seed), 1.0);
        return true;
    }

    PENSTOCK_INLINE void add(uint32_t index, double value) {
        events.entries.add(index, value, 0);
    }

    const Word& told(Use role) const { return told_[static_cast<int>(role) - static_cast<int>(Use::kLabel)]; }

    // Label, weight, time and id, once all of the record is known.
    bool take_roles() {
        constexpr double unknown = std::numeric_limits<double>::quiet_NaN();
        double label = unknown, weight = 1.0, time = unknown;
        std::string_view name, date;
        if (!table.label.take(told(Use::kLabel), label, name)) return false;
        if (table.has_weight) {
            const Word& cell = told(Use::kWeight);
            if (cell.is_missing || spelling_of(cell.text, weight) != Spelling::kNumber || weight < 0.0) return false;
        }
        if (table.has_time) {
            const Word& cell = told(Use::kTime);
            if (cell.is_missing) return false;
            switch (spelling_of(cell.text, time)) {
                case Spelling::kNumber: break;
                case Spelling::kNothing: date = cell.text, time = unknown; break;
                default: return false;
            }
            if (date.data() != nullptr && date.empty()) return false;
        }
        if (table.has_id) {
            if (told(Use::kId).is_missing) return false;
            events.has_ids = true;
        }
        if (date.data() != nullptr) events.dates.emplace_back(static_cast<int64_t>(events.kept.size()), date);
        events.labels.push_back(label);
        if (table.label.labels == Labels::kMulticlass) events.classes.push_back(name);
        events.weights.push_back(weight);
        events.times.push_back(time);
        events.ids.push_back(told(Use::kId).text);
        return true;
    }

    static constexpr size_t kLongestRecord = 131072;  // a longer cell may be more than `csv` takes

    std::string scratch_;

    // Of the record that is being read:
    At end_ = nullptr;
    At limit_ = nullptr;  // what is read at one go may go so far
    Word told_[4];
};

}  // namespace penstock
