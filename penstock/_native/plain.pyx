"""Copies of plain Python objects: of rows, without the way through JSON, and of numbers, into a column."""

import numpy as np

from cpython.dict cimport PyDict_Next
from cpython.object cimport PyObject
from libc.math cimport isfinite

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object text)
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1

cdef enum:
    DEEPEST = 8  # mappings in mappings; what lies deeper goes through JSON


def copied(dict row not None):
    """Copy a row of finite floats, 64-bit integers, booleans, ASCII strings and rows of these.

    Returns
    -------
    dict or None
        None if there is anything else: then only JSON can tell what it becomes.
    """
    return copied_to(row, DEEPEST)


cdef dict copied_to(dict row, int depth):
    cdef Py_ssize_t position = 0
    cdef PyObject* name
    cdef PyObject* value
    cdef int overflow
    cdef dict copy, inner, below = None
    if depth == 0:
        return None
    while PyDict_Next(row, &position, &name, &value):
        if not plain_text(<object>name):
            return None
        kind = type(<object>value)
        if kind is float:
            if not isfinite(<double><object>value):
                return None
        elif kind is int:
            PyLong_AsLongLongAndOverflow(<object>value, &overflow)
            if overflow:
                return None
        elif kind is dict:
            inner = copied_to(<dict><object>value, depth - 1)
            if inner is None:
                return None
            if below is None:
                below = {}
            below[<object>name] = inner
        elif kind is not bool and not plain_text(<object>value):
            return None
    copy = row.copy()
    if below is not None:
        copy.update(below)
    return copy


cdef inline bint plain_text(object text):
    return type(text) is str and PyUnicode_IS_ASCII(text)


def numbers(values):
    """Copy a list of floats and 64-bit integers into a column.

    Returns
    -------
    float64, shape (n,), or None
        None if it is not a list, or there is anything else in it, be it a boolean.

    Examples
    --------
    >>> numbers([1.5, 2]), numbers([1.5, True])
    (array([1.5, 2. ]), None)
    """
    cdef Py_ssize_t i
    cdef int overflow
    cdef list items
    cdef double[::1] column
    if type(values) is not list:
        return None
    items = values
    array = np.empty(len(items))
    column = array
    for i in range(column.shape[0]):
        value = items[i]
        if type(value) is float:
            column[i] = <double>value
        elif type(value) is int:
            column[i] = <double>PyLong_AsLongLongAndOverflow(value, &overflow)
            if overflow:
                return None
        else:
            return None
    return array
