// Where hashed entries are gathered, row after row, until somebody reads or copies them.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

namespace penstock {

constexpr double MAX_MAGNITUDE = 1e18;  // of a value: sums of squares of such values still fit a float32
constexpr long long MAX_INTEGER = 1'000'000'000'000'000'000;

// Three columns that grow together. Owned by one thread.
class Entries {
    size_t size_ = 0, room_ = 0;
    std::unique_ptr<uint32_t[]> indices_, namespaces_;
    std::unique_ptr<double[]> values_;

    template <typename T>
    void move_to(size_t room, std::unique_ptr<T[]>& column) {
        std::unique_ptr<T[]> larger(new T[room]);
        std::copy_n(column.get(), size_, larger.get());
        column = std::move(larger);
    }
    __attribute__((noinline)) void grow() {
        const size_t room = room_ ? 2 * room_ : 64;
        move_to(room, indices_);
        move_to(room, values_);
        move_to(room, namespaces_);
        room_ = room;
    }
    void swap(Entries& other) {
        std::swap(size_, other.size_);
        std::swap(room_, other.room_);
        indices_.swap(other.indices_);
        values_.swap(other.values_);
        namespaces_.swap(other.namespaces_);
    }

  public:
    void add(uint32_t index, double value, uint32_t in) {
        if (__builtin_expect(size_ == room_, 0)) grow();
        indices_[size_] = index;
        values_[size_] = value;
        namespaces_[size_] = in;
        ++size_;
    }
    void truncate(size_t size) { size_ = size; }

    size_t size() const { return size_; }
    size_t room() const { return room_; }
    const uint32_t* indices() const { return indices_.get(); }
    const double* values() const { return values_.get(); }
    const uint32_t* namespaces() const { return namespaces_.get(); }

    // Fresh memory costs more in page faults than a whole walk, so whoever gathers again and again keeps what it
    // gathered in. It is taken while it is in use: gathering can run an application's code, which may come back.
    void take(Entries& kept) {
        swap(kept);
        size_ = 0;
    }
    void keep(Entries& used, size_t most) {
        if (used.room_ <= most) swap(used);
    }
};

}  // namespace penstock
