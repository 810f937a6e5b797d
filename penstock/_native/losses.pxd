"""The losses of a linear model: see losses.hpp."""


cdef extern from "losses.hpp" namespace "penstock" nogil:
    enum: SQUARED "penstock::SQUARED"
    enum: LOGISTIC "penstock::LOGISTIC"
    enum: HINGE "penstock::HINGE"
    enum: QUANTILE "penstock::QUANTILE"
    enum: POISSON "penstock::POISSON"
    enum: SOFTMAX "penstock::SOFTMAX"

    double sigmoid(double x) noexcept
    double clamp(double x, double low, double high) noexcept
    double derivative(int loss, double p, double y, double tau) noexcept
    double curvature(int loss, double p, double d) noexcept
    double logistic_step(double E, double chance, double y, double h, double q) noexcept
    double step(int loss, double p, double y, double h, double q, double tau) noexcept
