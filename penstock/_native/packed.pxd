"""Symmetric matrices as lower triangles of 8 × 8 blocks, row after row; the blocks on the diagonal are whole.

Row i starts at `start(i)` and has entries for columns 0 to ``8 * (i // 8) + 7``. A row more is appended, so a
matrix grows without moving; every row is a whole number of blocks, so no loop has a remainder. Vectors must
have room for a multiple of 8 entries, those past their end being zero.

Sums are taken in eight lanes whatever the width of the processor's registers, and nothing is contracted:
results do not depend on the machine.
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

    constexpr ptrdiff_t LANES = 8;

    static inline ptrdiff_t start(ptrdiff_t i) {
        const ptrdiff_t block = i / LANES;
        return LANES * (block + 1) * (LANES * block / 2 + i % LANES);
    }

    static inline ptrdiff_t padded(ptrdiff_t n) { return (n + LANES - 1) / LANES * LANES; }

    // Eight lanes; the compiler makes of them what the processor has.
    typedef double Lanes __attribute__((vector_size(64)));
    typedef double Unaligned __attribute__((vector_size(64), aligned(8), may_alias));

    #define PENSTOCK_LANES(p) (*(const packed::Unaligned*)(p))
    #define PENSTOCK_TOTAL(v) \
        (((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])))

    // Of two padded vectors.
    static inline __attribute__((always_inline)) double dot(const double* a, const double* b, ptrdiff_t n) {
        Lanes sum = {0, 0, 0, 0, 0, 0, 0, 0};
        for (ptrdiff_t j = 0; j < n; j += LANES) sum += PENSTOCK_LANES(a + j) * PENSTOCK_LANES(b + j);
        return PENSTOCK_TOTAL(sum);
    }

    // Of the first n entries, the last of which need not end a block.
    static inline __attribute__((always_inline)) double dot_part(const double* a, const double* b, ptrdiff_t n) {
        const ptrdiff_t whole = n / LANES * LANES;
        double sum = dot(a, b, whole);
        for (ptrdiff_t j = whole; j < n; j++) sum += a[j] * b[j];
        return sum;
    }

    PENSTOCK_WIDE
    static double dense_dot(const double* a, const double* b, ptrdiff_t n) { return dot_part(a, b, n); }

    // x'Mx over the first n rows.
    PENSTOCK_WIDE
    static double dense_form(const double* m, const double* x, ptrdiff_t n) {
        const Lanes zero = {0, 0, 0, 0, 0, 0, 0, 0};
        Lanes sum = zero;
        ptrdiff_t i = 0;
        // Four rows of a block at a time: their sums do not wait for one another.
        for (; i + 4 <= n; i += 4) {
            const ptrdiff_t below = i / LANES * LANES, width = below + LANES;
            Lanes a = zero, b = zero, c = zero, d = zero;
            for (ptrdiff_t j = 0; j < below; j += LANES) {
                const Lanes y = PENSTOCK_LANES(x + j);
                a += PENSTOCK_LANES(m + j) * y;
                b += PENSTOCK_LANES(m + width + j) * y;
                c += PENSTOCK_LANES(m + 2 * width + j) * y;
                d += PENSTOCK_LANES(m + 3 * width + j) * y;
            }
            const Lanes y = PENSTOCK_LANES(x + below);
            m += below;
            sum += (x[i] * (a + a + PENSTOCK_LANES(m) * y) + x[i + 1] * (b + b + PENSTOCK_LANES(m + width) * y))
                + (x[i + 2] * (c + c + PENSTOCK_LANES(m + 2 * width) * y)
                   + x[i + 3] * (d + d + PENSTOCK_LANES(m + 3 * width) * y));
            m += 4 * width - below;
        }
        for (; i < n; i++) {
            const ptrdiff_t below = i / LANES * LANES;
            Lanes row = zero;
            for (ptrdiff_t j = 0; j < below; j += LANES) row += PENSTOCK_LANES(m + j) * PENSTOCK_LANES(x + j);
            sum += x[i] * (row + row + PENSTOCK_LANES(m + below) * PENSTOCK_LANES(x + below));
            m += below + LANES;
        }
        return PENSTOCK_TOTAL(sum);
    }

    // u = Mx over `rows` rows, and zeros to a whole block; x has n <= rows entries, the rest being zero.
    PENSTOCK_WIDE
    static void dense_product(const double* m, const double* x, ptrdiff_t n, ptrdiff_t rows, double* u) {
        const ptrdiff_t reach = padded(n);
        for (ptrdiff_t i = 0; i < rows; i++) {
            const ptrdiff_t below = i / LANES * LANES, width = below + LANES;
            u[i] = dot(m, x, width < reach ? width : reach);
            if (i < n)
                for (ptrdiff_t j = 0; j < below; j++) u[j] += m[j] * x[i];
            m += width;
        }
        for (ptrdiff_t i = rows; i < padded(rows); i++) u[i] = 0.0;
    }

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

    // L with M = LL', in place of M's lower triangle. A pivot that rounding has eaten becomes what rounding can
    // tell from nothing.
    PENSTOCK_WIDE
    static void factor(double* m, ptrdiff_t rows) {
        for (ptrdiff_t i = 0; i < rows; i++) {
            double* row = m + start(i);
            for (ptrdiff_t j = 0; j < i; j++) {
                const double* other = m + start(j);
                row[j] = (row[j] - dot_part(row, other, j)) / other[j];
            }
            const double least = 1e-15 * row[i];
            const double pivot = row[i] - dot_part(row, row, i);
            row[i] = std::sqrt(pivot > least ? pivot : least > 1e-300 ? least : 1e-300);
        }
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

    }  // namespace packed
    #endif
    """
    Py_ssize_t start "packed::start"(Py_ssize_t i) noexcept nogil
    Py_ssize_t padded "packed::padded"(Py_ssize_t n) noexcept nogil
    double dense_dot "packed::dense_dot"(const double* a, const double* b, Py_ssize_t n) noexcept nogil
    double dense_form "packed::dense_form"(const double* m, const double* x, Py_ssize_t n) noexcept nogil
    void dense_product "packed::dense_product"(
        const double* m, const double* x, Py_ssize_t n, Py_ssize_t rows, double* u) noexcept nogil
    void rank_one "packed::rank_one"(double* m, const double* u, double c, Py_ssize_t rows) noexcept nogil
    bint all_within "packed::all_within"(const double* x, Py_ssize_t n, double limit) noexcept nogil
    void axpy "packed::axpy"(double* y, const double* x, double c, Py_ssize_t n) noexcept nogil
    void scale "packed::scale"(double* y, double c, Py_ssize_t n) noexcept nogil
    double sparse_form "packed::sparse_form"(
        const double* m, const int32_t* at, const double* x, Py_ssize_t n) noexcept nogil
    void sparse_product "packed::sparse_product"(
        const double* m, const int32_t* at, const double* x, Py_ssize_t n, Py_ssize_t rows, double* u) noexcept nogil
    void sparse_rank_one "packed::sparse_rank_one"(
        double* m, const int32_t* at, const double* x, Py_ssize_t n, double c) noexcept nogil
    void factor "packed::factor"(double* m, Py_ssize_t rows) noexcept nogil
    void invert "packed::invert"(double* l, Py_ssize_t rows, double* out) noexcept nogil
