from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libcpp.vector cimport vector


cdef extern from "hashing.hpp" namespace "penstock" nogil:
    uint32_t murmur(const unsigned char* data, size_t length, uint32_t seed)
    uint32_t hash_name(const char* name, size_t length, uint32_t seed)


cdef extern from "entries.hpp" namespace "penstock" nogil:
    const double MAX_MAGNITUDE
    const long long MAX_INTEGER

    cppclass Entries:
        void add(uint32_t index, double value, uint32_t namespace) except +
        void truncate(size_t size) noexcept
        size_t size() noexcept
        const uint32_t* indices() noexcept
        const double* values() noexcept
        const uint32_t* namespaces() noexcept
        void take(Entries& kept) noexcept
        void keep(Entries& used, size_t most) noexcept


ctypedef const uint8_t* Text  # UTF-8, delimited by a second pointer


cdef Text utf8(PyObject* text, Text* last) except NULL
cdef int hash_text(PyObject* text, uint32_t seed, uint32_t* result) except -1
cdef object matrix(vector[int64_t]& indptr, Entries& entries)
cdef int encode_into(object row, Entries& out) except -1
