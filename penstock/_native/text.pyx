"""What is written as text: the cells of a table, and Vowpal Wabbit's lines.

They are hashed as the rows they are given back as would be, see `penstock._native.features`.
"""

from penstock._native.features import FINITE, Unusable, hash_feature
from penstock.errors import DataError

from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.math cimport fabs
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memchr
from libcpp.vector cimport vector

from penstock._native.features cimport (
    MAX_INTEGER,
    MAX_MAGNITUDE,
    Entries,
    Text,
    hash_name,
    hash_text,
    matrix,
    utf8,
)

cdef extern from *:
    """
    #include <charconv>

    static bool parse_double(const uint8_t* first, const uint8_t* last, double* value) {
        auto start = reinterpret_cast<const char*>(first), end = reinterpret_cast<const char*>(last);
        return std::from_chars(start, end, *value).ec == std::errc();
    }
    """
    bint parse_double(const uint8_t* first, const uint8_t* last, double* value) noexcept

cdef extern from "Python.h":
    double PyOS_string_to_double(const char* text, char** end, PyObject* overflow) except? -1.0

cdef enum:
    MAX_SPARE = 1 << 20  # entries (20 MB) that a buffer may hold on to between calls

VW_VALUE = "a number, or a category that cannot be taken for one"

cdef Entries _spare


cdef enum Kind:
    NOT_A_NUMBER
    INTEGER
    DECIMAL
    NOT_FINITE
    OUT_OF_RANGE  # of magnitude > 1e18


cdef struct Number:
    double value
    long long integer  # the same, of an INTEGER


cdef inline bint _is_digit(Text at, Text last) noexcept:
    return at != last and c"0" <= at[0] <= c"9"


cdef inline bint _is_sign(Text at, Text last) noexcept:
    return at != last and (at[0] == c"+" or at[0] == c"-")


cdef inline bint _is_exponent(Text at, Text last) noexcept:
    return at != last and (at[0] == c"e" or at[0] == c"E")


cdef bint _starts_with(Text at, Text last, const char* word) noexcept:
    """Whether `word` (lower-case letters) begins the text, in whatever case."""
    while word[0]:
        if at == last or (at[0] | 0x20) != word[0]:
            return False
        at += 1
        word += 1
    return True


cdef bint _is_not_finite(Text at, Text last) noexcept:
    if last - at == 3:
        return _starts_with(at, last, b"nan") or _starts_with(at, last, b"inf")
    return last - at == 8 and _starts_with(at, last, b"infinity")


cdef Kind _read_number(Text first, Text last, Number* number) except *:
    """Read ``[+-]digits[.digits][e[+-]digits]`` from the whole text, rounding correctly.

    A byte that cannot go on the number must follow the text.
    """
    cdef bint negative = first != last and first[0] == c"-"
    cdef Text start = first + 1 if _is_sign(first, last) else first
    cdef Text at = start
    cdef unsigned long long integer = 0
    cdef Py_ssize_t n_digits
    if _is_not_finite(start, last):
        return Kind.NOT_FINITE
    while _is_digit(at, last):
        if integer <= MAX_INTEGER:  # stays above it from then on
            integer = 10 * integer + (at[0] - c"0")
        at += 1
    n_digits = at - start
    if at == last and n_digits:
        number.integer = -<long long>integer if negative else <long long>integer
        number.value = <double>number.integer
        return Kind.INTEGER if integer <= MAX_INTEGER else Kind.OUT_OF_RANGE
    if at != last and at[0] == c".":
        at += 1
        while _is_digit(at, last):
            at += 1
            n_digits += 1
    if n_digits == 0:
        return Kind.NOT_A_NUMBER
    if _is_exponent(at, last):
        at += 2 if _is_sign(at + 1, last) else 1
        if not _is_digit(at, last):
            return Kind.NOT_A_NUMBER
        while _is_digit(at, last):
            at += 1
    if at != last:
        return Kind.NOT_A_NUMBER
    if not parse_double(start, last, &number.value):  # it does not say on which side it left the range
        number.value = PyOS_string_to_double(<const char*>start, <char**>&at, NULL)
    if negative:
        number.value = -number.value
    return Kind.DECIMAL if fabs(number.value) <= MAX_MAGNITUDE else Kind.OUT_OF_RANGE


