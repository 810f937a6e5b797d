"""Adaptive, normalised updates: see adaptive.hpp."""

from libc.stdint cimport uint32_t
from libcpp cimport bool as cbool

from penstock._native.touched cimport Touched


cdef extern from "adaptive.hpp" namespace "penstock" nogil:
    enum: LANES "wide::LANES"

    cdef cppclass Update:
        float* table
        Touched touched
        size_t width
        size_t stride
        Py_ssize_t n_classes
        double* gradient
        double* square
        double* norm
        double* moved
        double* change
        cbool normalised
        cbool square_root
        double power_t
        double half_life
        uint32_t now
        double alpha
        double beta
        double l1
        double l2
        cbool may_wait

    cdef cppclass Probe:
        const Update* c
        double square
        double norm
        double moved

    void measure_adaptive(void* context, const uint32_t* buckets, const double* x, Py_ssize_t n) noexcept
    void apply_adaptive(void* context, const uint32_t* buckets, const double* x, Py_ssize_t n) noexcept
    void probe_adaptive(void* context, const uint32_t* buckets, const double* x, Py_ssize_t n) noexcept
