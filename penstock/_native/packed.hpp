// Symmetric matrices as lower triangles of 8 x 8 blocks, row after row; see packed.pxd.
#ifndef PENSTOCK_PACKED_HPP
#define PENSTOCK_PACKED_HPP

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "lanes.hpp"

namespace packed {

using wide::LANES;
using wide::Lanes;
constexpr ptrdiff_t PANEL = 32;  // vectors that are measured together

static inline ptrdiff_t start(ptrdiff_t i) {
    const ptrdiff_t block = i / LANES;
    return LANES * (block + 1) * (LANES * block / 2 + i % LANES);
}

static inline ptrdiff_t padded(ptrdiff_t n) { return (n + LANES - 1) / LANES * LANES; }

// Of two padded vectors.
template <int N>
static PENSTOCK_INLINE double dot(const double* a, const double* b, ptrdiff_t n) {
    Lanes<N> sum;
    for (ptrdiff_t j = 0; j < n; j += LANES) sum += Lanes<N>(a + j) * Lanes<N>(b + j);
    return sum.total();
}

// Of the first n entries, the last of which need not end a block.
template <int N>
static PENSTOCK_INLINE double dense_dot_by(const double* a, const double* b, ptrdiff_t n) {
    const ptrdiff_t whole = n / LANES * LANES;
    double sum = dot<N>(a, b, whole);
    for (ptrdiff_t j = whole; j < n; j++) sum += a[j] * b[j];
    return sum;
}
PENSTOCK_BY_WIDTH(double, dense_dot, (const double* a, const double* b, ptrdiff_t n), a, b, n)

// x'Mx over the first n rows.
template <int N>
static PENSTOCK_INLINE double dense_form_by(const double* m, const double* x, ptrdiff_t n) {
    typedef Lanes<N> V;
    V sum;
    ptrdiff_t i = 0;
    // Four rows of a block at a time: their sums do not wait for one another.
    for (; i + 4 <= n; i += 4) {
        const ptrdiff_t below = i / LANES * LANES, width = below + LANES;
        V a, b, c, d;
        for (ptrdiff_t j = 0; j < below; j += LANES) {
            const V y(x + j);
            a += V(m + j) * y;
            b += V(m + width + j) * y;
            c += V(m + 2 * width + j) * y;
            d += V(m + 3 * width + j) * y;
        }
        const V y(x + below);
        m += below;
        sum += ((a + a + V(m) * y) * x[i] + (b + b + V(m + width) * y) * x[i + 1])
            + ((c + c + V(m + 2 * width) * y) * x[i + 2] + (d + d + V(m + 3 * width) * y) * x[i + 3]);
        m += 4 * width - below;
    }
    for (; i < n; i++) {
        const ptrdiff_t below = i / LANES * LANES;
        V row;
        for (ptrdiff_t j = 0; j < below; j += LANES) row += V(m + j) * V(x + j);
        sum += (row + row + V(m + below) * V(x + below)) * x[i];
        m += below + LANES;
    }
    return sum.total();
}
PENSTOCK_BY_WIDTH(double, dense_form, (const double* m, const double* x, ptrdiff_t n), m, x, n)

// u = Mx over `rows` rows, and zeros to a whole block; x has n <= rows entries, the rest being zero.
template <int N>
static PENSTOCK_INLINE void dense_product_by(
    const double* m, const double* x, ptrdiff_t n, ptrdiff_t rows, double* u
) {
    const ptrdiff_t reach = padded(n);
    for (ptrdiff_t i = 0; i < rows; i++) {
        const ptrdiff_t below = i / LANES * LANES, width = below + LANES;
        u[i] = dot<N>(m, x, width < reach ? width : reach);
        if (i < n)
            for (ptrdiff_t j = 0; j < below; j++) u[j] += m[j] * x[i];
        m += width;
    }
    for (ptrdiff_t i = rows; i < padded(rows); i++) u[i] = 0.0;
}
PENSTOCK_BY_WIDTH(
    void, dense_product, (const double* m, const double* x, ptrdiff_t n, ptrdiff_t rows, double* u),
    m, x, n, rows, u)

// L with M = LL', in place of M's lower triangle. A pivot that rounding has eaten becomes what rounding can
// tell from nothing.
template <int N>
static PENSTOCK_INLINE void factor_by(double* m, ptrdiff_t rows) {
    for (ptrdiff_t i = 0; i < rows; i++) {
        double* row = m + start(i);
        for (ptrdiff_t j = 0; j < i; j++) {
            const double* other = m + start(j);
            row[j] = (row[j] - dense_dot_by<N>(row, other, j)) / other[j];
        }
        const double least = 1e-15 * row[i];
        const double pivot = row[i] - dense_dot_by<N>(row, row, i);
        row[i] = std::sqrt(pivot > least ? pivot : least > 1e-300 ? least : 1e-300);
    }
}
PENSTOCK_BY_WIDTH(void, factor, (double* m, ptrdiff_t rows), m, rows)

// M += c uu'
PENSTOCK_WIDE
static void rank_one(double* m, const double* u, double c, ptrdiff_t rows) {
    for (ptrdiff_t i = 0; i < rows; i++) {
        const ptrdiff_t width = i / LANES * LANES + LANES;
        const double f = u[i];
        for (ptrdiff_t j = 0; j < width; j++) m[j] += c * (f * u[j]);  // the same for (i, j) and (j, i)
        m += width;
    }
}

// Whether every |x| <= limit; not so if one is NaN.
PENSTOCK_WIDE
static bool all_within(const double* x, ptrdiff_t n, double limit) {
    ptrdiff_t inside = 0;
    for (ptrdiff_t i = 0; i < n; i++) inside += std::fabs(x[i]) <= limit;
    return inside == n;
}

PENSTOCK_WIDE
static void axpy(double* y, const double* x, double c, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) y[i] += c * x[i];
}

