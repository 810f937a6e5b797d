// One line of VW's dsjson to a decision in columns: hashed context and actions, and what was taken and earned.
//
// Does what `orjson.loads`, `penstock.codecs.dsjson` and `features.encode_rows` do one after the other, for the
// records that they accept; anything out of the ordinary is declined and left to them.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <deque>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "dsjson_names.hpp"
#include "entries.hpp"
#include "hashing.hpp"
#include "iso_time.hpp"
#include "json_values.hpp"
#include "records.hpp"

namespace penstock::dsjson {

constexpr int kMaxDepth = 30;          // of containers inside a row: what is deeper is declined
constexpr double kRounded = 0.999e-3;  // as near to 1 is a sum of probabilities however it is added up
constexpr double kTolerance = 1e-5;    // of a probability that is written twice

// What decisions have beside what all events have: entries of those are contexts, and labels are rewards.
struct Decisions {
    Entries actions;
    std::vector<int64_t> action_ends;    // of each offered action in `actions`
    std::vector<int64_t> offer_ends;     // of each decision among the offered actions
    std::vector<std::string_view> arms;  // of each offered action; none at all where they go by their numbers
    std::vector<uint32_t> arm_hashes;
    std::deque<std::string> unescaped;  // text that does not stand in the records as it is
    std::vector<int64_t> chosen;
    std::vector<double> propensities;

    void clear() {
        if (actions.room() > kMaxSpare) *this = Decisions();
        actions.truncate(0);
        action_ends.clear(), offer_ends.clear(), arms.clear(), arm_hashes.clear(), unescaped.clear();
        chosen.clear(), propensities.clear();
    }
};

class DecisionReader : public EventReader {
  public:
    std::vector<std::string> arm;  // names that lead to the identity of an action; none: it is its number
    Decisions decisions;

    void clear() override {
        events.clear();
        decisions.clear();
    }

  private:
    // Where an object or a value stands.
    struct Place {
        Level level;
        uint32_t seed = 0;   // of its names and categories
        uint32_t space = 0;  // its namespace
        int depth = 0;       // containers around it, from its row on
        int step = -1;       // how many names of `arm` have led here; -1: others have
    };

    bool read_record(const Record& record) override {
        const size_t n_actions = decisions.actions.size();
        const size_t n_offered = decisions.action_ends.size(), n_arms = decisions.arms.size();
        end_ = record.end;
        limit_ = record.limit;
        if (read_decision(record.begin) && take_fields(decisions.action_ends.size() - n_offered)) {
            decisions.offer_ends.push_back(static_cast<int64_t>(decisions.action_ends.size()));
            return true;
        }
        decisions.actions.truncate(n_actions);
        decisions.action_ends.resize(n_offered);
        decisions.arms.resize(n_arms);
        decisions.arm_hashes.resize(n_arms);
        return false;
    }

    bool read_decision(At at) {
        names_.make_room();
        open_seeds_.clear();
        std::fill(std::begin(words_), std::end(words_), Scalar{});
        order_.clear(), given_.clear();
        is_given_ = false;
        out_ = &events.entries;
        if (skip_space(at, end_) != '{') return false;
        at = read_object(at + 1, Place{Level::kRecord}, names_.first);
        if (at == nullptr) return false;
        skip_space(at, end_);
        return at == end_;
    }

    // Members up to the closing brace; the opening one lies before `at`.
    At read_object(At at, const Place& place, Name*& first) {
        const uint64_t object = ++n_objects_;
        Name** expected = &first;
        if (skip_space(at, end_) == '}') return at + 1;
        if (place.level >= Level::kInside) {
            // Under an empty name its names would be those of an object around it, and be taken for repeated.
            if (std::find(open_seeds_.begin(), open_seeds_.end(), place.seed) != open_seeds_.end()) return nullptr;
            open_seeds_.push_back(place.seed);
        }
        while (true) {
            at = names_.read(at, end_, limit_, place.seed, place.level, *expected);
            if (at == nullptr) return nullptr;
            Name& name = **expected;
            if (name.seen_in == object) return nullptr;  // twice: the last one counts
            name.seen_in = object;
            skip_space(at, end_);
            at = read_member(at, name, place);
            if (at == nullptr) return nullptr;
            expected = &name.next;
            const char behind = skip_space(at, end_);
            if (behind == '}') break;
            if (behind != ',') return nullptr;
            skip_space(++at, end_);
        }
        if (place.level >= Level::kInside) open_seeds_.pop_back();
        return at + 1;
    }

