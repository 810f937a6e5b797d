"""The entries of a row, in a block: see blocks.hpp."""

from libc.stdint cimport uint32_t, uint64_t
from libcpp cimport bool as cbool


cdef extern from "blocks.hpp" namespace "penstock" nogil:
    const double FLOAT_MAX

    float finite(double x) noexcept
    float effective(double weight, double contraction, double gravity) noexcept
    size_t words_of(size_t n_buckets) noexcept
    void touch(uint64_t* touched, uint32_t bucket) noexcept
    void freeze_weights(
        const float* table, size_t width, const uint64_t* touched, size_t n_buckets, double contraction, double gravity,
        float* out, size_t apart
    ) noexcept
    void copy_touched(
        const float* table, size_t width, size_t taken, const uint64_t* touched, size_t n_buckets, float* out
    ) noexcept
    void find_touched(const float* table, size_t width, size_t n_buckets, uint64_t* touched) noexcept
    cbool copy_usable(
        const uint32_t* indices, const double* values, Py_ssize_t n, uint32_t mask, double largest,
        uint32_t* buckets, double* x,
    ) noexcept
    double block_margin(
        const float* weights, size_t width, const uint32_t* buckets, const double* x, Py_ssize_t n
    ) noexcept
    double block_margin(
        const float* weights, size_t width, const uint32_t* buckets, const double* x, Py_ssize_t n,
        double contraction, double gravity
    ) noexcept
