"""VW's text format to hashed features in one pass over its bytes; the work is done in ``vw_rows.hpp``."""

from penstock._native.records cimport EventReader, Labels, Records, TextLabel, flag, set_label


cdef extern from "vw_rows.hpp" namespace "penstock" nogil:
    cppclass LineReader(EventReader):
        TextLabel label
        LineReader() except +


cdef class VWReader(Records):
    """Reads the lines that need no special care, and says which others there are.

    Parameters
    ----------
    task : "binary", "multiclass" or "regression"
    classes : pair of str, optional
        Names of a binary task's classes: negative, positive.
    requires_label : bool

    Raises
    ------
    UnicodeEncodeError
        If a class's name is not text that a file can hold.
    """

    def __init__(self, *, str task not None, classes=None, flag requires_label=True):
        cdef LineReader* reader = new LineReader()
        self._reader.reset(reader)
        set_label(&reader.label, task, classes, requires_label)
        self._has_ids = True
        self._has_classes = reader.label.labels == Labels.kMulticlass
