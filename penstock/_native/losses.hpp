// The losses of a linear model: their derivatives by the margin, and the closed forms of their steps.
//
// A step is the u for which the margin p + u*q solves dp/ds = -q * dloss/dp over [0, h]: what infinitely many
// infinitely small updates with the same event come to, whose weight is then as good as so many events
// (Karampatziakis and Langford 2011, Online importance weight aware updates, UAI, table 1).

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

namespace penstock {

enum Loss { SQUARED, LOGISTIC, HINGE, QUANTILE, POISSON, SOFTMAX };

constexpr double NO_WAY = 1e-12;       // a margin that moves by less than this moves along a straight line
constexpr double MAX_EXPONENT = 44.0;  // exp(44)^2 is the largest square that fits a float32

inline double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

inline double clamp(double x, double low, double high) {
    if (x != x) x = 0.0;
    return x < low ? low : x > high ? high : x;
}

// dloss/dp. Labels are 0 or 1 for logistic and hinge; softmax has no derivative of its own margin alone.
inline double derivative(int loss, double p, double y, double tau) {
    switch (loss) {
        case LOGISTIC: return y > 0.0 ? -sigmoid(-p) : sigmoid(p);
        case SQUARED: return 2.0 * (p - y);
        case HINGE: {
            const double sign = 2.0 * y - 1.0;
            return sign * p >= 1.0 ? 0.0 : -sign;
        }
        case QUANTILE: return p == y ? 0.0 : p < y ? -tau : 1.0 - tau;
        default: return std::exp(clamp(p, -MAX_EXPONENT, MAX_EXPONENT)) - y;
    }
}

// d^2 loss/dp^2 of a loss that has one, where its derivative is `d`.
inline double curvature(int loss, double p, double d) {
    if (loss == SQUARED) return 2.0;
    if (loss == POISSON) return std::exp(clamp(p, -MAX_EXPONENT, MAX_EXPONENT));
    return std::fabs(d) * (1.0 - std::fabs(d));  // logistic and softmax
}

// ---------------------------------------------------------------------------------------------------- logistic
//
// A margin s*p of a +-1 label s moves by the d of d + E*(e^d - 1) = h*q, with E = e^(s*p). Unlike the Lambert W
// form, what is done here cancels nowhere, whatever E and h*q are.

constexpr int SHIFT_STEPS = 512;     // guesses in one
constexpr double USUAL_SHIFT = 0.4;  // the largest first guess that is refined without iterating

// e^d - 1 of every guess d.
using ShiftGrowth = std::array<double, static_cast<size_t>(USUAL_SHIFT * SHIFT_STEPS) + 2>;
inline const ShiftGrowth SHIFT_GROWTH = [] {
    ShiftGrowth growth{};
    for (size_t i = 0; i < growth.size(); ++i) growth[i] = std::expm1(double(i) / SHIFT_STEPS);
    return growth;
}();

// Solves d + r*(e^d - 1 - d) = v for a small v: the first four terms of the inverse series.
inline double small_shift(double v, double r) {
    const double c3 = r * (0.5 * r - 1.0 / 6.0), c4 = r * (r * (5.0 / 12.0 - 0.625 * r) - 1.0 / 24.0);
    const double square = v * v;
    return v + square * ((v * c3 - 0.5 * r) + square * c4);
}

// By Halley's method, from above.
inline double large_shift(double E, double hq, double d) {
    if (d > 1.0) d = std::min(d, std::log1p(hq / E));
    for (int i = 0; i < 12; ++i) {
        const double growth = E * std::expm1(d), value = d + growth - hq, slope = 1.0 + E + growth;
        const double correction = 2.0 * value * slope / (2.0 * slope * slope - value * (growth + E));
        d -= correction;
        if (correction * correction * std::fabs(correction) <= 1e-14 * d) break;  // the error is less than its cube
    }
    return d;
}

// `chance` is 1/(1 + E). What a guess leaves over is the same equation with another E, and small enough for the
// series; guesses come from a table, so that a usual step takes no exponential and no branch.
inline double logistic_shift(double E, double chance, double hq) {
    const double first = hq * chance;
    if (!(first <= USUAL_SHIFT)) return large_shift(E, hq, first);
    const auto guess = static_cast<int>(small_shift(first, 1.0 - chance) * SHIFT_STEPS + 0.5);
    const double d = double(guess) / SHIFT_STEPS, growth = E * SHIFT_GROWTH[guess], slope = 1.0 / (1.0 + E + growth);
    return d + small_shift((hq - d - growth) * slope, 1.0 - slope);
}

// `E` is e^p for label 1 and e^-p for label 0, `chance` is what the other label has.
inline double logistic_step(double E, double chance, double y, double h, double q) {
    const double per_unit = 1.0 / q;  // while the shift is worked out
    const double size = h * q < NO_WAY ? h * chance : logistic_shift(E, chance, h * q) * per_unit;
    return y > 0.0 ? size : -size;
}

// ------------------------------------------------------------------------------------------------------ the rest

inline double poisson_step(double p, double y, double h, double q) {
    const double hq = h * q, rate = std::exp(p);
    if (hq * std::max(rate, y) < NO_WAY) return h * (y - rate);
    if (y <= 0.0) return -std::log1p(rate * hq) / q;
    if (y * hq > MAX_EXPONENT) return (std::log(y) - p) / q;
    return y * h - std::log1p(rate * std::expm1(y * hq) / y) / q;
}

inline double step(int loss, double p, double y, double h, double q, double tau) {
    const double hq = h * q;
    if (loss == POISSON) return poisson_step(clamp(p, -MAX_EXPONENT, MAX_EXPONENT), y, h, q);
    if (loss == LOGISTIC) {
        const double E = std::exp(y > 0.0 ? p : -p);
        return logistic_step(E, 1.0 / (1.0 + E), y, h, q);
    }
    if (hq < NO_WAY) return -h * derivative(loss, p, y, tau);
    if (loss == SQUARED) return (p - y) * std::expm1(-2.0 * hq) / q;
    if (loss == HINGE) {
        const double sign = 2.0 * y - 1.0, error = 1.0 - sign * p;
        return error <= 0.0 ? 0.0 : sign * (hq < error ? h : error / q);
    }
    const double error = y - p;
    if (error > 0.0) return tau * hq < error ? tau * h : error / q;
    return (tau - 1.0) * hq > error ? (tau - 1.0) * h : error / q;
}

}  // namespace penstock
