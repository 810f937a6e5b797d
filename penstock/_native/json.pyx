"""JSON records to hashed features in one pass over their bytes; the work is done in ``json_rows.hpp``."""

from penstock._native.records cimport EventReader, Labels, Records, flag, labels_of

from libcpp.pair cimport pair
from libcpp.string cimport string
from libcpp.vector cimport vector


cdef extern from "json_rows.hpp" namespace "penstock" nogil:
    enum class Reading:
        kLeftOut
        kNumber
        kCategory

    cppclass Plan:
        Labels labels
        flag requires_label
        flag takes_feedback
        flag requires_container
        string negative
        string positive
        string container
        string told[5]
        vector[pair[string, Reading]] readings

    cppclass Reader(EventReader):
        Plan plan
        Reader() except +


cdef tuple _ROLES = ("label", "weight", "time", "id")  # from 1 on, as in json_rows.hpp


cdef class RecordReader(Records):
    """Reads the records that need no special care, and says which others there are.

    Parameters
    ----------
    task : "binary", "multiclass" or "regression"
    roles : mapping of str to str
        Names of the label's field and, if told, of those of weight, time and id.
    classes : pair of str, optional
        Names of a binary task's classes: negative, positive.
    requires_label : bool
    container : str, optional
        The field whose mapping, if it is one, holds the features.
    requires_container : bool
    takes_feedback : bool
        Whether a record with a container may have weight, time and id without being told.
    readings : mapping of str to "ignore", "number" or "category"
        Features that are not read as what they look like.
    """

    def __init__(
        self,
        *,
        str task not None,
        roles,
        classes=None,
        flag requires_label=True,
        str container=None,
        flag requires_container=False,
        flag takes_feedback=False,
        readings=None,
    ):
        cdef int i
        cdef Reader* reader = new Reader()
        cdef Plan* plan = &reader.plan
        cdef pair[string, Reading] reading
        self._reader.reset(reader)
        plan.labels = labels_of(task)
        if classes is not None:
            plan.labels = Labels.kClasses
            plan.negative, plan.positive = classes[0].encode(), classes[1].encode()
        plan.requires_label = requires_label
        plan.requires_container = requires_container
        plan.takes_feedback = takes_feedback
        if container is not None:
            plan.container = container.encode()
        for i, role in enumerate(_ROLES, 1):
            if role in roles:
                plan.told[i] = roles[role].encode()
        for name, how in (readings or {}).items():
            reading.first = name.encode()
            if how == "ignore":
                reading.second = Reading.kLeftOut
            elif how == "number":
                reading.second = Reading.kNumber
            else:
                reading.second = Reading.kCategory
            plan.readings.push_back(reading)
        self._has_ids = takes_feedback or "id" in roles
        self._has_classes = plan.labels == Labels.kMulticlass