    At read_member(At at, Name& name, const Place& place) {
        if (at == end_) return nullptr;
        switch (name.role) {
            case Role::kFeature:
            case Role::kNothing: return read_inside(at, name, place);
            case Role::kContext:
                return *at == '{' ? read_object(at + 1, Place{Level::kContext}, name.inner) : nullptr;
            case Role::kActions: return *at == '[' ? read_actions(at + 1, name.inner) : nullptr;
            case Role::kOrder:
                return read_numbers(at, [this](const Scalar& number) {
                    order_.push_back(number.kind == Scalar::kInteger ? static_cast<int64_t>(number.number) : 0);
                });
            case Role::kGiven:
                is_given_ = *at != 'n';
                if (!is_given_) return read_word(at, end_, "null");
                return read_numbers(at, [this](const Scalar& number) { given_.push_back(number.number); });
            case Role::kSlots: return nullptr;
            default: return read_kept(at, words_[static_cast<size_t>(name.role)]);
        }
    }

    // What is a feature, or nothing; the identity of an action may be in it.
    At read_inside(At at, Name& name, const Place& place) {
        Place value = place;
        value.seed = name.index;
        value.level = place.level == Level::kInList ? Level::kInList : Level::kInside;
        value.step = -1;
        const bool is_on_the_way = place.step >= 0 && name.text == arm[static_cast<size_t>(place.step)];
        if (is_on_the_way) {
            value.step = place.step + 1;
            if (static_cast<size_t>(value.step) == arm.size()) {
                if (read_kept(at, arm_) == nullptr) return nullptr;
                value.step = -1;
            }
        }
        if (name.role == Role::kFeature) return read_feature(at, name.index, value, name.inner);
        if (value.step < 0) return skip_value(at, end_, scratch_, kMaxDepth);
        const size_t n_entries = out_->size();
        at = read_feature(at, name.index, value, name.inner);
        out_->truncate(n_entries);
        return at;
    }

    // A value: a number goes to `index`, categories and inner names are seeded with `value.seed`.
    At read_feature(At at, uint32_t index, const Place& value, Name*& inner) {
        if (at == end_) return nullptr;
        switch (*at) {
            case '"': return read_category(at + 1, value);
            case '{': {
                if (value.depth >= kMaxDepth) return nullptr;
                Place object = value;
                if (object.depth++ == 0) object.space = value.seed;
                return read_object(at + 1, object, inner);
            }
            case '[': return value.depth < kMaxDepth ? read_list(at + 1, index, value, inner) : nullptr;
            case 't':
                at = read_word(at, end_, "true");
                if (at != nullptr) out_->add(index, 1.0, value.space);
                return at;
            case 'f': return read_word(at, end_, "false");
            case 'n': return read_word(at, end_, "null");
            default: return read_feature_number(at, index, value.space);
        }
    }

    PENSTOCK_INLINE At read_category(At at, const Place& value) {
        const At close = find_close(at, limit_);
        if (close == nullptr || close >= end_) return read_odd_category(at, value);
        out_->add(hash_name(at, static_cast<size_t>(close - at), value.seed), 1.0, value.space);
        return close + 1;
    }

    __attribute__((noinline)) At read_odd_category(At at, const Place& value) {
        std::string_view text;
        at = read_string(at, end_, scratch_, text);
        if (at != nullptr) out_->add(hash_name(text.data(), text.size(), value.seed), 1.0, value.space);
        return at;
    }

