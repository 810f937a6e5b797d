// Records in, events in columns out: what the readers of every format have in common.
//
// A reader takes the records that need no special care and declines the others, which go the longer way.
// So it may decline whatever it likes, but must never accept what the longer way rejects or read it in
// another way.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace penstock {

constexpr size_t kMaxSpare = 1 << 20;  // entries that the columns may hold on to between calls

enum class Labels : int { kBinary, kClasses, kMulticlass, kRegression };

// The events of one call, in columns.
struct Events {
    std::vector<int64_t> ends;  // of each event's entries
    std::vector<uint32_t> indices;
    std::vector<double> values;
    std::vector<uint32_t> namespaces;  // none at all where every entry is in the default one
    std::vector<double> labels;
    std::vector<std::string_view> classes;  // of a multiclass task
    std::vector<double> weights;
    std::vector<double> times;
    std::vector<std::string_view> ids;      // empty where there is none
    std::vector<std::pair<int64_t, std::string_view>> dates;  // times that are text, by their event
    std::vector<int64_t> kept;      // record of each event
    std::vector<int64_t> declined;  // the other records
    bool has_ids = false;

    void clear() {
        if (indices.capacity() > kMaxSpare) *this = Events();
        ends.clear(), indices.clear(), values.clear(), namespaces.clear(), labels.clear(), classes.clear();
        weights.clear(), times.clear(), ids.clear(), dates.clear(), kept.clear(), declined.clear();
        has_ids = false;
    }

    void truncate(size_t n_entries) {
        indices.resize(n_entries);
        values.resize(n_entries);
        if (namespaces.size() > n_entries) namespaces.resize(n_entries);
    }
};

class EventReader {
  public:
    Events events;

    virtual ~EventReader() = default;

    void read(const std::string_view* records, size_t n) {
        for (size_t i = 0; i < n; ++i) {
            const size_t n_entries = events.indices.size();
            if (read_record(records[i].data(), records[i].size())) {
                events.kept.push_back(static_cast<int64_t>(i));
                events.ends.push_back(static_cast<int64_t>(events.indices.size()));
            } else {
                events.truncate(n_entries);
                events.declined.push_back(static_cast<int64_t>(i));
            }
        }
    }

    virtual void clear() { events.clear(); }

  private:
    // Appends one event but for `kept` and `ends`; or returns false, having appended entries at most.
    virtual bool read_record(const char* at, size_t length) = 0;
};

}  // namespace penstock
