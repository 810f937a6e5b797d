"""Kernels of the sequential detectors: a whole array of values a call, without the GIL.

Each takes its detector's memory, an array of numbers that is all zeros before the first value, updates it
in place, and returns the first alarm as (index, mean before, mean after, width after), or None. The value
after an alarm finds the memory empty again, and so does the one after `longest` values without an alarm
(-1: never). The order of the arithmetic is part of the contract: states are
compared to the bit, and alarms with River's.
"""

from libc.math cimport fabs, floor, log, sqrt
from libc.stdint cimport int64_t

cdef enum:
    _UP = 1    # alarm where the mean rose
    _DOWN = 2  # where it fell
    _BETS = 12
    # Numbers in the memory of each detector.
    _PAGE_HINKLEY = 12
    _CUSUM = 11
    _DDM = 7
    _EDDM = 9
    _HDDM_A = 9
    _HDDM_W = 18
    _STEPD = 4
    _KSWIN = 2
    _E_DETECTOR = 9 + _BETS

UP, DOWN, BOTH = _UP, _DOWN, _UP | _DOWN
PAGE_HINKLEY, CUSUM, DDM, EDDM, HDDM_A = _PAGE_HINKLEY, _CUSUM, _DDM, _EDDM, _HDDM_A
HDDM_W, STEPD, KSWIN, E_DETECTOR = _HDDM_W, _STEPD, _KSWIN, _E_DETECTOR

cdef double _LONGEST = 9007199254740992.0  # 2**53: beyond it a count in a float64 stands still


cdef struct Alarm:
    Py_ssize_t index
    double before
    double after
    double width


cdef inline void ring(Alarm* alarm, Py_ssize_t i, double before, double after, double width) noexcept nogil:
    if alarm.index < 0:
        alarm.index = i
        alarm.before = before
        alarm.after = after
        alarm.width = width