cdef inline bint _is_space(Text at) noexcept:
    return at[0] == c" " or c"\t" <= at[0] <= c"\r"


cdef Kind _read_cell(object cell, Number* number) except *:
    cdef Text last = NULL
    cdef Text first = utf8(<PyObject*>cell, &last)
    while first != last and _is_space(first):
        first += 1
    while first != last and _is_space(last - 1):
        last -= 1
    return _read_number(first, last, number)


cdef enum Column:
    AUTO
    NUMBER
    CATEGORY
    IGNORED


cdef dict _encode_record(
    list names, vector[uint32_t]& indices, vector[int]& kinds, list cells, object missing, Entries& out
):
    """Append the entries of one record; return it as a row."""
    cdef Py_ssize_t i
    cdef Number number
    cdef Kind kind
    cdef uint32_t category
    cdef dict row = {}
    if len(cells) != len(names):
        raise Unusable(f"{len(names)} cells", len(cells))
    try:
        for i in range(len(names)):
            if kinds[i] == Column.IGNORED:
                continue
            name = names[i]
            cell = cells[i]
            if type(cell) is not str:
                raise Unusable("text", cell)
            if cell in missing:
                continue
            kind = Kind.NOT_A_NUMBER if kinds[i] == Column.CATEGORY else _read_cell(cell, &number)
            if kind == Kind.OUT_OF_RANGE and kinds[i] == Column.AUTO:
                kind = Kind.NOT_A_NUMBER  # an identifier: 04e09220 is one, and so are twenty digits
            if kind == Kind.NOT_FINITE or kind == Kind.OUT_OF_RANGE:
                raise Unusable(FINITE, cell)
            if kind == Kind.NOT_A_NUMBER:
                if kinds[i] == Column.NUMBER:
                    raise Unusable("a number", cell)
                hash_text(<PyObject*>cell, indices[i], &category)
                out.add(category, 1.0, 0)
                row[name] = cell
            else:
                if number.value != 0.0:
                    out.add(indices[i], number.value, 0)
                row[name] = number.integer if kind == Kind.INTEGER else number.value
    except Unusable as unusable:
        unusable.path.append(name)
        raise
    return row


def encode_cells(names, kinds, records, missing):
    """Read the records of a table, given as text.

    A number is written ``[+-]digits[.digits][e[+-]digits]`` in ASCII, with white space around it or not,
    and is rounded correctly.

    Parameters
    ----------
    names : sequence of str, length m
    kinds : sequence of int, length m
        Of each column: 0 takes what reads as a number of magnitude <= 1e18 for one, and everything else
        for a category;
        1 takes numbers only; 2 takes every cell for a category; 3 ignores the column.
    records : sequence of sequences of str, length n
    missing : set of str
        Cells that say that there is no value; they are compared as they stand.

    Returns
    -------
    features : Features
        n rows: what `encode_rows` makes of `rows`.
    rows : list of dicts, length n
        Numbers written without a point or exponent are int, others float. Empty where a record is bad.
    bad : list of (int, BadRecord)
        Which records cannot be used, in order, and why: the first column whose cell is not of its kind,
        or a number that is not finite or of magnitude > 1e18; or a wrong number of cells.

    Raises
    ------
    DataError
        If two columns that are not ignored have the same name.
    ValueError
        If `kinds` does not fit `names`.

    Examples
    --------
    >>> _, rows, bad = encode_cells(["age", "country"], [1, 0], [["31", "SE"], ["?", "SE"]], {""})
    >>> rows
    [{'age': 31, 'country': 'SE'}, {}]
    >>> print(bad[0][1])
    expected a number, got '?' - at `$.age`
    """
    cdef Entries out
    cdef vector[int64_t] indptr
    cdef vector[uint32_t] indices
    cdef vector[int] columns
    cdef size_t start
    out.take(_spare)
    names = list(names)
    if len(kinds) != len(names):
        raise ValueError(f"{len(names)} names, but {len(kinds)} kinds of columns")
    seen = set()
    for name, kind in zip(names, kinds):
        if not Column.AUTO <= kind <= Column.IGNORED:
            raise ValueError(f"column {name!r}: kind must be 0, 1, 2 or 3, got {kind!r}")
        if kind != Column.IGNORED and name in seen:
            raise DataError(f"two columns are called {name!r}")
        seen.add(name)
        columns.push_back(kind)
        indices.push_back(hash_feature(name))
    rows = []
    bad = []
    indptr.push_back(0)
    for i, cells in enumerate(records):
        start = out.size()
        try:
            rows.append(_encode_record(names, indices, columns, list(cells), missing, out))
        except Unusable as unusable:
            out.truncate(start)
            rows.append({})
            bad.append((i, unusable.record()))
        indptr.push_back(out.size())
    features = matrix(indptr, out)
    _spare.keep(out, MAX_SPARE)
    return features, rows, bad


