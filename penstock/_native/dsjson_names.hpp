// Names that have been seen before, with what they mean where they stand, and their hashes.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "hashing.hpp"
#include "json_names.hpp"
#include "json_text.hpp"

namespace penstock::dsjson {

using At = const char*;

// Where a name stands. In a list names are features whatever they are called.
enum class Level : uint8_t { kRecord, kContext, kAction, kInside, kInList };

// What a name means there. Fields that are one word come first.
enum class Role : uint8_t {
    kCost, kProbability, kAction, kIndex, kDropped, kSkips, kId, kTime,
    kOrder, kGiven, kContext, kActions, kSlots, kFeature, kNothing,
};
constexpr size_t kWords = static_cast<size_t>(Role::kTime) + 1;

inline Role role_of(std::string_view text, Level level) {
    struct Meaning {
        Level level;
        std::string_view text;
        Role role;
    };
    static constexpr Meaning meanings[] = {
        {Level::kRecord, "_label_cost", Role::kCost},
        {Level::kRecord, "_label_probability", Role::kProbability},
        {Level::kRecord, "_label_Action", Role::kAction},
        {Level::kRecord, "_labelIndex", Role::kIndex},
        {Level::kRecord, "pdrop", Role::kDropped},
        {Level::kRecord, "_skipLearn", Role::kSkips},
        {Level::kRecord, "EventId", Role::kId},
        {Level::kRecord, "Timestamp", Role::kTime},
        {Level::kRecord, "a", Role::kOrder},
        {Level::kRecord, "p", Role::kGiven},
        {Level::kRecord, "c", Role::kContext},
        {Level::kRecord, "_outcomes", Role::kSlots},
        {Level::kRecord, "_slots", Role::kSlots},
        {Level::kContext, "_multi", Role::kActions},
        {Level::kContext, "_outcomes", Role::kSlots},
        {Level::kContext, "_slots", Role::kSlots},
    };
    for (const Meaning& meaning : meanings) {
        if (meaning.level == level && meaning.text == text) return meaning.role;
    }
    if (level == Level::kRecord) return Role::kNothing;
    const bool is_hidden = level != Level::kInList && !text.empty() && text.front() == '_' && text != "_text";
    return is_hidden ? Role::kNothing : Role::kFeature;
}

// Records of one stream have the same names in the same order, mostly: each remembers which one came next, so that
// comparing bytes replaces reading, hashing and looking up.
struct Name : ShownName {
    uint32_t seed = 0;
    uint32_t index = 0;
    Level level = Level::kRecord;
    Role role = Role::kNothing;
    Name* next = nullptr;   // the one that followed
    Name* inner = nullptr;  // the first one in its value
    uint64_t seen_in = 0;   // the last object that has it
};

class Names {
  public:
    Name* first = nullptr;  // of a record

    Names() { known_.reserve(kRoom); }  // they point to one another

    // To be called between records: what would not fit is forgotten, and all the others with it.
    void make_room() {
        if (!is_full_) return;
        known_.clear(), texts_.clear();
        std::fill(slots_.begin(), slots_.end(), nullptr);
        first = nullptr;
        is_full_ = false;
    }

    // The name at `at`, and the colon behind it; `expected` is, and becomes, where it is guessed. The record is to be
    // declined if it is none, or there is no room for it.
    PENSTOCK_INLINE At read(At at, At end, At limit, uint32_t seed, Level level, Name*& expected) {
        const Name* name = expected;
        const bool is_known = name != nullptr && name->seed == seed && name->level == level && name->is_at(at, limit);
        return is_known && end - at >= name->n_shown ? at + name->n_shown : read_other(at, end, seed, level, expected);
    }

  private:
    __attribute__((noinline)) At read_other(At at, At end, uint32_t seed, Level level, Name*& name) {
        if (at == end || *at != '"') return nullptr;
        std::string_view text;
        at = read_string(at + 1, end, scratch_, text);
        if (at == nullptr) return nullptr;
        name = find(text, seed, level);
        return name != nullptr && skip_space(at, end) == ':' ? at + 1 : nullptr;
    }

    Name* find(std::string_view text, uint32_t seed, Level level) {
        const uint32_t index = hash_name(text.data(), text.size(), seed);
        uint32_t slot = (index ^ static_cast<uint32_t>(level)) * 0x9E3779B1u >> (32 - kSlotBits);
        for (; slots_[slot] != nullptr; slot = (slot + 1) % kSlots) {
            Name* name = slots_[slot];
            if (name->index == index && name->seed == seed && name->level == level && name->text == text) return name;
        }
        if (text.size() > kLongest) return nullptr;
        is_full_ = known_.size() == kRoom;
        if (is_full_) return nullptr;
        texts_.emplace_back(text);
        known_.emplace_back();
        Name& name = known_.back();
        name.text = texts_.back();
        name.seed = seed;
        name.index = index;
        name.level = level;
        name.role = role_of(text, level);
        name.show();
        return slots_[slot] = &name;
    }

    static constexpr size_t kRoom = 4096;
    static constexpr int kSlotBits = 14;
    static constexpr size_t kSlots = size_t{1} << kSlotBits;  // four times the names
    static constexpr size_t kLongest = 256;

    std::vector<Name> known_;
    std::deque<std::string> texts_;
    std::vector<Name*> slots_ = std::vector<Name*>(kSlots);
    std::string scratch_;
    bool is_full_ = false;
};

}  // namespace penstock::dsjson
