"""Symmetric matrices as lower triangles of 8 × 8 blocks, row after row; the blocks on the diagonal are whole.

Row i starts at `start(i)` and has entries for columns 0 to ``8 * (i // 8) + 7``. A row more is appended, so a
matrix grows without moving; every row is a whole number of blocks, so no loop has a remainder. Vectors must
have room for a multiple of 8 entries, those past their end being zero.

Sums are taken in eight lanes whatever the width of the processor's registers, and nothing is contracted:
results do not depend on the machine.
"""

from libc.stdint cimport int32_t, uint32_t

cdef extern from "packed.hpp" nogil:
    Py_ssize_t LANES "packed::LANES"
    Py_ssize_t PANEL "packed::PANEL"
    Py_ssize_t start "packed::start"(Py_ssize_t i) noexcept
    Py_ssize_t padded "packed::padded"(Py_ssize_t n) noexcept
    double dense_dot "packed::dense_dot"(const double* a, const double* b, Py_ssize_t n) noexcept
    double dense_form "packed::dense_form"(const double* m, const double* x, Py_ssize_t n) noexcept
    void dense_product "packed::dense_product"(
        const double* m, const double* x, Py_ssize_t n, Py_ssize_t rows, double* u) noexcept
    void rank_one "packed::rank_one"(double* m, const double* u, double c, Py_ssize_t rows) noexcept
    bint all_within "packed::all_within"(const double* x, Py_ssize_t n, double limit) noexcept
    void axpy "packed::axpy"(double* y, const double* x, double c, Py_ssize_t n) noexcept
    void scale "packed::scale"(double* y, double c, Py_ssize_t n) noexcept
    double sparse_form "packed::sparse_form"(
        const double* m, const int32_t* at, const double* x, Py_ssize_t n) noexcept
    void sparse_product "packed::sparse_product"(
        const double* m, const int32_t* at, const double* x, Py_ssize_t n, Py_ssize_t rows, double* u) noexcept
    void sparse_rank_one "packed::sparse_rank_one"(
        double* m, const int32_t* at, const double* x, Py_ssize_t n, double c) noexcept
    void factor "packed::factor"(double* m, Py_ssize_t rows) noexcept
    void invert "packed::invert"(double* l, Py_ssize_t rows, double* out) noexcept
    void fill_lane "packed::fill_lane"(const double* row, Py_ssize_t n, double limit, double* x) noexcept
    void measure_panel "packed::measure_panel"(
        const double* m, const double* mean, const double* x, Py_ssize_t n, Py_ssize_t lanes,
        double* means, double* forms, double* squares) noexcept
    struct Bar "packed::Bar":
        double mean, form, reach, least_form, largest_form, best
    uint32_t contenders "packed::contenders"(
        const double* rows, Py_ssize_t n, const double* scales, const double* means, const Bar* bar) noexcept
    void majorant "packed::majorant"(
        const double* m, Py_ssize_t rows, double* inverse, double* weights) noexcept
