"""CSV records to hashed features in one pass over their bytes; the work is done in ``csv_rows.hpp``."""

from penstock._native.features cimport hash_name
from penstock._native.records cimport EventReader, Labels, Records, TextLabel, flag, set_label

from libc.stdint cimport uint32_t
from libcpp.string cimport string
from libcpp.vector cimport vector


cdef extern from "csv_rows.hpp" namespace "penstock" nogil:
    enum class Use(int):
        pass

    cppclass TableColumn:
        uint32_t index
        Use use

    cppclass Table:
        TextLabel label
        flag has_weight
        flag has_time
        flag has_id
        char delimiter
        vector[TableColumn] columns
        void add_missing(const string& text)

    cppclass TableReader(EventReader):
        Table table
        TableReader() except +


USES = ("auto", "number", "category", "ignore", "label", "weight", "time", "id")
"""What the cells of a column can be for, in the order of ``csv_rows.hpp``."""


cdef class CellReader(Records):
    """Reads the records of a table that need no special care, and says which others there are.

    Parameters
    ----------
    task : "binary", "multiclass" or "regression"
    columns : sequence of (str, str)
        Name and one of `USES` of each; the names differ, and of each of the last four there is one at most.
    delimiter : str
        One ASCII character that is no letter, digit, sign, point or quote, and no line end.
    missing : iterable of str
        Cells that say that there is no value; they are compared as they stand.
    classes : pair of str, optional
        Names of a binary task's classes: negative, positive.
    requires_label : bool

    Raises
    ------
    UnicodeEncodeError
        If a name is not text that a file can hold.
    """

    def __init__(
        self,
        *,
        str task not None,
        columns,
        str delimiter=",",
        missing=("",),
        classes=None,
        flag requires_label=True,
    ):
        cdef TableReader* reader = new TableReader()
        cdef Table* table = &reader.table
        cdef TableColumn column
        self._reader.reset(reader)
        set_label(&table.label, task, classes, requires_label)
        table.delimiter = ord(delimiter)
        for name, use in columns:
            data = name.encode()
            column.index = hash_name(data, len(data), 0)
            column.use = <Use><int>USES.index(use)
            table.columns.push_back(column)
        uses = [use for _, use in columns]
        table.has_weight, table.has_time, table.has_id = "weight" in uses, "time" in uses, "id" in uses
        for cell in missing:
            table.add_missing(cell.encode())
        self._has_ids = table.has_id
        self._has_classes = table.label.labels == Labels.kMulticlass
