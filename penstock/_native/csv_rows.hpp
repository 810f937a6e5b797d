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

#include "csv_text.hpp"
#include "decimal.hpp"
#include "hashing.hpp"
#include "records.hpp"
#include "text_label.hpp"

namespace penstock {

// What the cells of a column are for. The first four are the kinds of columns of `text.encode_cells`.
enum class Use : int { kAuto, kNumber, kCategory, kLeftOut, kLabel, kWeight, kTime, kId };

// A short category that was seen in a column: its bytes, and what they came to.
struct Category {
    uint64_t bytes = 0;
    uint32_t length = 0;  // 0: none yet
    uint32_t index = 0;
};

constexpr int kCategoryBits = 8;  // of the number of categories kept of a column: 4 KiB

struct TableColumn {
    uint32_t index = 0;  // hash of the name
    Use use = Use::kAuto;
    std::vector<Category> known = std::vector<Category>(size_t{1} << kCategoryBits);
};

struct Table {
    TextLabel label;
    bool has_weight = false, has_time = false, has_id = false;
    char delimiter = ',';            // no letter, digit, sign, point or quote, and no line end
    std::vector<TableColumn> columns;
    std::vector<std::string> missing;
};

class TableReader : public EventReader {
  public:
    Table table;

  private:
    using At = const char*;

    bool read_record(const Record& record) override {
        At at = record.begin;
        const auto length = static_cast<size_t>(record.end - at);
        const At end = at + length - (length != 0 && at[length - 1] == '\r');
        if (at == end || length > kLongestRecord) return false;
        for (Word& cell : told_) cell = Word{};
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
    At read_cell(At at, At end, TableColumn& column) {
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
        if (behind == nullptr) return nullptr;
        const std::string_view text = text_between(at, behind);
        Category* known = nullptr;
        uint64_t bytes = 0;
        if (column.use <= Use::kCategory && text.size() - 1 < sizeof(bytes)) {
            bytes = bytes_of(text, end);
            known = &column.known[bytes * 0x9E3779B97F4A7C15u >> (64 - kCategoryBits)];
            if (known->bytes == bytes && known->length == text.size()) {
                add(known->index, 1.0);
                return behind;
            }
        }
        const size_t n_entries = events.entries.size();
        if (!take(column, text, true)) return nullptr;
        if (known != nullptr && is_category_) {
            *known = Category{bytes, static_cast<uint32_t>(text.size()), events.entries.indices()[n_entries]};
        }
        return behind;
    }

    // Of eight bytes or fewer, the rest zeros; `end` is that of what may be read.
    static uint64_t bytes_of(std::string_view text, At end) {
        uint64_t bytes = 0;
        const bool has_eight = end - text.data() >= static_cast<ptrdiff_t>(sizeof(bytes));
        std::memcpy(&bytes, text.data(), has_eight ? sizeof(bytes) : text.size());
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        bytes = __builtin_bswap64(bytes);
#endif
        return bytes & ~uint64_t{0} >> (64 - 8 * text.size());
    }

    // The opening quote lies before `at`.
    At read_quoted_cell(At at, At end, TableColumn& column) {
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
    bool take(const TableColumn& column, std::string_view text, bool is_lasting) {
        is_category_ = false;
        if (column.use == Use::kLeftOut || is_missing(text)) return true;
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

    bool add_category(uint32_t seed, std::string_view text) {
        add(hash_name(text.data(), text.size(), seed), 1.0);
        is_category_ = true;
        return true;
    }

    void add(uint32_t index, double value) {
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
    Word told_[4];
    bool is_category_ = false;  // what was taken last
};

}  // namespace penstock
