// What most values of a row are: usable numbers, ASCII, nothing.

#pragma once

#include <Python.h>

#include <cmath>
#include <cstdint>

#include "entries.hpp"
#include "hashing.hpp"
#include "inline.hpp"

namespace penstock {

// Appends a number, unless it is 0; returns whether it is usable.
PENSTOCK_INLINE bool add_number(double number, uint32_t index, uint32_t in, Entries& out) {
    if (!(std::fabs(number) <= MAX_MAGNITUDE)) return false;  // also NaN
    if (number != 0.0) out.add(index, number, in);
    return true;
}

// Appends a plain value, and returns whether it was one. Runs no Python code and sets no error.
//
// A number goes to `index`, a category is seeded with `seed`. The two differ only inside a list.
PENSTOCK_INLINE bool add_plain(PyObject* value, uint32_t index, uint32_t seed, uint32_t in, Entries& out) {
    if (PyUnicode_CheckExact(value)) {
        if (!PyUnicode_IS_COMPACT_ASCII(value)) return false;
        auto text = reinterpret_cast<const char*>(PyUnicode_1BYTE_DATA(value));
        out.add(hash_name(text, static_cast<size_t>(PyUnicode_GET_LENGTH(value)), seed), 1.0, in);
        return true;
    }
    if (PyFloat_CheckExact(value)) return add_number(PyFloat_AS_DOUBLE(value), index, in, out);
    if (PyLong_CheckExact(value)) {
        int overflow = 0;
        const long long integer = PyLong_AsLongLongAndOverflow(value, &overflow);
        if (overflow || integer < -MAX_INTEGER || integer > MAX_INTEGER) return false;
        return add_number(static_cast<double>(integer), index, in, out);
    }
    if (value == Py_True) return add_number(1.0, index, in, out);
    if (value == Py_False || value == Py_None) return true;
    if (PyFloat_Check(value)) return add_number(PyFloat_AS_DOUBLE(value), index, in, out);  // numpy's float64
    return false;
}

}  // namespace penstock
