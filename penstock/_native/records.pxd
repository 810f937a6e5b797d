from libc.stdint cimport int64_t, uint32_t
from libcpp cimport bool as flag
from libcpp.memory cimport unique_ptr
from libcpp.pair cimport pair
from libcpp.string cimport string
from libcpp.vector cimport vector


cdef extern from "<string_view>" namespace "std" nogil:
    cdef cppclass string_view:
        string_view()
        string_view(const char* data, size_t size)
        const char* data()
        size_t size()


cdef extern from "entries.hpp" namespace "penstock" nogil:
    cppclass Entries:
        size_t size()
        const uint32_t* indices()
        const double* values()
        const uint32_t* namespaces()


cdef extern from "records.hpp" namespace "penstock" nogil:
    enum class Labels(int):
        kBinary
        kClasses
        kMulticlass
        kRegression

    cppclass Events:
        vector[int64_t] ends
        Entries entries
        vector[double] labels
        vector[string_view] classes
        vector[double] weights
        vector[double] times
        vector[string_view] ids
        vector[pair[int64_t, string_view]] dates
        vector[int64_t] kept
        vector[int64_t] declined
        flag has_ids
        void clear()

    cppclass Record:
        const char* begin
        const char* end
        const char* limit

    cppclass EventReader:
        void clear()
        Events events
        void read(const Record* records, size_t n) except +


cdef extern from "text_label.hpp" namespace "penstock" nogil:
    cppclass TextLabel:
        Labels labels
        flag is_required
        string negative
        string positive


cdef class Records:
    """Reads the records that need no special care, and says which others there are."""
    cdef unique_ptr[EventReader] _reader  # set by the format
    cdef flag _has_classes
    cdef flag _has_ids
    cdef flag _is_busy

    cdef object _columns(self, Events* events)


cdef Labels labels_of(str task) except *

cdef int set_label(TextLabel* label, str task, object classes, flag is_required) except -1

cdef object column(const void* data, size_t size, object dtype)

cdef int copy(object array, const void* data, size_t size) except -1
