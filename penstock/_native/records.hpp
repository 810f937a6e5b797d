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

#include "entries.hpp"

namespace penstock {

constexpr size_t kMaxSpare = 1 << 20;  // entries that the columns may hold on to between calls

enum class Labels : int { kBinary, kClasses, kMulticlass, kRegression };

// The events of one call, in columns.
struct Events {
    std::vector<int64_t> ends;  // of each event's entries
    Entries entries;
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
        if (entries.room() > kMaxSpare) *this = Events();
        entries.truncate(0);
        ends.clear(), labels.clear(), classes.clear();
        weights.clear(), times.clear(), ids.clear(), dates.clear(), kept.clear(), declined.clear();
        has_ids = false;
    }
};

// Where a record lies. Behind its end may be more, up to `limit`: that can be read, a few bytes at a time, but must
// not count.
struct Record {
    const char *begin, *end, *limit;
};

class EventReader {
  public:
    Events events;

    virtual ~EventReader() = default;

    void read(const Record* records, size_t n) {
        for (size_t i = 0; i < n; ++i) {
            const size_t n_entries = events.entries.size();
            if (read_record(records[i])) {
                events.kept.push_back(static_cast<int64_t>(i));
                events.ends.push_back(static_cast<int64_t>(events.entries.size()));
            } else {
                events.entries.truncate(n_entries);
                events.declined.push_back(static_cast<int64_t>(i));
            }
        }
    }

    virtual void clear() { events.clear(); }

  private:
    // Appends one event but for `kept` and `ends`; or returns false, having appended entries at most.
    virtual bool read_record(const Record& record) = 0;
};

}  // namespace penstock
