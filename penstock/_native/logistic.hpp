// The closed-form step of the logistic loss: how far the margin s*p of a +-1 label s moves.
//
// It is the d of d + E*(e^d - 1) = h*q, with E = e^(s*p) (Karampatziakis and Langford 2011, section 3). Unlike the
// Lambert W form, what is done here cancels nowhere, whatever E and h*q are.

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

namespace penstock {

constexpr int SHIFT_STEPS = 256;     // guesses in one
constexpr double USUAL_SHIFT = 0.4;  // the largest first guess that is refined without iterating

// e^d - 1 of every guess d.
inline const std::array<double, static_cast<size_t>(USUAL_SHIFT * SHIFT_STEPS) + 2> SHIFT_GROWTH = [] {
    std::array<double, static_cast<size_t>(USUAL_SHIFT * SHIFT_STEPS) + 2> growth{};
    for (size_t i = 0; i < growth.size(); ++i) growth[i] = std::expm1(double(i) / SHIFT_STEPS);
    return growth;
}();

// Solves d + r*(e^d - 1 - d) = v for a small v: the first terms of the inverse series.
inline double small_shift(double v, double r) {
    const double c3 = r * (0.5 * r - 1.0 / 6.0);
    const double c4 = r * (r * (5.0 / 12.0 - 0.625 * r) - 1.0 / 24.0);
    const double c5 = r * (r * (r * (0.875 * r - 0.875) + 5.0 / 24.0) - 1.0 / 120.0);
    return v + v * v * (v * (c3 + v * (c4 + v * c5)) - 0.5 * r);
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
    const auto guess = static_cast<size_t>(small_shift(first, 1.0 - chance) * SHIFT_STEPS + 0.5);
    const double d = double(guess) / SHIFT_STEPS, growth = E * SHIFT_GROWTH[guess], slope = 1.0 / (1.0 + E + growth);
    return d + small_shift((hq - d - growth) * slope, 1.0 - slope);
}

}  // namespace penstock