PENSTOCK_WIDE
static void scale(double* y, double c, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) y[i] *= c;
}

// out = (LL')^-1; L becomes its inverse.
PENSTOCK_WIDE
static void invert(double* l, ptrdiff_t rows, double* out) {
    for (ptrdiff_t i = 0; i < rows; i++) {
        double* row = l + start(i);
        const double r = 1.0 / row[i];
        for (ptrdiff_t j = 0; j < i; j++) out[j] = 0.0;
        for (ptrdiff_t k = 0; k < i; k++) {
            const double* above = l + start(k);
            const double f = row[k];
            for (ptrdiff_t j = 0; j <= k; j++) out[j] += f * above[j];
        }
        for (ptrdiff_t j = 0; j < i; j++) row[j] = -r * out[j];
        row[i] = r;
    }
    for (ptrdiff_t i = 0; i < start(rows); i++) out[i] = 0.0;
    for (ptrdiff_t k = 0; k < rows; k++) {
        const double* row = l + start(k);
        for (ptrdiff_t i = 0; i <= k; i++) {
            const double f = row[i];
            double* into = out + start(i);
            for (ptrdiff_t j = 0; j <= i; j++) into[j] += f * row[j];
        }
    }
    for (ptrdiff_t i = 0; i < rows; i++)  // the other half of the blocks on the diagonal
        for (ptrdiff_t j = i / LANES * LANES; j < i; j++) out[start(j) + i] = out[start(i) + j];
}

static double sparse_form(const double* m, const int32_t* at, const double* x, ptrdiff_t n) {
    double sum = 0.0;
    for (ptrdiff_t i = 0; i < n; i++) {
        const double* row = m + start(at[i]);
        double below = 0.0;
        for (ptrdiff_t j = 0; j < i; j++) below += row[at[j]] * x[j];
        sum += x[i] * (2.0 * below + row[at[i]] * x[i]);
    }
    return sum;
}

static void sparse_product(
    const double* m, const int32_t* at, const double* x, ptrdiff_t n, ptrdiff_t rows, double* u
) {
    for (ptrdiff_t i = 0; i < padded(rows); i++) u[i] = 0.0;
    for (ptrdiff_t k = 0; k < n; k++) {
        const ptrdiff_t j = at[k];
        const double* row = m + start(j);
        for (ptrdiff_t i = 0; i <= j; i++) u[i] += row[i] * x[k];
        for (ptrdiff_t i = j + 1; i < rows; i++) u[i] += m[start(i) + j] * x[k];
    }
}

// M += c xx' for a sparse x.
static void sparse_rank_one(double* m, const int32_t* at, const double* x, ptrdiff_t n, double c) {
    for (ptrdiff_t i = 0; i < n; i++) {
        double* row = m + start(at[i]);
        const ptrdiff_t width = at[i] / LANES * LANES + LANES;
        for (ptrdiff_t j = 0; j < n && at[j] < width; j++) row[at[j]] += c * (x[i] * x[j]);
    }
}

// A panel holds up to PANEL vectors side by side: entry i of vector l is at x[PANEL * i + l].

// n numbers become entries of one vector; |x| beyond `limit`, and NaN, counts as that.
static inline void fill_lane(const double* row, ptrdiff_t n, double limit, double* x) {
    for (ptrdiff_t i = 0; i < n; i++)
        x[PANEL * i] = std::fabs(row[i]) <= limit ? row[i] : std::copysign(limit, row[i]);
}

// Adds rows i to i + R - 1 of the forms of 8 V vectors; these rows lie in one block.
template <int N, int V, int R>
static PENSTOCK_INLINE void panel_rows(const double* m, const double* x, ptrdiff_t i, Lanes<N> (&sum)[V]) {
    const ptrdiff_t width = i / LANES * LANES + LANES;
    Lanes<N> below[R][V];
    m += start(i);
    for (ptrdiff_t j = 0; j < i; j++)
        for (int v = 0; v < V; v++) {
            const Lanes<N> y(x + PANEL * j + LANES * v);
            for (int r = 0; r < R; r++) below[r][v] += y * m[r * width + j];
        }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) {
            for (int s = 0; s < r; s++)
                below[r][v] += Lanes<N>(x + PANEL * (i + s) + LANES * v) * m[r * width + i + s];
            const Lanes<N> y(x + PANEL * (i + r) + LANES * v);
            sum[v] += y * (below[r][v] * 2.0 + y * m[r * width + i + r]);
        }
}

