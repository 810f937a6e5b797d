"""Symmetric matrices as packed lower triangles, row after row: entry (i, j <= i) at ``i (i + 1) / 2 + j``.

A row more is appended, so a matrix grows without moving. Sums are taken in eight lanes whatever the width
of the processor's registers, and nothing is contracted: results do not depend on the machine.
"""

from libc.stdint cimport int32_t

cdef extern from *:
    """
    #ifndef PENSTOCK_PACKED
    #define PENSTOCK_PACKED
    #include <cmath>
    #include <cstddef>
    #include <cstdint>

    #if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
    #define PENSTOCK_WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
    #else
    #define PENSTOCK_WIDE
    #endif

    namespace packed {

    static inline ptrdiff_t tri(ptrdiff_t i) { return i * (i + 1) / 2; }

    static inline __attribute__((always_inline)) double dot(const double* a, const double* b, ptrdiff_t n) {
        double lane[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        ptrdiff_t i = 0;
        for (; i + 8 <= n; i += 8)
            for (int l = 0; l < 8; l++) lane[l] += a[i + l] * b[i + l];
        double rest = 0.0;
        for (; i < n; i++) rest += a[i] * b[i];
        return (((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]))) + rest;
    }

    PENSTOCK_WIDE
    static double dense_dot(const double* a, const double* b, ptrdiff_t n) { return dot(a, b, n); }

    // x'Mx over the first n rows.
    PENSTOCK_WIDE
    static double dense_form(const double* m, const double* x, ptrdiff_t n) {
        double total = 0.0;
        for (ptrdiff_t i = 0; i < n; i++) {
            total += x[i] * (2.0 * dot(m, x, i) + m[i] * x[i]);
            m += i + 1;
        }
        return total;
    }

    // u = Mx over `rows` rows, where x has n <= rows entries, the rest being zero.
    PENSTOCK_WIDE
    static void dense_product(const double* m, const double* x, ptrdiff_t n, ptrdiff_t rows, double* u) {
        for (ptrdiff_t i = 0; i < n; i++) {
            u[i] = dot(m, x, i) + m[i] * x[i];
            for (ptrdiff_t j = 0; j < i; j++) u[j] += m[j] * x[i];
            m += i + 1;
        }
        for (ptrdiff_t i = n; i < rows; i++) {
            u[i] = dot(m, x, n);
            m += i + 1;
        }
    }

    // M += c uu'
    PENSTOCK_WIDE
    static void rank_one(double* m, const double* u, double c, ptrdiff_t rows) {
        for (ptrdiff_t i = 0; i < rows; i++) {
            const double f = c * u[i];
            for (ptrdiff_t j = 0; j <= i; j++) m[j] += f * u[j];
            m += i + 1;
        }
    }

    PENSTOCK_WIDE
    static void axpy(double* y, const double* x, double c, ptrdiff_t n) {
        for (ptrdiff_t i = 0; i < n; i++) y[i] += c * x[i];
    }

    PENSTOCK_WIDE
    static void scale(double* y, double c, ptrdiff_t n) {
        for (ptrdiff_t i = 0; i < n; i++) y[i] *= c;
    }

    static double sparse_form(const double* m, const int32_t* at, const double* x, ptrdiff_t n) {
        double total = 0.0;
        for (ptrdiff_t i = 0; i < n; i++) {
            const double* row = m + tri(at[i]);
            double below = 0.0;
            for (ptrdiff_t j = 0; j < i; j++) below += row[at[j]] * x[j];
            total += x[i] * (2.0 * below + row[at[i]] * x[i]);
        }
        return total;
    }

    static void sparse_product(
        const double* m, const int32_t* at, const double* x, ptrdiff_t n, ptrdiff_t rows, double* u
    ) {
        for (ptrdiff_t i = 0; i < rows; i++) u[i] = 0.0;
        for (ptrdiff_t k = 0; k < n; k++) {
            const ptrdiff_t j = at[k];
            const double* row = m + tri(j);
            for (ptrdiff_t i = 0; i <= j; i++) u[i] += row[i] * x[k];
            for (ptrdiff_t i = j + 1; i < rows; i++) u[i] += m[tri(i) + j] * x[k];
        }
    }

    // M = LL' in place of M. A pivot that rounding has eaten becomes what rounding can tell from nothing.
    PENSTOCK_WIDE
    static void factor(double* m, ptrdiff_t rows) {
        double* row = m;
        for (ptrdiff_t i = 0; i < rows; i++) {
            const double diagonal = row[i];
            const double* other = m;
            for (ptrdiff_t j = 0; j < i; j++) {
                row[j] = (row[j] - dot(row, other, j)) / other[j];
                other += j + 1;
            }
            double pivot = diagonal - dot(row, row, i);
            const double least = 1e-15 * diagonal;
            if (!(pivot > least)) pivot = least > 1e-300 ? least : 1e-300;
            row[i] = std::sqrt(pivot);
            row += i + 1;
        }
    }

    // L^-1 in place of L, then out = L^-T L^-1, the inverse of LL'.
    PENSTOCK_WIDE
    static void invert(double* l, ptrdiff_t rows, double* out) {
        // Row i of the inverse: -(1 / L_ii) sum_k L_ik inv_k, for k < i.
        for (ptrdiff_t i = 0; i < rows; i++) {
            double* row = l + tri(i);
            const double r = 1.0 / row[i];
            for (ptrdiff_t j = 0; j < i; j++) out[j] = 0.0;
            for (ptrdiff_t k = 0; k < i; k++) {
                const double* above = l + tri(k);
                const double f = row[k];
                for (ptrdiff_t j = 0; j <= k; j++) out[j] += f * above[j];
            }
            for (ptrdiff_t j = 0; j < i; j++) row[j] = -r * out[j];
            row[i] = r;
        }
        for (ptrdiff_t i = 0; i < tri(rows); i++) out[i] = 0.0;
        for (ptrdiff_t k = 0; k < rows; k++) {
            const double* row = l + tri(k);
            double* into = out;
            for (ptrdiff_t i = 0; i <= k; i++) {
                const double f = row[i];
                for (ptrdiff_t j = 0; j <= i; j++) into[j] += f * row[j];
                into += i + 1;
            }
        }
    }

    }  // namespace packed
    #endif
    """
    Py_ssize_t tri "packed::tri"(Py_ssize_t i) noexcept nogil
    double dense_dot "packed::dense_dot"(const double* a, const double* b, Py_ssize_t n) noexcept nogil
    double dense_form "packed::dense_form"(const double* m, const double* x, Py_ssize_t n) noexcept nogil
    void dense_product "packed::dense_product"(
        const double* m, const double* x, Py_ssize_t n, Py_ssize_t rows, double* u) noexcept nogil
    void rank_one "packed::rank_one"(double* m, const double* u, double c, Py_ssize_t rows) noexcept nogil
    void axpy "packed::axpy"(double* y, const double* x, double c, Py_ssize_t n) noexcept nogil
    void scale "packed::scale"(double* y, double c, Py_ssize_t n) noexcept nogil
    double sparse_form "packed::sparse_form"(
        const double* m, const int32_t* at, const double* x, Py_ssize_t n) noexcept nogil
    void sparse_product "packed::sparse_product"(
        const double* m, const int32_t* at, const double* x, Py_ssize_t n, Py_ssize_t rows, double* u) noexcept nogil
    void factor "packed::factor"(double* m, Py_ssize_t rows) noexcept nogil
    void invert "packed::invert"(double* l, Py_ssize_t rows, double* out) noexcept nogil
