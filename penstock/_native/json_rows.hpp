// One JSON record to hashed features and what else an event has, in one pass.
//
// Does what `orjson.loads`, `penstock.codecs.fields` and `features.encode_rows` do one after the other, for
// the records that they accept; anything out of the ordinary is declined and left to them.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "hashing.hpp"
#include "json_names.hpp"
#include "json_text.hpp"
#include "json_values.hpp"
#include "records.hpp"

namespace penstock {

constexpr int kMaxDepth = 30;          // of containers inside a row: what is deeper is declined
constexpr size_t kKnownNames = 4096;   // whose hashes are kept
constexpr double kMaxMagnitude = 1e18;

// Where a name stands decides what it can mean.
enum class Level : uint8_t { kRecord, kRow, kInside };

// What a field of a record is.
enum class Role : uint8_t { kNone, kLabel, kWeight, kTime, kId, kContainer };

// How a feature is read.
enum class Reading : uint8_t { kAsItIs, kLeftOut, kNumber, kCategory };

struct Plan {
    Labels labels = Labels::kBinary;
    bool requires_label = true;
    bool takes_feedback = false;     // whether a mapping in the container makes a record feedback
    bool requires_container = false;
    std::string negative, positive;  // of kClasses
    std::string container;           // empty: there is none
    std::string told[5];             // names of label, weight, time and id, by their role; empty: not told
    std::vector<std::pair<std::string, Reading>> readings;
};

// A name that has been seen before. Records of one stream have the same names in the same order, mostly:
// each remembers which one came next, so that comparing bytes replaces reading, hashing and looking up.
struct Name : ShownName {
    uint32_t seed = 0;
    uint32_t index = 0;
    Level level = Level::kInside;
    Role role = Role::kNone;
    Reading reading = Reading::kAsItIs;
    bool is_told = false;         // the role, by the configuration
    bool is_feature = false;      // whatever its value is, and read as it is
    Name* next = nullptr;         // the one that followed
    Name* inner = nullptr;        // the first one in its value
    uint64_t seen_in = 0;         // the last object that has it
};

class Reader : public EventReader {
  public:
    Plan plan;

    Reader() { known_.reserve(kKnownNames); }  // they point to one another

  private:
    using At = const char*;

    bool read_record(const Record& record) override {
        At at = record.begin;
        end_ = record.end;
        limit_ = record.limit;
        first_entry_ = events.entries.size();
        has_container_ = is_skipping_ = false;
        loose_.clear();
        open_seeds_.clear();
        for (Scalar& role : told_) role = Scalar{};
        std::fill(std::begin(usual_), std::end(usual_), nullptr);
        if (skip_space(at, end_) != '{') return false;
        at = read_object(at + 1, 0, 0, 0, Level::kRecord, &root_);
        if (at == nullptr) return false;
        skip_space(at, end_);
        return at == end_ && take_roles();
    }

    // Members up to the closing brace; the opening one lies before `at`.
    At read_object(At at, uint32_t seed, uint32_t space, int depth, Level level, Name** first) {
        const uint64_t object = ++n_objects_;
        const size_t n_loose = loose_.size();
        std::unique_ptr<Name> spare;
        Name** expected = first;
        if (skip_space(at, end_) == '}') return at + 1;
        if (level == Level::kInside) {
            // Under an empty name its names would be those of an object around it, and be taken for repeated.
            if (std::find(open_seeds_.begin(), open_seeds_.end(), seed) != open_seeds_.end()) return nullptr;
            open_seeds_.push_back(seed);
        }
        while (true) {
            Name* name = *expected;
            if (name != nullptr && name->seed == seed && name->level == level && name->is_at(at, limit_)) {
                at += name->n_shown;
            } else {
                at = read_name(at, seed, level, n_loose, spare, name);
                if (at == nullptr) return nullptr;
                if (name != spare.get()) *expected = name;
            }
            if (name->seen_in == object) return nullptr;  // twice: the last one counts
            name->seen_in = object;
            const char begin = skip_space(at, end_);
            at = name->is_feature && !is_skipping_
                     ? read_feature(at, begin, name->index, name->index, space, depth, &name->inner)
                     : read_field(at, begin, *name, depth);
            if (at == nullptr) return nullptr;
            expected = &name->next;
            const char behind = skip_space(at, end_);
            if (behind != ',') {
                if (behind != '}') return nullptr;
                break;
            }
            skip_space(++at, end_);
        }
        loose_.resize(n_loose);
        if (level == Level::kInside) open_seeds_.pop_back();
        return at + 1;
    }

