"""Elastic weight consolidation: see consolidation.hpp."""

from libc.stdint cimport int64_t, uint32_t
from libcpp cimport bool as cbool


cdef extern from "consolidation.hpp" namespace "penstock" nogil:
    cdef cppclass Held:
        pass

    cdef cppclass Hold:
        Held* held
        float* table
        size_t width
        size_t stride
        size_t capacity
        size_t n_classes
        cbool rated
        double strength
        double memory
        int64_t every
        double weight
        double* pace
        double* curvature

    void hold_on(void* context, const uint32_t* buckets, const double* x, Py_ssize_t n) noexcept
    void consolidate(const Hold& hold, size_t n_buckets, const float* weights, size_t n_weights)