    PENSTOCK_INLINE At read_feature_number(At at, uint32_t index, uint32_t space) {
        PlainNumber number;
        const At behind = read_plain_number(at, limit_, number);
        if (behind == nullptr || behind > end_) return read_odd_number(at, index, space);
        if (number.mantissa != 0) out_->add(index, number.value(), space);
        return behind;
    }

    __attribute__((noinline)) At read_odd_number(At at, uint32_t index, uint32_t space) {
        Number number;
        at = read_number(at, end_, number);
        if (at == nullptr || !(std::fabs(number.value) <= MAX_MAGNITUDE)) return nullptr;
        if (number.value != 0.0) out_->add(index, number.value, space);
        return at;
    }

    At read_list(At at, uint32_t index, Place value, Name*& inner) {
        value.level = Level::kInList;
        value.step = -1;
        ++value.depth;
        if (skip_space(at, end_) == ']') return at + 1;
        for (uint32_t i = 0;; ++i) {
            at = read_feature(at, index + i, value, inner);
            if (at == nullptr) return nullptr;
            const char behind = skip_space(at, end_);
            if (behind == ']') return at + 1;
            if (behind != ',') return nullptr;
            skip_space(++at, end_);
        }
    }

    // One object each, at least one.
    At read_actions(At at, Name*& first) {
        Place action{Level::kAction};
        if (!arm.empty()) action.step = 0;
        out_ = &decisions.actions;
        while (true) {
            if (skip_space(at, end_) != '{') return nullptr;
            arm_ = Scalar{};
            at = read_object(at + 1, action, first);
            if (at == nullptr || !take_arm()) return nullptr;
            decisions.action_ends.push_back(static_cast<int64_t>(decisions.actions.size()));
            const char behind = skip_space(at, end_);
            if (behind == ']') break;
            if (behind != ',') return nullptr;
            ++at;
        }
        out_ = &events.entries;
        return at + 1;
    }

    bool take_arm() {
        if (arm.empty()) return true;
        const bool is_word = arm_.kind == Scalar::kText || arm_.kind == Scalar::kTrue || arm_.kind == Scalar::kFalse;
        if ((!is_word && !arm_.is_integer()) || arm_.text.empty()) return false;
        const std::string_view text = arm_.text;
        decisions.arms.push_back(text);
        decisions.arm_hashes.push_back(murmur(reinterpret_cast<const unsigned char*>(text.data()), text.size(), 0));
        return true;
    }

    // A value that is no container; its text stays where it is until the columns are cleared.
    At read_kept(At at, Scalar& value) {
        at = read_scalar(at, end_, scratch_, value);
        if (at != nullptr && value.kind == Scalar::kOther) {
            decisions.unescaped.emplace_back(value.text);
            value.text = decisions.unescaped.back();
            value.kind = Scalar::kText;
        }
        return at;
    }

    template <typename Take>
    At read_numbers(At at, Take take) {
        if (*at != '[') return nullptr;
        while (true) {
            Scalar number;
            skip_space(++at, end_);
            at = read_scalar(at, end_, scratch_, number);
            if (at == nullptr || !number.is_number()) return nullptr;
            take(number);
            const char behind = skip_space(at, end_);
            if (behind == ']') return at + 1;
            if (behind != ',') return nullptr;
        }
    }

    const Scalar& word(Role role) const { return words_[static_cast<size_t>(role)]; }

    // What the fields say, once all of the record is known.
    bool take_fields(size_t n) {
        int64_t chosen = -1;
        double propensity, weight, time = std::numeric_limits<double>::quiet_NaN();
        const Scalar &cost = word(Role::kCost), &id = word(Role::kId), &moment = word(Role::kTime);
        if (n == 0 || !cost.is_number() || !are_different(n)) return false;
        if (!take_chosen(static_cast<int64_t>(n), chosen) || !take_propensity(n, chosen, propensity)) return false;
        if (!take_weight(weight)) return false;
        if (id.kind != Scalar::kMissing && id.kind != Scalar::kText && !id.is_integer()) return false;
        if (moment.is_number()) {
            time = moment.number;
        } else if (moment.kind == Scalar::kText) {
            if (!read_utc(moment.text, time)) {
                events.dates.emplace_back(static_cast<int64_t>(events.kept.size()), moment.text);
            }
        } else if (moment.kind != Scalar::kMissing) {
            return false;
        }
        events.labels.push_back(0.0 - cost.number);
        events.weights.push_back(weight);
        events.times.push_back(time);
        events.ids.push_back(id.kind == Scalar::kMissing ? std::string_view() : id.text);
        decisions.chosen.push_back(chosen);
        decisions.propensities.push_back(propensity);
        return true;
    }