    // A name and the colon behind it; it is `spare` if there is no more room in the table.
    __attribute__((noinline)) At read_name(
        At at, uint32_t seed, Level level, size_t n_loose, std::unique_ptr<Name>& spare, Name*& name) {
        if (at == end_ || *at != '"') return nullptr;
        std::string_view text;
        at = read_string(at + 1, end_, scratch_, text);
        if (at == nullptr) return nullptr;
        const uint32_t index = hash_name(text.data(), text.size(), seed);
        name = find(text, index, seed, level);
        if (name == nullptr) {
            const auto others = loose_.begin() + static_cast<ptrdiff_t>(n_loose);
            if (std::find(others, loose_.end(), index) != loose_.end()) return nullptr;
            loose_.push_back(index);
            if (loose_.size() - n_loose > kMaxLoose) return nullptr;
            spare = std::make_unique<Name>(new_name(text, index, seed, level));
            name = spare.get();
        }
        return skip_space(at, end_) == ':' ? at + 1 : nullptr;
    }

    // The name in the table, put there if it was not; nullptr if the table is full.
    Name* find(std::string_view text, uint32_t index, uint32_t seed, Level level) {
        uint32_t slot = (index ^ static_cast<uint32_t>(level)) * 0x9E3779B1u;
        for (slot >>= 32 - kSlotBits; slots_[slot] != nullptr; slot = (slot + 1) % kSlots) {
            Name* name = slots_[slot];
            if (name->index == index && name->seed == seed && name->level == level && name->text == text) return name;
        }
        if (known_.size() == kKnownNames || text.size() > kLongestName) return nullptr;
        texts_.emplace_back(text);
        known_.push_back(new_name(texts_.back(), index, seed, level));
        known_.back().show();
        return slots_[slot] = &known_.back();
    }

    Name new_name(std::string_view text, uint32_t index, uint32_t seed, Level level) const {
        Name name;
        name.text = text;
        name.index = index;
        name.seed = seed;
        name.level = level;
        name.is_feature = true;
        if (level == Level::kInside) return name;
        for (const auto& [feature, reading] : plan.readings) {
            if (feature == text) name.reading = reading;
        }
        name.is_feature = name.reading == Reading::kAsItIs;
        if (level == Level::kRow) return name;
        static constexpr std::string_view usual[5] = {"", "", "weight", "time", "id"};
        for (size_t i = 1; i < 5; ++i) {
            const bool is_told = !plan.told[i].empty();
            if (is_told ? plan.told[i] != text : !plan.takes_feedback || usual[i] != text || text.empty()) continue;
            name.role = static_cast<Role>(i);
            name.is_told = is_told;
        }
        if (!plan.container.empty() && plan.container == text) name.role = Role::kContainer;
        name.is_feature = name.role == Role::kNone && name.reading == Reading::kAsItIs;
        return name;
    }

    // A value of the record or of its row that is no feature, or read in another way.
    __attribute__((noinline)) At read_field(At at, char begin, Name& name, int depth) {
        if (at >= end_) return nullptr;
        if (name.level == Level::kRecord) {
            if (name.role == Role::kContainer) {
                if (*at == '{') {
                    events.entries.truncate(first_entry_);  // the rest of the record was taken for features
                    has_container_ = true;
                    at = read_object(at + 1, 0, 0, 0, Level::kRow, &name.inner);
                    is_skipping_ = true;
                    return at;
                }
                if (plan.requires_container) return nullptr;
            } else if (name.is_told) {
                return read_scalar(at, end_, scratch_, told_[static_cast<size_t>(name.role)]);
            } else if (name.role != Role::kNone) {
                usual_[static_cast<size_t>(name.role)] = at;
            }
            if (has_container_) return skip_value(at, end_, scratch_, kMaxDepth - depth);
        }
        switch (name.reading) {
            case Reading::kAsItIs: return read_feature(at, begin, name.index, name.index, 0, depth, &name.inner);
            case Reading::kLeftOut: return skip_value(at, end_, scratch_, kMaxDepth - depth);
            default: return read_as(at, name);
        }
    }

