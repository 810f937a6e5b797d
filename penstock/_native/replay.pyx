"""Replay buffers: which events to keep, which to draw, and copying events out of a sparse matrix.

Every state is in arrays of the caller. Chance comes from a numpy bit generator, whose `bitgen_t` (state,
next_uint64, next_uint32, next_double, next_raw) is a documented interface; the numbers are those that
``Generator.random`` would give, in the same order.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.math cimport exp, floor, log, log1p
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy
from libcpp.vector cimport vector

cdef extern from *:
    """
    #define PREFETCH(address) __builtin_prefetch(address)
    """
    void PREFETCH(const void* address) noexcept nogil

cdef enum:
    AHEAD = 8  # rows that are fetched before they are copied: they lie all over the columns

ctypedef struct bitgen_t:
    void *state
    uint64_t (*next_uint64)(void *state) noexcept nogil
    uint32_t (*next_uint32)(void *state) noexcept nogil
    double (*next_double)(void *state) noexcept nogil
    uint64_t (*next_raw)(void *state) noexcept nogil

cdef double _NEVER = 4e18  # a gap beyond every stream
cdef double _MAX_THRESHOLD = 1.0 - 2.0**-53


cdef bitgen_t *_bits(object generator) except NULL:
    return <bitgen_t *> PyCapsule_GetPointer(generator.bit_generator.capsule, b"BitGenerator")


cdef inline double _random(bitgen_t *bits) noexcept nogil:
    return bits.next_double(bits.state)


def lay_out(const int64_t[::1] indptr, const int64_t[::1] positions, int64_t[::1] out):
    """Set `out` to the row pointers of the rows at `positions`, one after the other; return where they end.

    Raises
    ------
    IndexError
        If there is no such row.
    """
    cdef Py_ssize_t i, n = positions.shape[0], rows = indptr.shape[0] - 1
    cdef int64_t end = 0
    if out.shape[0] != n + 1:
        raise ValueError("positions and row pointers do not fit together")
    out[0] = 0
    for i in range(n):
        if not 0 <= positions[i] < rows:
            raise IndexError(f"position {positions[i]} is out of bounds: there are {rows} events")
        end += indptr[positions[i] + 1] - indptr[positions[i]]
        out[i + 1] = end
    return end


def gather(
    const int64_t[::1] indptr,
    const uint32_t[::1] indices,
    const double[::1] values,
    const uint32_t[::1] namespaces,
    const int64_t[::1] positions,
    const int64_t[::1] out_indptr,
    uint32_t[::1] out_indices,
    double[::1] out_values,
    uint32_t[::1] out_namespaces,
):
    """Copy the rows at `positions`; `out_indptr` says where to, and has to be of their lengths."""
    cdef Py_ssize_t i, n = positions.shape[0], rows = indptr.shape[0] - 1
    cdef int64_t nnz = indices.shape[0], room = out_indices.shape[0]
    cdef int64_t at, start, length, to
    cdef bint fits = (
        values.shape[0] == nnz and namespaces.shape[0] == nnz and out_indptr.shape[0] == n + 1
        and out_values.shape[0] == room and out_namespaces.shape[0] == room
    )
    if not fits:
        raise ValueError("columns of different lengths")
    with nogil:
        for i in range(n):
            if i + AHEAD < n and 0 <= positions[i + AHEAD] < rows:
                start = indptr[positions[i + AHEAD]]
                PREFETCH(&indices[0] + start)
                PREFETCH(&values[0] + start)
                PREFETCH(&namespaces[0] + start)
            at = positions[i]
            if not 0 <= at < rows:
                fits = False
                break
            start = indptr[at]
            length = indptr[at + 1] - start
            to = out_indptr[i]
            if (
                start < 0 or length < 0 or start > nnz - length
                or to < 0 or to > room - length or out_indptr[i + 1] != to + length
            ):
                fits = False
                break
            if length:
                memcpy(&out_indices[to], &indices[start], length * sizeof(uint32_t))
                memcpy(&out_values[to], &values[start], length * sizeof(double))
                memcpy(&out_namespaces[to], &namespaces[start], length * sizeof(uint32_t))
    if not fits:
        raise ValueError("no such rows, or no room for them")


def choose(object generator, Py_ssize_t population, int64_t[::1] places, int64_t[::1] out, int64_t[::1] swaps):
    """Draw ``len(out)`` different numbers below `population`, in random order.

    The first steps of a Fisher-Yates shuffle of `places`, which have to be 0, 1, …, and are so again.
    """
    cdef bitgen_t *bits = _bits(generator)
    cdef Py_ssize_t i, j, n = out.shape[0]
    if n > population or population > places.shape[0] or swaps.shape[0] < n:
        raise ValueError("more to draw than there is, or no room")
    with nogil:
        for i in range(n):
            j = i + <Py_ssize_t> (_random(bits) * <double> (population - i))
            if j >= population:
                j = population - 1
            swaps[i] = j
            out[i] = places[j]
            places[j] = places[i]
            places[i] = out[i]
        for i in range(n - 1, -1, -1):
            j = swaps[i]
            places[i], places[j] = places[j], places[i]


cdef double _shrunk(bitgen_t *bits, double log_threshold, int64_t n) noexcept nogil:
    """Draw the logarithm of the largest of `n` uniform numbers below a threshold."""
    return log_threshold + log(1.0 - _random(bits)) / <double> n


cdef int64_t _gap(bitgen_t *bits, double log_threshold) noexcept nogil:
    """Draw how many events to go on: each is kept if its own uniform number is below the threshold."""
    cdef double threshold = exp(log_threshold), steps
    if threshold > _MAX_THRESHOLD:
        threshold = _MAX_THRESHOLD
    steps = floor(log(1.0 - _random(bits)) / log1p(-threshold))
    return <int64_t> (steps if steps < _NEVER else _NEVER) + 1


def keep_uniformly(
    object generator,
    int64_t first,
    const int64_t[::1] costs,
    int64_t max_bytes,
    int64_t[::1] numbers,
    int64_t[::1] held_costs,
    int64_t[::1] counts,
    double[::1] log_threshold,
    int64_t[::1] kept,
):
    """Offer events `first`, ``first + 1``, … to a reservoir of ``len(numbers)``; return how many it took.

    Think of a uniform number for each event: held are the events whose numbers are the smallest, as many
    as there is room for. At full size the threshold is the largest of them; else they are all that are
    below it, and lie there uniformly. `counts` are events held, their bytes, and the next event to keep.
    `kept` receives the places, from 0, of the events that were taken.
    """
    cdef bitgen_t *bits = _bits(generator)
    cdef int64_t size = numbers.shape[0], n = costs.shape[0], held = counts[0], total = counts[1]
    cdef int64_t following = counts[2], at, slot, n_kept = 0
    cdef double log_w = log_threshold[0]
    cdef bint full
    if held_costs.shape[0] != size or kept.shape[0] < n or not 0 <= held <= size or following < first:
        raise ValueError("not a reservoir")
    with nogil:
        while following < first + n:
            at = following - first
            if costs[at] <= max_bytes:
                kept[n_kept] = at
                n_kept += 1
                full = held == size
                if full:
                    slot = <int64_t> (_random(bits) * <double> size)
                    total -= held_costs[slot]
                else:
                    slot = held
                    held += 1
                numbers[slot] = following
                held_costs[slot] = costs[at]
                total += costs[at]
                if full:
                    log_w = _shrunk(bits, log_w, size)
                while total > max_bytes and held > 0:
                    if not full:
                        log_w = _shrunk(bits, log_w, held)
                    full = False
                    slot = <int64_t> (_random(bits) * <double> held)
                    held -= 1
                    total -= held_costs[slot]
                    numbers[slot] = numbers[held]
                    held_costs[slot] = held_costs[held]
                if held == size and not full:
                    log_w = _shrunk(bits, log_w, size)
            following += 1 if log_w == 0.0 else _gap(bits, log_w)
    counts[0], counts[1], counts[2] = held, total, following
    log_threshold[0] = log_w
    return n_kept


cdef struct _Class:
    int64_t seen
    bint full
    vector[int64_t] slots


cdef class Classes:
    """The slots of a class-balanced reservoir, by class (Chrysakis and Moens 2020, Algorithm 1)."""

    cdef vector[_Class] classes
    cdef int64_t size, max_bytes, held, total
    cdef bint filled

    def __init__(self, int64_t size, int64_t max_bytes):
        self.size = size
        self.max_bytes = max_bytes

    @property
    def n_held(self):
        """Events held."""
        return self.held

    cdef int64_t _largest(self) noexcept nogil:
        cdef size_t c, best = 0
        for c in range(self.classes.size()):
            if self.classes[c].slots.size() > self.classes[best].slots.size():
                best = c
        return <int64_t> best

    cdef void _mark_largest(self) noexcept nogil:
        """Largest classes are full, and stay so."""
        cdef size_t c, most = self.classes[self._largest()].slots.size()
        for c in range(self.classes.size()):
            if self.classes[c].slots.size() == most:
                self.classes[c].full = True

    cdef void _drop(self, bitgen_t *bits, int64_t[::1] numbers, int64_t[::1] held_costs) noexcept nogil:
        """Drop a random event of a largest class; the last slot moves to its place."""
        cdef size_t c, k, most = self._largest()
        cdef size_t i = <size_t> (_random(bits) * <double> self.classes[most].slots.size())
        cdef int64_t slot = self.classes[most].slots[i], last = self.held - 1
        self.classes[most].slots[i] = self.classes[most].slots.back()
        self.classes[most].slots.pop_back()
        self.total -= held_costs[slot]
        self.held = last
        if slot == last:
            return
        numbers[slot] = numbers[last]
        held_costs[slot] = held_costs[last]
        for c in range(self.classes.size()):
            for k in range(self.classes[c].slots.size()):
                if self.classes[c].slots[k] == last:
                    self.classes[c].slots[k] = slot
                    return

    def offer(
        self,
        object generator,
        int64_t first,
        const int64_t[::1] labels,
        const int64_t[::1] costs,
        int64_t[::1] numbers,
        int64_t[::1] held_costs,
        int64_t[::1] kept,
    ):
        """Offer events `first`, ``first + 1``, …; return how many were taken, their places in `kept`."""
        cdef bitgen_t *bits = _bits(generator)
        cdef int64_t i, label, slot, most, n_kept = 0, n = labels.shape[0]
        cdef size_t place
        cdef double u
        if not (
            costs.shape[0] == n and kept.shape[0] >= n
            and numbers.shape[0] == self.size and held_costs.shape[0] == self.size
        ):
            raise ValueError("columns of different lengths")
        for i in range(n):
            if labels[i] < 0:
                raise ValueError("a class is numbered from 0")
            if labels[i] >= <int64_t> self.classes.size():
                self.classes.resize(labels[i] + 1)
        with nogil:
            for i in range(n):
                label = labels[i]
                self.classes[label].seen += 1
                if costs[i] > self.max_bytes:
                    continue
                slot = -1
                if not self.filled:
                    slot = self.held
                else:
                    u = _random(bits)
                    if self.classes[label].full:
                        # u n falls below m with probability m / n, and is then a place among the m
                        place = <size_t> (u * <double> self.classes[label].seen)
                        if place < self.classes[label].slots.size():
                            slot = self.classes[label].slots[place]
                            self.total -= held_costs[slot]
                    elif self.held < self.size:
                        slot = self.held
                    else:
                        most = self._largest()
                        place = <size_t> (u * <double> self.classes[most].slots.size())
                        slot = self.classes[most].slots[place]
                        self.classes[most].slots[place] = self.classes[most].slots.back()
                        self.classes[most].slots.pop_back()
                        self.total -= held_costs[slot]
                        self.classes[label].slots.push_back(slot)
                if slot < 0:
                    continue
                if slot == self.held:
                    self.classes[label].slots.push_back(slot)
                    self.held += 1
                kept[n_kept] = i
                n_kept += 1
                numbers[slot] = first + i
                held_costs[slot] = costs[i]
                self.total += costs[i]
                if self.held == self.size or self.total > self.max_bytes:
                    self.filled = True
                if self.filled:
                    self._mark_largest()
                while self.total > self.max_bytes and self.held > 0:
                    self._drop(bits, numbers, held_costs)
        return n_kept

    def dump(self):
        """Return whether it was full, and of each class: events seen, whether it was full, its slots."""
        cdef size_t c, k
        return bool(self.filled), [
            (
                self.classes[c].seen,
                bool(self.classes[c].full),
                [self.classes[c].slots[k] for k in range(self.classes[c].slots.size())],
            )
            for c in range(self.classes.size())
        ]

    def load(self, bint filled, list classes, const int64_t[::1] held_costs):
        """Become what `dump` gave; `held_costs` are those of the slots that are taken."""
        cdef int64_t slot
        cdef _Class one
        cdef vector[_Class] loaded
        cdef int64_t total = 0
        if sorted([slot for _, _, slots in classes for slot in slots]) != list(range(held_costs.shape[0])):
            raise ValueError("its classes do not share out its slots")
        if held_costs.shape[0] > self.size or (held_costs.shape[0] == self.size and not filled):
            raise ValueError("it holds too many events, or is not full with as many as there is room for")
        for seen, full, slots in classes:
            if seen < len(slots):
                raise ValueError("it holds more of a class than it was offered")
            one.seen, one.full = seen, full
            one.slots.clear()
            for slot in slots:
                one.slots.push_back(slot)
            loaded.push_back(one)
        for slot in range(held_costs.shape[0]):
            total += held_costs[slot]
        self.classes = loaded
        self.held = held_costs.shape[0]
        self.total = total
        self.filled = filled


def plant(double[::1] tree, const int64_t[::1] leaves, const double[::1] values):
    """Set leaves of a sum tree: node k is the sum of nodes 2k and 2k + 1, the leaves are its second half.

    Sums are made anew from their two parts, never corrected, so that they do not drift.
    """
    cdef Py_ssize_t i, n = leaves.shape[0], half = tree.shape[0] // 2, node
    if values.shape[0] != n or tree.shape[0] != 2 * half or half & (half - 1):
        raise ValueError("not a tree, or columns of different lengths")
    for i in range(n):
        if not 0 <= leaves[i] < half:
            raise ValueError("no such leaf")
    with nogil:
        for i in range(n):
            tree[half + leaves[i]] = values[i]
        for i in range(n):
            node = (half + leaves[i]) >> 1
            while node:
                tree[node] = tree[2 * node] + tree[2 * node + 1]
                node >>= 1


def pick(object generator, const double[::1] tree, int64_t[::1] out):
    """Draw a leaf with probability in proportion to its value from each of ``len(out)`` equal strata."""
    cdef bitgen_t *bits = _bits(generator)
    cdef Py_ssize_t i, node, n = out.shape[0], half = tree.shape[0] // 2
    cdef double target
    if half < 1 or half & (half - 1):
        raise ValueError("not a tree")
    with nogil:
        for i in range(n):
            target = (<double> i + _random(bits)) / <double> n * tree[1]
            node = 1
            while node < half:
                node <<= 1
                # to the right only where there is something: rounding may leave a target beyond the sum
                if target >= tree[node] and tree[node + 1] > 0.0:
                    target -= tree[node]
                    node += 1
            out[i] = node - half