cdef inline void clear(double* memory, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(size):
        memory[i] = 0.0


cdef inline double ratio(double total, double n, double otherwise) noexcept nogil:
    return total / n if n > 0.0 else otherwise


cdef object found(const Alarm* alarm):
    if alarm.index < 0:
        return None
    return alarm.index, alarm.before, alarm.after, <int64_t>alarm.width


cdef int require(const double[::1] memory, Py_ssize_t size) except -1:
    """Refuse a memory of another detector, or counts that no stream can have led to."""
    if memory.shape[0] != size:
        raise ValueError(f"expected a memory of {size} numbers, got {memory.shape[0]}")
    if not 0.0 <= memory[1] < _LONGEST or memory[1] != floor(memory[1]):
        raise ValueError(f"a detector cannot have taken {memory[1]} values")
    return 0


def first_outside(const double[::1] values, double low, double high, bint only_ends):
    """Position of the first value that is not in [low, high] (with `only_ends`: neither low nor high); or -1."""
    cdef Py_ssize_t i, n = values.shape[0], at = -1
    with nogil:
        for i in range(n):
            if not low <= values[i] <= high or (only_ends and low < values[i] < high):
                at = i
                break
    return at


def page_hinkley(
    const double[::1] values,
    double[::1] memory,
    double delta,
    double threshold,
    double alpha,
    int64_t warm_up,
    int directions,
):
    """Page-Hinkley test with fading sums (Page 1954; as River's)."""
    # alarmed, n, mean, rise, fall, least rise, largest fall, total, n and total at the least, at the largest
    require(memory, _PAGE_HINKLEY)
    cdef Alarm alarm
    cdef Py_ssize_t i, n_values = values.shape[0]
    cdef double* m = &memory[0]
    cdef double x, off
    alarm.index = -1
    with nogil:
        for i in range(n_values):
            if m[0] != 0.0:
                clear(m, _PAGE_HINKLEY)
            x = values[i]
            m[1] += 1.0
            m[2] += (1.0 / m[1]) * (x - m[2])
            m[7] += x
            off = x - m[2]
            m[3] = alpha * m[3] + off - delta
            m[4] = alpha * m[4] + off + delta
            if m[1] == 1.0 or m[3] < m[5]:
                m[5] = m[3]
                m[8] = m[1]
                m[9] = m[7]
            if m[1] == 1.0 or m[4] > m[6]:
                m[6] = m[4]
                m[10] = m[1]
                m[11] = m[7]
            if m[1] < warm_up:
                continue
            if directions & _UP and m[3] - m[5] > threshold:
                m[0] = 1.0
                ring(&alarm, i, m[9] / m[8], ratio(m[7] - m[9], m[1] - m[8], x), m[1] - m[8])
            elif directions & _DOWN and m[6] - m[4] > threshold:
                m[0] = 1.0
                ring(&alarm, i, m[11] / m[10], ratio(m[7] - m[11], m[1] - m[10], x), m[1] - m[10])
    return found(&alarm)


def cusum(
    const double[::1] values,
    double[::1] memory,
    double slack,
    double threshold,
    double mean,
    double sd,
    int64_t warm_up,
    double unlikely,
    int directions,
):
    """Standardised CUSUM (Page 1954); self-starting (Hawkins 1987) where `sd` is 0.

    `unlikely` is what any deviation counts while the standard deviation is still 0.
    """
    # alarmed, n, mean, m2, rise, fall, total, n and total since the rise was 0, since the fall was 0
    require(memory, _CUSUM)
    cdef Alarm alarm
    cdef Py_ssize_t i, n_values = values.shape[0]
    cdef double* m = &memory[0]
    cdef bint known = sd > 0.0
    cdef double x, z, off, spread, centre
    alarm.index = -1
    with nogil:
        for i in range(n_values):
            if m[0] != 0.0:
                clear(m, _CUSUM)
            x = values[i]
            z = 0.0
            if known:
                z = (x - mean) / sd
            elif m[1] >= warm_up:
                off = x - m[2]
                spread = sqrt(m[3] / (m[1] - 1.0))
                if spread > 0.0:
                    z = off / (spread * sqrt(1.0 + 1.0 / m[1]))
                elif off != 0.0:
                    z = unlikely if off > 0.0 else -unlikely
            m[1] += 1.0
            off = x - m[2]
            m[2] += off / m[1]
            m[3] += off * (x - m[2])
            m[6] += x
            m[4] += z - slack
            if m[4] > 0.0:
                m[7] += 1.0
                m[8] += x
            else:
                m[4] = m[7] = m[8] = 0.0
            m[5] += -z - slack
            if m[5] > 0.0:
                m[9] += 1.0
                m[10] += x
            else:
                m[5] = m[9] = m[10] = 0.0
            centre = mean if known else m[2]
            if directions & _UP and m[4] > threshold:
                m[0] = 1.0
                ring(&alarm, i, ratio(m[6] - m[8], m[1] - m[7], centre), m[8] / m[7], m[7])
            elif directions & _DOWN and m[5] > threshold:
                m[0] = 1.0
                ring(&alarm, i, ratio(m[6] - m[10], m[1] - m[9], centre), m[10] / m[9], m[9])
    return found(&alarm)


def ddm(
    const double[::1] values, double[::1] memory, double threshold, int64_t warm_up, int64_t longest
):
    """Drift detection method (Gama, Medas, Castillo and Rodrigues 2004; as River's)."""
    # alarmed, n, mean; at the least mean + deviation: n, mean, deviation, their sum
    require(memory, _DDM)
    cdef Alarm alarm
    cdef Py_ssize_t i, n_values = values.shape[0]
    cdef double* m = &memory[0]
    cdef double x, variance, deviation
    alarm.index = -1
    with nogil:
        for i in range(n_values):
            if m[0] != 0.0 or m[1] == longest:
                clear(m, _DDM)
            x = values[i]
            m[1] += 1.0
            m[2] += (1.0 / m[1]) * (x - m[2])
            if m[1] <= warm_up:
                continue
            variance = m[2] * (1.0 - m[2])
            deviation = sqrt(variance / m[1]) if variance > 0.0 else 0.0
            if m[3] == 0.0 or m[2] + deviation <= m[6]:
                m[3] = m[1]
                m[4] = m[2]
                m[5] = deviation
                m[6] = m[2] + deviation
            if m[2] + deviation > m[4] + threshold * m[5]:
                m[0] = 1.0
                ring(
                    &alarm,
                    i,
                    m[4],
                    ratio(m[1] * m[2] - m[3] * m[4], m[1] - m[3], m[2]),
                    m[1] - m[3],
                )
    return found(&alarm)


def eddm(
    const double[::1] values, double[::1] memory, double threshold, int64_t warm_up, int64_t longest
):
    """Early drift detection method (Baena-García et al. 2006; as River's)."""
    # alarmed, n, n at the last error, errors, mean gap, m2 of gaps; at the widest: mean + 2 sd, n, errors
    require(memory, _EDDM)
    cdef Alarm alarm
    cdef Py_ssize_t i, n_values = values.shape[0]
    cdef double* m = &memory[0]
    cdef double gap, before, wide
    alarm.index = -1
    with nogil:
        for i in range(n_values):
            if m[0] != 0.0 or m[1] == longest:
                clear(m, _EDDM)
            m[1] += 1.0
            if values[i] != 1.0:
                continue
            gap = m[1] - m[2]
            m[2] = m[1]
            m[3] += 1.0
            before = m[4]
            m[4] += (1.0 / m[3]) * (gap - m[4])
            m[5] += (gap - before) * (gap - m[4])
            if m[1] <= warm_up:
                continue
            wide = m[4] + 2.0 * (sqrt(m[5] / (m[3] - 1.0)) if m[3] > 1.0 and m[5] > 0.0 else 0.0)
            if m[6] == 0.0 or wide > m[6]:
                m[6] = wide
                m[7] = m[1]
                m[8] = m[3]
            elif m[3] > warm_up and wide / m[6] < threshold:
                m[0] = 1.0
                ring(&alarm, i, m[8] / m[7], (m[3] - m[8]) / (m[1] - m[7]), m[1] - m[7])
    return found(&alarm)


def hddm_a(
    const double[::1] values, double[::1] memory, double confidence, int directions, int64_t longest
):
    """Hoeffding's bounds on two running means (Frías-Blanco et al. 2015, A-test; as River's)."""
    # alarmed, n, mean; at the lowest upper bound: n, mean, bound; at the highest lower bound: likewise
    require(memory, _HDDM_A)
    cdef Alarm alarm
    cdef Py_ssize_t i, n_values = values.shape[0]
    cdef double* m = &memory[0]
    cdef double one = log(1.0 / confidence), two = log(2.0 / confidence)
    cdef double x, bound, enough
    alarm.index = -1
    with nogil:
        for i in range(n_values):
            if m[0] != 0.0 or m[1] == longest:
                clear(m, _HDDM_A)
            x = values[i]
            m[1] += 1.0
            m[2] += (1.0 / m[1]) * (x - m[2])
            bound = sqrt(1.0 / (2.0 * m[1]) * one)
            if m[3] == 0.0 or m[4] + m[5] >= m[2] + bound:
                m[3] = m[1]
                m[4] = m[2]
                m[5] = bound
            if m[6] == 0.0 or m[7] - m[8] <= m[2] - bound:
                m[6] = m[1]
                m[7] = m[2]
                m[8] = bound
            if directions & _UP and m[3] != m[1]:
                enough = sqrt((m[1] - m[3]) / m[3] * (1.0 / m[1]) / 2.0 * two)
                if m[2] - m[4] >= enough:
                    m[0] = 1.0
                    ring(&alarm, i, m[4], (m[1] * m[2] - m[3] * m[4]) / (m[1] - m[3]), m[1] - m[3])
                    continue
            if directions & _DOWN and m[6] != m[1]:
                enough = sqrt((m[1] - m[6]) / m[6] * (1.0 / m[1]) / 2.0 * two)
                if m[7] - m[2] >= enough:
                    m[0] = 1.0
                    ring(&alarm, i, m[7], (m[1] * m[2] - m[6] * m[7]) / (m[1] - m[6]), m[1] - m[6])
    return found(&alarm)


cdef struct Faded:
    double n
    double mean
    double ibc  # McDiarmid's sum of squared weights; 1 before the first value


cdef inline void fade_in(Faded* sample, double x, double fading) noexcept nogil:
    sample.mean = x if sample.n == 0.0 else fading * x + (1.0 - fading) * sample.mean
    sample.ibc = fading * fading + (1.0 - fading) * (1.0 - fading) * sample.ibc
    sample.n += 1.0


def hddm_w(
    const double[::1] values, double[::1] memory, double confidence, double fading, int directions
):
    """McDiarmid's bounds on two fading means (Frías-Blanco et al. 2015, W-test; as River's)."""
    # alarmed, n, (mean, ibc), then for rises: cut, before (n, mean, ibc), after (n, mean, ibc); for falls too
    require(memory, _HDDM_W)
    cdef Alarm alarm
    cdef Py_ssize_t i, n_values = values.shape[0]
    cdef double* m = &memory[0]
    cdef double one = log(1.0 / confidence)
    cdef double bound
    cdef Faded fresh, total
    cdef Faded* low = <Faded*>(m + 5)        # before a rise
    cdef Faded* risen = <Faded*>(m + 8)      # since
    cdef Faded* high = <Faded*>(m + 12)      # before a fall
    cdef Faded* fallen = <Faded*>(m + 15)    # since
    fresh.n = fresh.mean = 0.0
    fresh.ibc = 1.0
    alarm.index = -1
    with nogil:
        for i in range(n_values):
            if m[0] != 0.0:
                clear(m, _HDDM_W)
            total.n = m[1]
            total.mean = m[2]
            total.ibc = m[3] if m[1] > 0.0 else 1.0
            fade_in(&total, values[i], fading)
            bound = sqrt(total.ibc * one / 2.0)
            if m[1] == 0.0 or total.mean + bound < m[4]:
                m[4] = total.mean + bound
                low[0] = total
                risen[0] = fresh
            else:
                fade_in(risen, values[i], fading)
            if m[1] == 0.0 or total.mean - bound > m[11]:
                m[11] = total.mean - bound
                high[0] = total
                fallen[0] = fresh
            else:
                fade_in(fallen, values[i], fading)
            m[1] = total.n
            m[2] = total.mean
            m[3] = total.ibc
            if directions & _UP and risen.n > 0.0:
                if risen.mean - low.mean > sqrt((low.ibc + risen.ibc) * one / 2.0):
                    m[0] = 1.0
                    ring(&alarm, i, low.mean, risen.mean, risen.n)
                    continue
            if directions & _DOWN and fallen.n > 0.0:
                if high.mean - fallen.mean > sqrt((high.ibc + fallen.ibc) * one / 2.0):
                    m[0] = 1.0
                    ring(&alarm, i, high.mean, fallen.mean, fallen.n)
    return found(&alarm)


def stepd(
    const double[::1] values, double[::1] memory, double[::1] window, double critical, int directions
):
    """Test of equal proportions, recent against older values (Nishida and Yamauchi 2007)."""
    # alarmed, n, total of the older, total of the recent; the recent are in the window, a ring
    require(memory, _STEPD)
    if window.shape[0] < 1:
        raise ValueError("the window is empty")
    cdef Alarm alarm
    cdef Py_ssize_t i, place, n_values = values.shape[0], size = window.shape[0]
    cdef double* m = &memory[0]
    cdef double older, pooled, variance, difference, inverse
    alarm.index = -1
    place = <int64_t>m[1] % size
    with nogil:
        for i in range(n_values):
            if m[0] != 0.0:
                clear(m, _STEPD)
                clear(&window[0], size)
                place = 0
            m[2] += window[place]  # what leaves; 0 while the window fills
            m[3] += values[i] - window[place]
            window[place] = values[i]
            place = place + 1 if place + 1 < size else 0
            m[1] += 1.0
            older = m[1] - size
            if older < size:
                continue
            pooled = (m[2] + m[3]) / m[1]
            inverse = 1.0 / older + 1.0 / size
            variance = pooled * (1.0 - pooled) * inverse
            if variance <= 0.0:
                continue
            difference = m[3] / size - m[2] / older
            if not (directions & _UP if difference > 0.0 else directions & _DOWN):
                continue
            if fabs(difference) - 0.5 * inverse > critical * sqrt(variance):
                m[0] = 1.0
                ring(&alarm, i, m[2] / older, m[3] / size, <double>size)
    return found(&alarm)


cdef Py_ssize_t place_of(const double* keys, Py_ssize_t n, double key) noexcept nogil:
    """How many of the sorted `keys` are smaller than `key`."""
    cdef Py_ssize_t low = 0, high = n, middle
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low


cdef double largest_gap(
    const double* keys, const double* recent, Py_ssize_t n, double n_old, double n_new
) noexcept nogil:
    """Kolmogorov and Smirnov's distance between the two samples that are merged in `keys`."""
    cdef double seen_old = 0.0, seen_new = 0.0, gap = 0.0, here
    cdef Py_ssize_t i
    for i in range(n):
        if recent[i] != 0.0:
            seen_new += 1.0
        else:
            seen_old += 1.0
        if i + 1 < n and keys[i] == keys[i + 1]:
            continue
        here = fabs(seen_old / n_old - seen_new / n_new)
        if here > gap:
            gap = here
    return gap


def kswin(
    const double[::1] values,
    double[::1] memory,
    double[::1] window,
    double[::1] keys,
    double[::1] recent,
    int64_t n_recent,
    int64_t clock,
    double critical,
):
    """Kolmogorov and Smirnov's test of the recent against the older values of a window (Raab et al. 2020).

    `window` is a ring. `keys` holds the same values sorted, `recent` a 1 for each of them that is recent;
    both follow from the window.
    """
    require(memory, _KSWIN)
    cdef Py_ssize_t size = window.shape[0]
    if not 0 < n_recent < size or keys.shape[0] != size or recent.shape[0] != size or clock < 1:
        raise ValueError("the arrays of KSWIN's state do not fit together")
    cdef Alarm alarm
    cdef Py_ssize_t i, j, place, held, at, n_values = values.shape[0]
    cdef double* m = &memory[0]
    cdef double x, old, before, after
    alarm.index = -1
    with nogil:
        for i in range(n_values):
            if m[0] != 0.0:
                clear(m, _KSWIN)
                clear(&window[0], size)
            x = values[i]
            place = <int64_t>m[1] % size
            held = <int64_t>m[1] if m[1] < size else size
            if held == size:  # the oldest leaves
                at = place_of(&keys[0], held, window[place])
                while at < held - 1 and recent[at] != 0.0:
                    at += 1
                for j in range(at, held - 1):
                    keys[j] = keys[j + 1]
                    recent[j] = recent[j + 1]
                held -= 1
            if m[1] >= n_recent:  # one value is not recent any more
                old = window[(<int64_t>m[1] - n_recent) % size]
                at = place_of(&keys[0], held, old)
                while at < held - 1 and recent[at] == 0.0:
                    at += 1
                recent[at] = 0.0
            at = place_of(&keys[0], held, x)
            for j in range(held, at, -1):
                keys[j] = keys[j - 1]
                recent[j] = recent[j - 1]
            keys[at] = x
            recent[at] = 1.0
            window[place] = x
            m[1] += 1.0
            if m[1] < size or <int64_t>m[1] % clock != 0:
                continue
            if largest_gap(&keys[0], &recent[0], size, <double>(size - n_recent), <double>n_recent) > critical:
                m[0] = 1.0
                before = after = 0.0
                for j in range(size):
                    if recent[j] != 0.0:
                        after += keys[j]
                    else:
                        before += keys[j]
                ring(&alarm, i, before / (size - n_recent), after / n_recent, <double>n_recent)
    return found(&alarm)


def e_detector(
    const double[::1] values,
    double[::1] memory,
    double threshold,
    double known,
    int64_t reference,
    double log_risk,
    bint sums,
):
    """Mixture of e-detectors for a mean in [0, 1] that rose (Shin, Ramdas and Rinaldo 2022).

    The bound on the mean is `known`, or, where that is 0, learned from the first `reference` values; `sums`
    chooses Shiryaev and Roberts' recursion, else the CUSUM. The processes stay below 2·12·threshold, so they
    need no logarithms.
    """
    # alarmed, n, mean and m2 of the reference, bound on the mean, total; CUSUM of one bet, its n and total;
    # then one process a bet
    require(memory, _E_DETECTOR)
    cdef Alarm alarm
    cdef Py_ssize_t i, n_values = values.shape[0]
    cdef int j
    cdef double* m = &memory[0]
    cdef double* e = m + 9
    cdef double[_BETS] bets
    cdef double x, off, variance, mean
    alarm.index = -1
    for j in range(_BETS):
        bets[j] = 0.02 * 45.0 ** (j / (_BETS - 1.0))  # from 0.02 to 0.9, over the bound
    with nogil:
        for i in range(n_values):
            if m[0] != 0.0:
                clear(m, _E_DETECTOR)
            x = values[i]
            m[1] += 1.0
            m[5] += x
            if known > 0.0:
                m[4] = known
            elif m[1] <= reference:
                off = x - m[2]
                m[2] += off / m[1]
                m[3] += off * (x - m[2])
                if m[1] == reference:  # Maurer and Pontil's empirical Bernstein bound (2009)
                    variance = m[3] / (reference - 1.0)
                    m[4] = m[2] + sqrt(2.0 * variance * log_risk / reference)
                    m[4] += 7.0 * log_risk / (3.0 * (reference - 1.0))
                continue
            off = (x - m[4]) / m[4]
            mean = 0.0
            for j in range(_BETS):
                e[j] = (e[j] + 1.0 if sums else max(e[j], 1.0)) * (1.0 + bets[j] * off)
                mean += e[j]
            m[6] = max(m[6], 1.0) * (1.0 + bets[_BETS // 2] * off)
            if m[6] > 1.0:
                m[7] += 1.0
                m[8] += x
            else:
                m[7] = m[8] = 0.0
            if mean >= threshold * _BETS:
                m[0] = 1.0
                ring(&alarm, i, ratio(m[5] - m[8], m[1] - m[7], m[4]), ratio(m[8], m[7], x), max(m[7], 1.0))
    return found(&alarm)
