// Arithmetic on eight numbers at a time, whatever the width of the processor's registers.
#ifndef PENSTOCK_LANES_HPP
#define PENSTOCK_LANES_HPP

#include <cstddef>

#include "inline.hpp"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are passed inline only: they have no ABI
#endif

// One version of a function for each width of the processor's registers. What is written with `Lanes` must name
// that width, N doubles (`PENSTOCK_BY_WIDTH`): GCC takes a vector that is wider than a register apart in
// memory, which is ten times slower. Plain loops it widens by itself (`PENSTOCK_WIDE`).
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define PENSTOCK_WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#define PENSTOCK_BY_WIDTH(result, name, parameters, ...)                                                     \
    __attribute__((target("avx512f"))) static result name parameters { return name##_by<8>(__VA_ARGS__); } \
    __attribute__((target("avx2"))) static result name parameters { return name##_by<4>(__VA_ARGS__); }    \
    __attribute__((target("default"))) static result name parameters { return name##_by<2>(__VA_ARGS__); }
#else
#define PENSTOCK_WIDE
#define PENSTOCK_BY_WIDTH(result, name, parameters, ...) \
    static result name parameters { return name##_by<2>(__VA_ARGS__); }
#endif

namespace wide {

constexpr ptrdiff_t LANES = 8;

template <int N>
struct Register {
    typedef double Value __attribute__((vector_size(8 * N)));
    typedef double Unaligned __attribute__((vector_size(8 * N), aligned(8), may_alias));
};

// The sum of a register's numbers: its upper half is added to the lower one, until one number is left. Halves are
// taken whole, as GCC does not see by itself that sums of single numbers could be.
PENSTOCK_INLINE double total(const Register<2>::Value& v) { return v[0] + v[1]; }
PENSTOCK_INLINE double total(const Register<4>::Value& v) {
    return total(Register<2>::Value{v[0], v[1]} + Register<2>::Value{v[2], v[3]});
}
PENSTOCK_INLINE double total(const Register<8>::Value& v) {
    return total(Register<4>::Value{v[0], v[1], v[2], v[3]} + Register<4>::Value{v[4], v[5], v[6], v[7]});
}

// Eight numbers, in registers of N.
template <int N>
struct Lanes {
    static constexpr int PARTS = LANES / N;
    typename Register<N>::Value part[PARTS];

    PENSTOCK_INLINE Lanes() {
        for (int k = 0; k < PARTS; k++) part[k] = typename Register<N>::Value{};
    }
    PENSTOCK_INLINE explicit Lanes(const double* p) {
        for (int k = 0; k < PARTS; k++) part[k] = *(const typename Register<N>::Unaligned*)(p + k * N);
    }
    PENSTOCK_INLINE static Lanes of(double value) {
        Lanes same;
        for (int k = 0; k < PARTS; k++) same.part[k] += value;
        return same;
    }
    PENSTOCK_INLINE void store(double* p) const {
        for (int k = 0; k < PARTS; k++) *(typename Register<N>::Unaligned*)(p + k * N) = part[k];
    }
    PENSTOCK_INLINE double operator[](int i) const { return part[i / N][i % N]; }
    PENSTOCK_INLINE Lanes& operator+=(const Lanes& other) {
        for (int k = 0; k < PARTS; k++) part[k] += other.part[k];
        return *this;
    }
    PENSTOCK_INLINE Lanes operator+(const Lanes& other) const { return Lanes(*this) += other; }
    PENSTOCK_INLINE Lanes operator*(const Lanes& other) const {
        Lanes product;
        for (int k = 0; k < PARTS; k++) product.part[k] = part[k] * other.part[k];
        return product;
    }
    PENSTOCK_INLINE Lanes operator*(double factor) const {
        Lanes product;
        for (int k = 0; k < PARTS; k++) product.part[k] = part[k] * factor;
        return product;
    }
    PENSTOCK_INLINE double total() const {
        Lanes sum = *this;  // ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)), whatever N is
        for (int half = PARTS / 2; half > 0; half /= 2)
            for (int k = 0; k < half; k++) sum.part[k] += sum.part[k + half];
        return wide::total(sum.part[0]);
    }
};

}  // namespace wide

#endif
