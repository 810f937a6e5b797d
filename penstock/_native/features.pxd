from libc.stdint cimport uint32_t


cdef extern from "hashing.hpp" namespace "penstock" nogil:
    uint32_t murmur(const unsigned char* data, size_t length, uint32_t seed)
    uint32_t hash_name(const char* name, size_t length, uint32_t seed)


cdef extern from "entries.hpp" namespace "penstock" nogil:
    cppclass Entries:
        void add(uint32_t index, double value, uint32_t namespace) except +
        void truncate(size_t size) noexcept
        size_t size() noexcept
        const uint32_t* indices() noexcept
        const double* values() noexcept
        const uint32_t* namespaces() noexcept
        void take(Entries& kept) noexcept
        void keep(Entries& used, size_t most) noexcept


cdef int encode_into(object row, Entries& out) except -1
