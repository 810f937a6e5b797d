from libc.stdint cimport uint32_t
from libcpp.vector cimport vector


cdef extern from "hashing.hpp" namespace "penstock" nogil:
    uint32_t murmur(const unsigned char* data, size_t length, uint32_t seed)
    uint32_t hash_name(const char* name, size_t length, uint32_t seed)


cdef class Buffer:
    """Entries of the rows encoded so far, one after the other; owned by one thread."""
    cdef vector[uint32_t] indices
    cdef vector[double] values
    cdef vector[uint32_t] namespaces

    cdef void clear(self) noexcept


cdef int encode_into(object row, Buffer out) except -1
