// Where hashed entries are gathered, row after row, until somebody reads or copies them.

#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace penstock {

// Three columns that grow together. Owned by one thread.
class Entries {
    size_t size_ = 0;
    std::vector<uint32_t> indices_;  // as long as there is room
    std::vector<double> values_;
    std::vector<uint32_t> namespaces_;

    void grow() {
        const size_t room = size_ ? 2 * size_ : 64;
        indices_.resize(room);
        values_.resize(room);
        namespaces_.resize(room);
    }

  public:
    void add(uint32_t index, double value, uint32_t in) {
        if (__builtin_expect(size_ == namespaces_.size(), 0)) grow();
        indices_[size_] = index;
        values_[size_] = value;
        namespaces_[size_] = in;
        ++size_;
    }
    void truncate(size_t size) { size_ = size; }

    size_t size() const { return size_; }
    size_t room() const { return namespaces_.size(); }
    const uint32_t* indices() const { return indices_.data(); }
    const double* values() const { return values_.data(); }
    const uint32_t* namespaces() const { return namespaces_.data(); }

    // Fresh memory costs more in page faults than a whole walk, so whoever gathers again and again keeps what it
    // gathered in. It is taken while it is in use: gathering can run an application's code, which may come back.
    void take(Entries& kept) {
        std::swap(*this, kept);
        size_ = 0;
    }
    void keep(Entries& used, size_t most) {
        if (used.room() <= most) std::swap(*this, used);
    }
};

}  // namespace penstock
