// One CSV record to hashed features and what else an event has, in one pass.
//
// Does what `csv.reader`, `penstock.codecs.csv` and `features.encode_cells` do one after the other.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "csv_text.hpp"
#include "hashing.hpp"
#include "records.hpp"

namespace penstock {

// What the cells of a column are for. The first four are the kinds of columns of `features.encode_cells`.
enum class Use : int { kAuto, kNumber, kCategory, kLeftOut, kLabel, kWeight, kTime, kId };

struct TableColumn {
    uint32_t index = 0;  // hash of the name
    Use use = Use::kAuto;
};

struct Table {
    Labels labels = Labels::kBinary;
    bool requires_label = true;
    char delimiter = ',';            // no letter, digit, sign, point or quote, and no line end
    std::string negative, positive;  // of kClasses
    std::vector<TableColumn> columns;
    std::vector<std::string> missing;
};

class TableReader : public EventReader {
  public:
    Table table;

  private:
    using At = const char*;

    // Of a role.
    struct Cell {
        bool is_missing = true;
        std::string_view text;
    };

    bool read_record(At at, size_t length) override {
        const At end = at + length - (length != 0 && at[length - 1] == '\r');
        if (at == end || length > kLongestRecord) return false;
        for (Cell& cell : told_) cell = Cell{};
        const size_t n_columns = table.columns.size();
        for (size_t i = 0; i < n_columns; ++i) {
            if (i != 0) {
                if (at == end) return false;
                ++at;  // the delimiter
            }
            at = read_cell(at, end, table.columns[i]);
            if (at == nullptr) return false;
        }
        return n_columns != 0 && at == end && take_roles();
    }

    // Where the cell ends: at a delimiter or at the end.
    At read_cell(At at, At end, TableColumn column) {
        if (column.use <= Use::kNumber) {
            double value;
            Spelling spelling;
            const At behind = read_decimal(at, end, value, spelling);
            if (spelling == Spelling::kNumber && (behind == end || *behind == table.delimiter)) {
                if (value != 0.0 && !is_missing(text_between(at, behind))) add(column.index, value);
                return behind;
            }
        }
        if (at != end && *at == '"') return read_quoted_cell(at + 1, end, column);
        const At behind = read_bare_cell(at, end, table.delimiter);
        return behind != nullptr && take(column, text_between(at, behind), true) ? behind : nullptr;
    }

    // The opening quote lies before `at`.
    At read_quoted_cell(At at, At end, TableColumn column) {
        At first = at;
        bool is_copied = false;
        while (true) {
            at = std::find(at, end, '"');
            if (at == end) return nullptr;
            if (at + 1 == end || at[1] != '"') break;
            if (!is_copied) scratch_.clear();
            is_copied = true;
            scratch_.append(first, ++at);  // one of the two
            first = ++at;
        }
        if (is_copied) scratch_.append(first, at);
        const std::string_view text = is_copied ? std::string_view(scratch_) : text_between(first, at);
        ++at;
        if (at != end && *at != table.delimiter) return nullptr;
        if (!is_utf8(text) || text.find('\0') != text.npos) return nullptr;
        return take(column, text, !is_copied) ? at : nullptr;
    }

    static std::string_view text_between(At first, At last) {
        return std::string_view(first, static_cast<size_t>(last - first));
    }

    bool is_missing(std::string_view text) const {
        return std::find(table.missing.begin(), table.missing.end(), text) != table.missing.end();
    }

    // `is_lasting`: whether the text is there until the end of the call.
    bool take(TableColumn column, std::string_view text, bool is_lasting) {
        if (column.use == Use::kLeftOut || is_missing(text)) return true;
        if (column.use > Use::kLeftOut) {
            told_[static_cast<int>(column.use) - static_cast<int>(Use::kLabel)] = Cell{false, text};
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

    // Of the whole text.
    static Spelling spelling_of(std::string_view text, double& value) {
        Spelling spelling;
        const At end = text.data() + text.size();
        return read_decimal(text.data(), end, value, spelling) == end ? spelling : Spelling::kNothing;
    }

    bool add_category(uint32_t seed, std::string_view text) {
        add(hash_name(text.data(), text.size(), seed), 1.0);
        return true;
    }

    void add(uint32_t index, double value) {
        events.indices.push_back(index);
        events.values.push_back(value);
    }

    const Cell& told(Use role) const { return told_[static_cast<int>(role) - static_cast<int>(Use::kLabel)]; }

    bool has(Use role) const {
        return std::any_of(table.columns.begin(), table.columns.end(), [&](auto column) { return column.use == role; });
    }

    // Label, weight, time and id, once all of the record is known.
    bool take_roles() {
        constexpr double unknown = std::numeric_limits<double>::quiet_NaN();
        double label = unknown, weight = 1.0, time = unknown;
        std::string_view name, date;
        if (!take_label(told(Use::kLabel), label, name)) return false;
        if (has(Use::kWeight)) {
            const Cell& cell = told(Use::kWeight);
            if (cell.is_missing || spelling_of(cell.text, weight) != Spelling::kNumber || weight < 0.0) return false;
        }
        if (has(Use::kTime)) {
            const Cell& cell = told(Use::kTime);
            if (cell.is_missing) return false;
            switch (spelling_of(cell.text, time)) {
                case Spelling::kNumber: break;
                case Spelling::kNothing: date = cell.text, time = unknown; break;
                default: return false;
            }
            if (date.data() != nullptr && date.empty()) return false;
        }
        if (has(Use::kId)) {
            if (told(Use::kId).is_missing) return false;
            events.has_ids = true;
        }
        if (date.data() != nullptr) events.dates.emplace_back(static_cast<int64_t>(events.kept.size()), date);
        events.labels.push_back(label);
        if (table.labels == Labels::kMulticlass) events.classes.push_back(name);
        events.weights.push_back(weight);
        events.times.push_back(time);
        events.ids.push_back(told(Use::kId).text);
        return true;
    }

    bool take_label(const Cell& cell, double& label, std::string_view& name) const {
        if (cell.is_missing) return !table.requires_label;
        const std::string_view text = cell.text;
        switch (table.labels) {
            case Labels::kMulticlass:
                name = text;
                return !text.empty();
            case Labels::kClasses:
                label = text == table.positive ? 1.0 : 0.0;
                return text == table.positive || text == table.negative;
            case Labels::kRegression: return spelling_of(text, label) == Spelling::kNumber;
            default: break;
        }
        if (text == "true" || text == "True" || text == "TRUE") {
            label = 1.0;
        } else if (text == "false" || text == "False" || text == "FALSE") {
            label = 0.0;
        } else {
            double value;
            if (spelling_of(text, value) != Spelling::kNumber || (std::fabs(value) != 1.0 && value != 0.0)) return false;
            label = value == 1.0 ? 1.0 : 0.0;
        }
        return true;
    }

    static constexpr size_t kLongestRecord = 131072;  // a longer cell may be more than `csv` takes

    std::string scratch_;

    // Of the record that is being read:
    Cell told_[4];
};

}  // namespace penstock
