// Columns in Arrow's layout to hashed features, row by row.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <type_traits>
#include <vector>

#include "hashing.hpp"
#include "unicode.hpp"

namespace penstock {

enum class Layout : int {
    kBool, kInt8, kInt16, kInt32, kInt64, kUInt8, kUInt16, kUInt32, kUInt64, kFloat, kDouble, kText, kLongText, kDictionary
};

struct Column {
    Layout layout = Layout::kDouble;
    int64_t offset = 0;                  // of the first row, in each buffer
    uint32_t index = 0;                  // hash of the name
    const uint8_t* validity = nullptr;   // a bit a row; absent: there are no nulls
    const uint8_t* data = nullptr;
    int64_t n_bytes = 0;                 // of text
    const uint8_t* offsets = nullptr;    // of text
    Layout keys = Layout::kInt32;        // of a dictionary, whose keys are in `data`
    int64_t n_words = 0;                 // of a dictionary
    const Column* dictionary = nullptr;
    std::vector<uint8_t> known;          // of each word of a dictionary: 1 if it was hashed, 2 if it cannot be
    std::vector<uint32_t> hashes;

    bool is_null(int64_t row) const {
        return validity != nullptr && !(validity[(offset + row) >> 3] >> ((offset + row) & 7) & 1);
    }
};

template <typename T>
inline T element(const uint8_t* data, int64_t i) {
    T value;
    std::memcpy(&value, data + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
    return value;
}

class ColumnsReader {
  public:
    std::vector<Column> columns;
    std::vector<int64_t> ends;
    uint32_t* indices = nullptr;  // of entries: there is room for one of every column in every row
    double* values = nullptr;
    int64_t n_entries = 0;
    std::vector<int64_t> kept;
    std::vector<int64_t> declined;  // rows with something that cannot be a feature

    void read(int64_t n) {
        for (int64_t row = 0; row < n; ++row) {
            const int64_t before = n_entries;
            bool is_good = true;
            for (Column& column : columns) {
                if (column.is_null(row)) continue;
                if (!add(column, row)) {
                    is_good = false;
                    break;
                }
            }
            if (is_good) {
                kept.push_back(row);
                ends.push_back(n_entries);
            } else {
                n_entries = before;
                declined.push_back(row);
            }
        }
    }

  private:
    bool add(Column& column, int64_t row) {
        const int64_t i = column.offset + row;
        switch (column.layout) {
            case Layout::kBool: return add_number(column.data[i >> 3] >> (i & 7) & 1, column.index);
            case Layout::kInt8: return add_number(element<int8_t>(column.data, i), column.index);
            case Layout::kInt16: return add_number(element<int16_t>(column.data, i), column.index);
            case Layout::kInt32: return add_number(element<int32_t>(column.data, i), column.index);
            case Layout::kInt64: return add_integer(element<int64_t>(column.data, i), column.index);
            case Layout::kUInt8: return add_number(element<uint8_t>(column.data, i), column.index);
            case Layout::kUInt16: return add_number(element<uint16_t>(column.data, i), column.index);
            case Layout::kUInt32: return add_number(element<uint32_t>(column.data, i), column.index);
            case Layout::kUInt64: {
                const auto value = element<uint64_t>(column.data, i);
                return value <= kMaxInteger && add_integer(static_cast<int64_t>(value), column.index);
            }
            case Layout::kFloat: return add_number(element<float>(column.data, i), column.index);
            case Layout::kDouble: return add_number(element<double>(column.data, i), column.index);
            case Layout::kDictionary: return add_word(column, key(column, i));
            default: {
                uint32_t hash;
                if (!hash_text(column, i, column.index, hash)) return false;
                add_entry(hash, 1.0);
                return true;
            }
        }
    }

    static int64_t key(const Column& column, int64_t i) {
        switch (column.keys) {
            case Layout::kInt8: return element<int8_t>(column.data, i);
            case Layout::kInt16: return element<int16_t>(column.data, i);
            case Layout::kInt32: return element<int32_t>(column.data, i);
            case Layout::kInt64: return element<int64_t>(column.data, i);
            case Layout::kUInt8: return element<uint8_t>(column.data, i);
            case Layout::kUInt16: return element<uint16_t>(column.data, i);
            case Layout::kUInt32: return element<uint32_t>(column.data, i);
            default: return -1;
        }
    }

    // Each word of a dictionary is hashed once, when it first occurs.
    bool add_word(Column& column, int64_t word) {
        if (word < 0 || word >= column.n_words) return false;
        if (column.dictionary->is_null(word)) return true;
        const auto at = static_cast<size_t>(word);
        if (column.known[at] == 0) {
            const int64_t i = column.dictionary->offset + word;
            column.known[at] = hash_text(*column.dictionary, i, column.index, column.hashes[at]) ? 1 : 2;
        }
        if (column.known[at] == 2) return false;
        add_entry(column.hashes[at], 1.0);
        return true;
    }

    static bool hash_text(const Column& column, int64_t i, uint32_t seed, uint32_t& hash) {
        const bool is_long = column.layout == Layout::kLongText;
        const int64_t start = is_long ? element<int64_t>(column.offsets, i) : element<int32_t>(column.offsets, i);
        const int64_t end = is_long ? element<int64_t>(column.offsets, i + 1) : element<int32_t>(column.offsets, i + 1);
        if (start < 0 || end < start || end > column.n_bytes) return false;
        const std::string_view text(reinterpret_cast<const char*>(column.data) + start, static_cast<size_t>(end - start));
        if (!is_utf8(text)) return false;
        hash = hash_name(text.data(), text.size(), seed);
        return true;
    }

    bool add_integer(int64_t value, uint32_t index) {
        constexpr auto largest = static_cast<int64_t>(kMaxInteger);
        return value >= -largest && value <= largest && add_number(static_cast<double>(value), index);
    }

    bool add_number(double value, uint32_t index) {
        if (!(std::fabs(value) <= 1e18)) return false;  // also NaN
        if (value != 0.0) add_entry(index, value);
        return true;
    }

    void add_entry(uint32_t index, double value) {
        indices[n_entries] = index;
        values[n_entries] = value;
        ++n_entries;
    }

    static constexpr uint64_t kMaxInteger = 1'000'000'000'000'000'000;
};

}  // namespace penstock