    // A feature that the configuration says how to read.
    At read_as(At at, const Name& name) {
        Scalar value;
        const At behind = read_scalar(at, end_, scratch_, value);
        if (behind == nullptr || value.kind == Scalar::kMissing) return behind;
        const bool is_number = value.kind == Scalar::kInteger || value.kind == Scalar::kDecimal;
        if (name.reading == Reading::kNumber) {
            return is_number && add_number(value.number, name.index, 0) ? behind : nullptr;
        }
        if (value.kind == Scalar::kDecimal || value.kind == Scalar::kOther || is_minus_zero(value)) return nullptr;
        add(hash_name(value.text.data(), value.text.size(), name.index), 1.0, 0);
        return behind;
    }

    // A value under a name, and how it begins: a number goes to `index`, categories and inner names are seeded
    // with `seed`.
    PENSTOCK_INLINE At read_feature(
        At at, char begin, uint32_t index, uint32_t seed, uint32_t space, int depth, Name** inner) {
        if (begin == '"') {
            const At close = find_close(at + 1, limit_);
            if (close == nullptr) return read_odd_category(at + 1, seed, space);
            add(hash_name(at + 1, static_cast<size_t>(close - at - 1), seed), 1.0, space);
            return close + 1;
        }
        if (begin > '9') return read_odd_feature(at, index, seed, space, depth, inner);
        PlainNumber number;
        const At behind = read_plain_number(at, limit_, number);
        if (behind == nullptr) return read_odd_number(at, index, space);
        if (number.mantissa != 0) add(index, number.value(), space);
        return behind;
    }

    __attribute__((noinline)) At read_odd_category(At at, uint32_t seed, uint32_t space) {
        std::string_view text;
        at = read_string(at, end_, scratch_, text);
        if (at != nullptr) add(hash_name(text.data(), text.size(), seed), 1.0, space);
        return at;
    }

    __attribute__((noinline)) At read_odd_number(At at, uint32_t index, uint32_t space) {
        if (at >= end_) return nullptr;
        Number number;
        at = read_number(at, end_, number);
        return at != nullptr && add_number(number.value, index, space) ? at : nullptr;
    }

    __attribute__((noinline)) At read_odd_feature(
        At at, uint32_t index, uint32_t seed, uint32_t space, int depth, Name** inner) {
        switch (*at) {
            case '{':
                if (depth >= kMaxDepth) return nullptr;
                return read_object(at + 1, seed, depth == 0 ? seed : space, depth + 1, Level::kInside, inner);
            case '[':
                if (depth >= kMaxDepth) return nullptr;
                return read_list(at + 1, index, seed, space, depth + 1, inner);
            case 't':
                at = read_word(at, end_, "true");
                if (at != nullptr) add(index, 1.0, space);
                return at;
            case 'f': return read_word(at, end_, "false");
            case 'n': return read_word(at, end_, "null");
            default: return nullptr;
        }
    }

    At read_list(At at, uint32_t index, uint32_t seed, uint32_t space, int depth, Name** inner) {
        char begin = skip_space(at, end_);
        if (begin == ']') return at + 1;
        for (uint32_t i = 0;; ++i) {
            at = read_feature(at, begin, index + i, seed, space, depth, inner);
            if (at == nullptr) return nullptr;
            const char behind = skip_space(at, end_);
            if (behind == ']') return at + 1;
            if (behind != ',') return nullptr;
            begin = skip_space(++at, end_);
        }
    }

    static bool is_minus_zero(const Scalar& value) { return value.kind == Scalar::kInteger && value.text == "-0"; }