    // Whether the last n identities are. Those that hash alike are declined, be they different or not.
    bool are_different(size_t n) {
        if (arm.empty()) return true;
        hashes_.assign(decisions.arm_hashes.end() - static_cast<ptrdiff_t>(n), decisions.arm_hashes.end());
        std::sort(hashes_.begin(), hashes_.end());
        return std::adjacent_find(hashes_.begin(), hashes_.end()) == hashes_.end();
    }

    bool take_chosen(int64_t n, int64_t& chosen) const {
        for (const Role role : {Role::kAction, Role::kIndex}) {
            const Scalar& value = word(role);
            if (value.kind == Scalar::kMissing) continue;
            if (!value.is_integer()) return false;
            const int64_t place = static_cast<int64_t>(value.number) - (role == Role::kAction);
            if (place < 0 || place >= n || (chosen >= 0 && place != chosen)) return false;
            chosen = place;
        }
        return chosen >= 0;
    }

    bool take_propensity(size_t n, int64_t chosen, double& propensity) {
        const Scalar& told = word(Role::kProbability);
        const bool is_told = told.kind != Scalar::kMissing;
        size_t place = 0;  // of what was taken, in `a`
        if (order_.size() != n) return false;
        is_listed_.assign(n, false);
        for (size_t i = 0; i < n; ++i) {
            const int64_t action = order_[i] - 1;
            if (action < 0 || action >= static_cast<int64_t>(n)) return false;
            if (is_listed_[static_cast<size_t>(action)]) return false;
            is_listed_[static_cast<size_t>(action)] = true;
            if (action == chosen) place = i;
        }
        if (is_told && !(told.is_number() && is_propensity(told.number))) return false;
        propensity = told.number;
        if (!is_given_) return is_told;
        double total = 0.0;
        for (const double probability : given_) {
            if (!(probability >= 0.0 && probability <= 1.0)) return false;
            total += probability;
        }
        if (given_.size() != n || !(std::fabs(total - 1.0) <= kRounded)) return false;
        if (!is_told) propensity = given_[place];
        return is_propensity(given_[place]) && std::fabs(propensity - given_[place]) <= kTolerance;
    }

    static bool is_propensity(double value) { return value > 0.0 && value <= 1.0; }

    bool take_weight(double& weight) const {
        const Scalar &skips = word(Role::kSkips), &dropped = word(Role::kDropped);
        const bool is_skipped = skips.kind == Scalar::kTrue;
        if (!is_skipped && skips.kind != Scalar::kFalse && !skips.is_absent()) return false;
        if (!dropped.is_absent() && !(dropped.is_number() && dropped.number >= 0.0 && dropped.number < 1.0)) {
            return false;
        }
        weight = is_skipped ? 0.0 : 1.0 / (1.0 - dropped.number);
        return true;
    }

    Names names_;
    std::vector<uint32_t> open_seeds_;
    uint64_t n_objects_ = 0;
    std::string scratch_;
    std::vector<uint32_t> hashes_;
    std::vector<bool> is_listed_;

    // Of the record that is being read:
    At end_ = nullptr, limit_ = nullptr;
    Entries* out_ = &events.entries;
    Scalar words_[kWords];
    Scalar arm_;
    std::vector<int64_t> order_;
    std::vector<double> given_;
    bool is_given_ = false;
};

}  // namespace penstock::dsjson
