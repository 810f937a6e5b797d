"""The entries of a row, in a block: see blocks.hpp."""

from libc.stdint cimport uint32_t
from libcpp cimport bool as cbool


cdef extern from "blocks.hpp" namespace "penstock" nogil:
    const double FLOAT_MAX

    float finite(double x) noexcept
    float effective(double weight, double contraction, double gravity) noexcept
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