    // Label, weight, time and id, once all of the record is known.
    bool take_roles() {
        if (plan.requires_container && !has_container_) return false;
        const bool is_feedback = has_container_ && plan.takes_feedback;
        double label = std::numeric_limits<double>::quiet_NaN();
        double weight = 1.0, time = std::numeric_limits<double>::quiet_NaN();
        std::string_view text, date, id;
        if (!take_label(told_[1], label, text)) return false;
        for (size_t i = 2; i < 5; ++i) {
            Scalar& value = told_[i];
            const bool is_told = !plan.told[i].empty();
            if (!is_told && is_feedback && usual_[i] != nullptr) {
                if (read_scalar(usual_[i], end_, scratch_, value) == nullptr) return false;
            }
            if (value.kind == Scalar::kMissing) {
                if (is_told) return false;
                continue;
            }
            const bool is_number = value.kind == Scalar::kInteger || value.kind == Scalar::kDecimal;
            switch (static_cast<Role>(i)) {
                case Role::kWeight:
                    if (!is_number || value.number < 0.0) return false;
                    weight = value.number;
                    break;
                case Role::kTime:
                    if (is_number) {
                        time = value.number;
                    } else if (value.kind == Scalar::kText) {
                        date = value.text;
                        if (date.empty()) return false;
                    } else {
                        return false;
                    }
                    break;
                default:
                    if ((value.kind != Scalar::kText && value.kind != Scalar::kInteger) || is_minus_zero(value)) return false;
                    id = value.text;
                    events.has_ids = true;
            }
        }
        if (date.data() != nullptr) events.dates.emplace_back(static_cast<int64_t>(events.kept.size()), date);
        events.labels.push_back(label);
        if (plan.labels == Labels::kMulticlass) events.classes.push_back(text);
        events.weights.push_back(weight);
        events.times.push_back(time);
        events.ids.push_back(id);
        return true;
    }

    bool take_label(const Scalar& value, double& label, std::string_view& name) const {
        if (value.kind == Scalar::kMissing) return !plan.requires_label;
        const bool is_number = value.kind == Scalar::kInteger || value.kind == Scalar::kDecimal;
        switch (plan.labels) {
            case Labels::kBinary:
                if (value.kind == Scalar::kTrue || value.kind == Scalar::kFalse) {
                    label = value.kind == Scalar::kTrue ? 1.0 : 0.0;
                } else if (is_number && (std::fabs(value.number) == 1.0 || value.number == 0.0)) {
                    label = value.number == 1.0 ? 1.0 : 0.0;
                } else {
                    return false;
                }
                return true;
            case Labels::kRegression:
                label = value.number;
                return is_number && std::fabs(value.number) <= 1e100;
            default: break;
        }
        if (value.kind == Scalar::kDecimal || value.kind == Scalar::kOther || value.text.empty() || is_minus_zero(value)) {
            return false;
        }
        name = value.text;
        if (plan.labels == Labels::kMulticlass) return true;
        label = name == plan.positive ? 1.0 : 0.0;
        return name == plan.positive || name == plan.negative;
    }

    PENSTOCK_INLINE bool add_number(double value, uint32_t index, uint32_t space) {
        if (!(std::fabs(value) <= kMaxMagnitude)) return false;
        if (value != 0.0) add(index, value, space);
        return true;
    }

    PENSTOCK_INLINE void add(uint32_t index, double value, uint32_t space) {
        events.entries.add(index, value, space);
    }

    static constexpr int kSlotBits = 14;
    static constexpr size_t kSlots = size_t{1} << kSlotBits;  // four times the names
    static constexpr size_t kMaxLoose = 512;                  // names of one object that are not in the table
    static constexpr size_t kLongestName = 256;

    std::vector<Name> known_;
    std::deque<std::string> texts_;
    std::vector<Name*> slots_ = std::vector<Name*>(kSlots);
    std::vector<uint32_t> loose_;  // indices of the names of the open objects that are not in the table
    std::vector<uint32_t> open_seeds_;
    Name* root_ = nullptr;         // the first name of a record
    uint64_t n_objects_ = 0;
    std::string scratch_;

    // Of the record that is being read:
    At end_ = nullptr;
    At limit_ = nullptr;  // what is read at one go may go so far; what has gone behind `end_`, `skip_space` declines
    size_t first_entry_ = 0;
    bool has_container_ = false;
    bool is_skipping_ = false;
    Scalar told_[5];
    const char* usual_[5] = {};
};

}  // namespace penstock