cdef inline Text _token_end(Text at, Text last) noexcept:
    """Where VW takes a name or a number to end."""
    while at != last and at[0] != c" " and at[0] != c"\t" and at[0] != c":" and at[0] != c"|":
        at += 1
    return at


cdef inline Text _word_end(Text at, Text last) noexcept:
    """Where VW takes a category to end."""
    while at != last and at[0] != c" " and at[0] != c"\t":
        at += 1
    return at


cdef inline str _decode(Text first, Text last):
    return PyUnicode_DecodeUTF8(<const char*>first, last - first, NULL)


cdef bint _vw_takes_for_number(Text at, Text last) noexcept:
    """Whether VW would read (a beginning of) this category as a number, most likely as 0."""
    cdef Text p
    while at != last and _is_space(at):
        at += 1
    if _is_sign(at, last):
        at += 1
    if (
        at == last
        or _is_digit(at, last)
        or (at[0] == c"." and _is_digit(at + 1, last))
        or _starts_with(at, last, b"nan")
        or _starts_with(at, last, b"inf")
    ):
        return True
    p = at + 1 if at[0] == c"." else at
    if _is_exponent(p, last):
        p += 1
        if p != last and p[0] == c"-":
            p += 1
        while _is_digit(p, last):
            p += 1
    return p == last


cdef int _merge(dict features, str name, object value) except -1:
    """Add a feature that may be there already: numbers add up, categories make a list behind them."""
    old = features.get(name)
    if old is None:
        features[name] = value
    elif type(old) is float and type(value) is float:
        features[name] = old + value
    else:
        values = old if type(old) is list else [old]
        if type(value) is not float:
            values.append(value)
        elif type(values[0]) is float:
            values[0] += value
        else:
            values.insert(0, value)
        features[name] = values
    return 0


cdef Text _encode_namespace(Text at, Text last, dict spaces, Entries& out) except NULL:
    """Append the entries of one namespace, whose ``|`` lies behind; return where it ends."""
    cdef Text end = _token_end(at, last)
    cdef uint32_t namespace = hash_name(<const char*>at, end - at, 0)
    cdef uint32_t index
    cdef uint32_t n_anonymous = 0
    cdef Number number
    cdef Number scale
    cdef Kind kind
    cdef str space = _decode(at, end)
    cdef str name
    scale.value = 1.0
    if end != last and end[0] == c":":
        at = end + 1
        end = _token_end(at, last)
        if not space:
            raise Unusable("the name of a namespace before its ':'", _decode(at - 1, end))
        kind = _read_number(at, end, &scale)
        if kind > Kind.DECIMAL or kind == Kind.NOT_A_NUMBER or (end != last and end[0] == c":"):
            raise _unusable_in_line(FINITE, at, _word_end(at, last), space, None)
    features = None
    at = end
    while at != last and at[0] != c"|":
        if at[0] == c" " or at[0] == c"\t":
            at += 1
            continue
        end = _token_end(at, last)
        name = _decode(at, end)
        index = hash_name(<const char*>at, end - at, namespace)
        number.value = 1.0
        kind = Kind.DECIMAL
        if end != last and end[0] == c":":
            at = end + 1
            end = _token_end(at, last)
            kind = _read_number(at, end, &number)
            if kind == Kind.NOT_FINITE or kind == Kind.OUT_OF_RANGE:
                raise _unusable_in_line(FINITE, at, end, space, name)
            if kind == Kind.NOT_A_NUMBER or (end != last and end[0] == c":"):
                end = _word_end(at, last)
                if _vw_takes_for_number(at, end):
                    raise _unusable_in_line(VW_VALUE, at, end, space, name)
                kind = Kind.NOT_A_NUMBER
            if kind != Kind.NOT_A_NUMBER and not name:
                index = namespace + n_anonymous
                name = str(n_anonymous)
                n_anonymous += 1
        if kind == Kind.NOT_A_NUMBER:
            index = hash_name(<const char*>at, end - at, index)
            number.value = 1.0
        else:
            number.value *= scale.value
            if fabs(number.value) > MAX_MAGNITUDE:
                raise _unusable_in_line(FINITE, at, end, space, name)
        if number.value != 0.0:
            out.add(index, number.value, namespace)
            if features is None:
                features = spaces.setdefault(space, {})
            if kind != Kind.NOT_A_NUMBER:
                _merge(features, name, number.value)
            elif name:
                _merge(features, name, _decode(at, end))
            else:
                _merge(features, _decode(at, end), 1.0)  # VW's hash of a category without a name
        at = end
    return at


