"""What of a table was ever updated: see touched.hpp."""

from libc.stdint cimport uint32_t, uint64_t


cdef extern from "touched.hpp" namespace "penstock" nogil:
    cdef cppclass Touched:
        @staticmethod
        size_t size(size_t n_buckets) noexcept
        void lie_in(uint64_t* memory, size_t n_buckets) noexcept
        void add(uint32_t bucket) noexcept

    void freeze_weights(
        const float* table, size_t width, const Touched& touched, size_t n_buckets, double contraction, double gravity,
        float* out, size_t apart
    ) noexcept
    void copy_touched(
        const float* table, size_t width, size_t taken, const Touched& touched, size_t n_buckets, float* out
    ) noexcept
    void find_touched(const float* table, size_t width, size_t n_buckets, Touched& touched) noexcept
