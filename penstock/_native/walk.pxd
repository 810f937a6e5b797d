"""Walking a row of hashed features: see walk.hpp."""

from libc.stdint cimport uint32_t
from libcpp cimport bool as cbool
from libcpp.vector cimport vector


cdef extern from "walk.hpp" namespace "penstock" nogil:
    enum: MAX_ORDER "penstock::MAX_ORDER"
    const double LARGEST

    ctypedef void (*Visit)(void* context, const uint32_t* buckets, const double* x, Py_ssize_t n) noexcept

    cdef cppclass Interaction:
        int order
        uint32_t namespaces[3]
        cbool anything[3]

    cdef cppclass Plan:
        uint32_t mask
        cbool constant
        vector[Interaction] interactions

    cdef cppclass Walk:
        const uint32_t* indices
        const double* values
        const uint32_t* namespaces
        Py_ssize_t length
        cbool whole

    void make_room(const Plan& plan, Walk& walk, size_t longest) except +
    void visit_row(const Plan& plan, Walk& walk, Visit visit, void* context) noexcept
    void visit_again(const Plan& plan, Walk& walk, Visit visit, void* context) noexcept
    void announce(
        const Plan& plan, const uint32_t* indices, Py_ssize_t n, const float* weights, size_t width
    ) noexcept