cdef object _unusable_in_line(str expected, Text first, Text last, str space, str name):
    unusable = Unusable(expected, _decode(first, last))
    unusable.path = [step for step in (name, space) if step]
    return unusable


cdef dict _encode_line(str line, Entries& out):
    """Append the entries of one line; return it as a row."""
    cdef Text last = NULL
    cdef Text at = utf8(<PyObject*>line, &last)
    cdef dict spaces = {}
    while at != last and ((last - 1)[0] == c"\n" or (last - 1)[0] == c"\r"):
        last -= 1
    if memchr(at, c"\n", last - at) != NULL or memchr(at, c"\r", last - at) != NULL:
        raise Unusable("a single line", line)
    if at != last and at[0] != c"|":
        raise Unusable("'|' before the first namespace", line)
    while at != last:
        at = _encode_namespace(at + 1, last, spaces, out)
    default = spaces.get("", {})
    if "" in default or not default.keys().isdisjoint(spaces):
        return spaces  # {"": {...}} hashes as the top level does
    row = {}
    for space, features in spaces.items():
        if space:
            row[space] = features
        else:
            row.update(features)
    return row


def encode_vw(lines):
    """Read VW's text format from the first ``|`` of each line on, hashing as VW does.

    What VW reads with a warning or by accident (``a:nan``, ``a:1.5x``, ``a:``, ``a:e5``) is an error here.

    Parameters
    ----------
    lines : sequence of str, length n
        Like ``|user:2 age:31 country:SE |ad sport``: the namespace's multiplier, where there is one,
        applies to numbers; a feature without a value has 1; a value that is not a number is a category.

    Returns
    -------
    features : Features
        n rows, without the features whose value is 0.
    rows : list of dicts, length n
        The same as rows: namespaces are nested, and the default one's features are at the top level (all
        under ``""`` if one of them is called like a namespace). A feature without a name is called by its
        number. The numbers of a repeated name add up, and its categories are a list; only then does
        `encode_rows` make other entries of a row than those in `features`.
    bad : list of (int, BadRecord)
        Which lines cannot be used, in order, and why.

    Examples
    --------
    >>> encode_vw(["|user:2 age:31 country:SE |ad sport"])[1]
    [{'user': {'age': 62.0, 'country': 'SE'}, 'ad': {'sport': 1.0}}]
    """
    cdef Entries out
    cdef vector[int64_t] indptr
    cdef size_t start
    out.take(_spare)
    rows = []
    bad = []
    indptr.push_back(0)
    for i, line in enumerate(lines):
        start = out.size()
        try:
            rows.append(_encode_line(line, out))
        except Unusable as unusable:
            out.truncate(start)
            rows.append({})
            bad.append((i, unusable.record()))
        indptr.push_back(out.size())
    features = matrix(indptr, out)
    _spare.keep(out, MAX_SPARE)
    return features, rows, bad
