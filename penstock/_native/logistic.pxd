"""The closed-form step of the logistic loss: see logistic.hpp."""


cdef extern from "logistic.hpp" namespace "penstock" nogil:
    double logistic_shift(double E, double chance, double hq) noexcept