template <int N, int V>
static PENSTOCK_INLINE void panel_part(
    const double* m, const double* mean, const double* x, ptrdiff_t n,
    double* means, double* forms, double* squares
) {
    Lanes<N> first[V], form[V], square[V];
    ptrdiff_t i = 0;
    for (; i + 4 <= n; i += 4) panel_rows<N, V, 4>(m, x, i, form);
    for (; i < n; i++) panel_rows<N, V, 1>(m, x, i, form);
    for (i = 0; i < n; i++)
        for (int v = 0; v < V; v++) {
            const Lanes<N> y(x + PANEL * i + LANES * v);
            first[v] += y * mean[i];
            square[v] += y * y;
        }
    for (int v = 0; v < V; v++) {
        first[v].store(means + LANES * v);
        form[v].store(forms + LANES * v);
        square[v].store(squares + LANES * v);
    }
}

// x'mean, x'Mx and x'x over n rows, of the first `lanes` vectors of a panel; there is room for PANEL of each.
// Every sum is taken in the order of its entries: a vector has the same wherever it stands, and zeros after its
// end change nothing.
template <int N>
static PENSTOCK_INLINE void measure_panel_by(
    const double* m, const double* mean, const double* x, ptrdiff_t n, ptrdiff_t lanes,
    double* means, double* forms, double* squares
) {
    constexpr int V = N == 8 ? 4 : 1;  // so that all sums of four rows stay in registers
    ptrdiff_t l = 0;
    for (; l + LANES * V <= lanes; l += LANES * V)
        panel_part<N, V>(m, mean, x + l, n, means + l, forms + l, squares + l);
    for (; l < lanes; l += LANES) panel_part<N, 1>(m, mean, x + l, n, means + l, forms + l, squares + l);
}
PENSTOCK_BY_WIDTH(
    void, measure_panel,
    (const double* m, const double* mean, const double* x, ptrdiff_t n, ptrdiff_t lanes,
     double* means, double* forms, double* squares),
    m, mean, x, n, lanes, means, forms, squares)

// What an action must pass to be measured: mean + reach * sqrt(form) is not below `best`, or its form is outside
// of the limits between which that bounds what would be measured. Both start from what all actions share.
struct Bar {
    double mean, form, reach, least_form, largest_form, best;
};

// Which of eight rows of n numbers pass, a bit each. With y = x * scales, x'mean is y'means and the form y'y, taken in
// whatever order is fast. Both arrays have zeros to a whole block: there a row is read on into the next one, and
// after the last one there is a block to read. What is no number there lets the row pass: it is never ruled out
// wrongly.
template <int N>
static PENSTOCK_INLINE uint32_t contenders_by(
    const double* rows, ptrdiff_t n, const double* scales, const double* means, const Bar* bar
) {
    uint32_t passed = 0;
    for (ptrdiff_t l = 0; l < LANES; l++, rows += n) {
        Lanes<N> mean, square;
        for (ptrdiff_t j = 0; j < n; j += LANES) {
            const Lanes<N> y = Lanes<N>(rows + j) * Lanes<N>(scales + j);
            mean += y * Lanes<N>(means + j);
            square += y * y;
        }
        const double form = bar->form + square.total();
        const double bound = bar->mean + mean.total() + bar->reach * std::sqrt(form);
        const bool fails = (form >= bar->least_form) & (form <= bar->largest_form) & (bound < bar->best);
        passed |= uint32_t(!fails) << l;
    }
    return passed;
}
PENSTOCK_BY_WIDTH(
    uint32_t, contenders,
    (const double* rows, ptrdiff_t n, const double* scales, const double* means, const Bar* bar),
    rows, n, scales, means, bar)

// Weights of which the sum of weight * x^2 is not below x'Mx for any x: Gershgorin's sums of |M| along the rows,
// taken with the diagonal scaled to 1, so that features may be of any size. Both arrays have room for
// padded(rows).
static inline void majorant(const double* m, ptrdiff_t rows, double* inverse, double* weights) {
    for (ptrdiff_t i = 0; i < padded(rows); i++) {
        inverse[i] = i < rows ? 1.0 / std::sqrt(m[start(i) + i]) : 0.0;
        weights[i] = 0.0;
    }
    for (ptrdiff_t i = 0; i < rows; i++) {
        const ptrdiff_t below = i / LANES * LANES;
        for (ptrdiff_t j = 0; j < below + LANES; j++) weights[i] += std::fabs(m[j]) * inverse[j];
        for (ptrdiff_t j = 0; j < below; j++) weights[j] += std::fabs(m[j]) * inverse[i];
        m += below + LANES;
    }
    for (ptrdiff_t i = 0; i < rows; i++) weights[i] /= inverse[i];
}

}  // namespace packed

#endif
