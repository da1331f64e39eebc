"""The kernel, compiled by numba: runs a tape of instructions over blocks of candidates.

A tape is data, so that a mapping seen for the first time costs a trace and no compilation. What is compiled is kept on
disk by numba, beside this file or in the user's cache directory. A block is short enough for every value of a tape to
stay in a core's own caches.
"""

from __future__ import annotations

import numpy as np
from numba import carray, njit, types  # pyright: ignore[reportPrivateImportUsage]
from numba.extending import intrinsic

from fusemodel.model.elements import MAX_VALUES, widened

BLOCK = 512  # candidates for which an instruction is run at a time

#: Operations: of slots; of a slot and a value that is fixed; others.
ADD, MUL, MAX, MIN, GREATER, AT_LEAST, CEIL_DIV, FLOOR_DIV, RATIO, RECIPROCAL = range(10)
ADD_FIXED, MUL_FIXED, MAX_FIXED, MIN_FIXED = range(10, 14)
SELECT, DISTINCT, FILL, LOAD, STORE, LOOK_UP = range(14, 20)


@intrinsic
def _pointer(_context, address):
    """An address as a pointer to doubles."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float64)(address), generate


_widened = njit(nogil=True, error_model="numpy")(widened)


@njit(nogil=True, error_model="numpy")
def distinct(strides, counts, offsets):
    """:func:`fusemodel.model.elements.values`, of arrays of whole numbers; ``offsets`` in order."""
    step = 0
    for i in range(len(strides)):
        if counts[i] > 1:
            a, b = step, strides[i]
            while b:
                a, b = b, a % b
            step = a
    step = max(step, 1)
    total, reach, solid, regular = 1, 1, True, True
    done = -1
    for _ in range(len(strides)):
        i = _next(strides, done)
        done = i
        stride, size = strides[i] // step, counts[i]
        if size <= 1 or stride <= 0:
            continue
        total, reach, solid, regular = _widened(total, reach, solid, regular, stride, size)
    if solid:
        return _runs(total, step, offsets)
    if regular and len(offsets) == 1:
        return total
    if total * len(offsets) > MAX_VALUES:
        return total * len(offsets)
    return _enumerated(strides, counts, offsets, total * len(offsets))


@njit(nogil=True, error_model="numpy")
def _runs(length, step, offsets):
    """Values in a union of runs of ``length`` values, ``step`` apart, that start at offsets in order."""
    total = 0
    for i in range(len(offsets)):
        shared = 0
        for j in range(i):
            if (offsets[i] - offsets[j]) % step == 0:  # the last of these reaches furthest
                shared = max(0, offsets[j] + length * step - offsets[i]) // step
        total += length - shared
    return total


@njit(nogil=True, error_model="numpy")
def _next(strides, last):
    """The place of the stride that comes after one in order of size (and of place, among equals)."""
    found = -1
    for i in range(len(strides)):
        after = last < 0 or strides[i] > strides[last] or (strides[i] == strides[last] and i > last)
        if after and (found < 0 or strides[i] < strides[found]):
            found = i
    return found


@njit(nogil=True, error_model="numpy")
def _enumerated(strides, counts, offsets, most):
    """Values one by one, at most so many: those so far, in order, merged with themselves a stride further on."""
    base, found, merged = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    size = len(offsets)
    for i in range(size):
        found[i] = offsets[i]
    for t in range(len(strides)):
        if strides[t] <= 0:
            continue
        many = size
        for i in range(many):
            base[i] = found[i]
        for k in range(1, counts[t]):
            i, j, n = 0, 0, 0
            while i < size or j < many:
                if j == many or (i < size and found[i] <= base[j] + k * strides[t]):
                    value = found[i]
                    i += 1
                else:
                    value = base[j] + k * strides[t]
                    j += 1
                if n == 0 or merged[n - 1] != value:
                    merged[n] = value
                    n += 1
            found, merged, size = merged, found, n
    return size


@njit(nogil=True, error_model="numpy")
def _number(op, x, y):
    """An operation on two numbers."""
    if op == MUL:
        return x * y
    if op == ADD:
        return x + y
    if op == MAX:
        return x if x > y else y
    if op == MIN:
        return x if x < y else y
    if op == GREATER:
        return 1.0 if x > y else 0.0
    if op == AT_LEAST:
        return 1.0 if x >= y else 0.0
    if op == CEIL_DIV:
        return np.ceil(x / y)
    if op == FLOOR_DIV:
        return x // y
    if op == RATIO:
        return x / y if y > 0.0 else 0.0
    return 1.0 / x


@njit(nogil=True, error_model="numpy")
def _of_slots(op, z, x, y):  # noqa: C901 (one branch for each operation)
    """``z = x op y``, one loop for each operation so that each is vectorised."""
    if op == MUL:
        for j in range(BLOCK):
            z[j] = x[j] * y[j]
    elif op == ADD:
        for j in range(BLOCK):
            z[j] = x[j] + y[j]
    elif op == MAX:
        for j in range(BLOCK):
            z[j] = x[j] if x[j] > y[j] else y[j]
    elif op == MIN:
        for j in range(BLOCK):
            z[j] = x[j] if x[j] < y[j] else y[j]
    elif op == GREATER:
        for j in range(BLOCK):
            z[j] = 1.0 if x[j] > y[j] else 0.0
    elif op == AT_LEAST:
        for j in range(BLOCK):
            z[j] = 1.0 if x[j] >= y[j] else 0.0
    elif op == CEIL_DIV:
        for j in range(BLOCK):
            z[j] = np.ceil(x[j] / y[j])
    elif op == RATIO:
        for j in range(BLOCK):
            z[j] = x[j] / y[j] if y[j] > 0.0 else 0.0
    elif op == RECIPROCAL:
        for j in range(BLOCK):
            z[j] = 1.0 / x[j]
    else:
        for j in range(BLOCK):
            z[j] = _number(op, x[j], y[j])


@njit(nogil=True, error_model="numpy")
def _of_fixed(op, z, x, y):
    """``z = x op y`` where y is one number."""
    if op == MUL_FIXED:
        for j in range(BLOCK):
            z[j] = x[j] * y
    elif op == ADD_FIXED:
        for j in range(BLOCK):
            z[j] = x[j] + y
    elif op == MAX_FIXED:
        for j in range(BLOCK):
            z[j] = x[j] if x[j] > y else y
    else:
        for j in range(BLOCK):
            z[j] = x[j] if x[j] < y else y


@njit(nogil=True, error_model="numpy")
def _distinct(z, memory, at, n):
    """Distinct values of an index; ``at``: slots of the number of terms, stride and count of each, offsets."""
    terms = int(memory[at[0], 0])
    strides, counts = np.empty(terms, np.int64), np.empty(terms, np.int64)
    offsets = np.empty(len(at) - 1 - 2 * terms, np.int64)
    for j in range(n):
        for i in range(terms):
            strides[i], counts[i] = int(memory[at[1 + 2 * i], j]), int(memory[at[2 + 2 * i], j])
        for i in range(len(offsets)):
            offsets[i] = int(memory[at[1 + 2 * terms + i], j])
        z[j] = distinct(strides, counts, offsets)


def prepare(code, lists, values):
    """Run the instructions that are the same for every candidate, on single numbers: ``values``, by their places."""
    for k in range(code.shape[0]):
        op, d, a, b, c = code[k, 0], code[k, 1], code[k, 2], code[k, 3], code[k, 4]
        if op == SELECT:
            values[d] = values[b] if values[a] != 0.0 else values[c]
        elif op == DISTINCT:
            _distinct(values[d : d + 1], values.reshape((-1, 1)), lists[b : b + c], 1)
        else:
            values[d] = _number(op, values[a], values[b])


def execute(code, lists, values, columns, results, slots, start, stop):  # noqa: C901 (one branch for each instruction)
    """Run the other instructions for candidates ``start`` to ``stop``.

    An instruction is an operation, the slot of its result and up to three operands: slots, places in ``values``, in
    ``columns`` and ``results`` (addresses of doubles), or a start and length in ``lists`` (of slots).
    """
    memory = np.empty((slots, BLOCK))
    for k in range(code.shape[0]):
        if code[k, 0] == FILL:
            for j in range(BLOCK):
                memory[code[k, 1], j] = values[code[k, 2]]
    for first in range(start, stop, BLOCK):
        n = min(BLOCK, stop - first)
        for k in range(code.shape[0]):
            op, d, a, b, c = code[k, 0], code[k, 1], code[k, 2], code[k, 3], code[k, 4]
            if op < ADD_FIXED:
                _of_slots(op, memory[d], memory[a], memory[b])
            elif op < SELECT:
                _of_fixed(op, memory[d], memory[a], values[b])
            elif op == SELECT:
                z, x, y, w = memory[d], memory[a], memory[b], memory[c]
                for j in range(BLOCK):
                    z[j] = y[j] if x[j] != 0.0 else w[j]
            elif op == LOAD:
                column = carray(_pointer(columns[a]), (stop,))  # pyright: ignore[reportCallIssue]
                for j in range(n):
                    memory[d, j] = column[first + j]
                for j in range(n, BLOCK):
                    memory[d, j] = 1.0
            elif op == LOOK_UP:
                table = carray(_pointer(columns[a]), (stop,))  # pyright: ignore[reportCallIssue]
                places = carray(_pointer(columns[b]), (stop,))  # pyright: ignore[reportCallIssue]
                for j in range(n):
                    memory[d, j] = table[int(places[first + j])]
                for j in range(n, BLOCK):
                    memory[d, j] = 1.0
            elif op == STORE:
                result = carray(_pointer(results[d]), (stop,))  # pyright: ignore[reportCallIssue]
                for j in range(n):
                    result[first + j] = memory[a, j]
            elif op == DISTINCT:
                _distinct(memory[d], memory, lists[b : b + c], n)


def apart(keys, table, places, first):
    """Number the different rows of ``keys`` (a row of it for each column): ``places`` has the number of each,
    ``first`` a row with it, and what is returned is how many there are. ``table``, all -1, has a power of two of
    places, at least twice as many as rows."""
    columns, length = keys.shape
    mask = len(table) - 1
    found = 0
    for i in range(length):
        h = np.int64(0)
        for k in range(columns):
            h = (h ^ keys[k, i]) * 0x9E3779B97F4A7C1 + (h >> 29)
        h = (h ^ (h >> 31)) & mask
        while True:
            at = table[h]
            if at < 0:
                table[h], places[i], first[found] = found, found, i
                found += 1
                break
            same = True
            for k in range(columns):
                same = same and keys[k, first[at]] == keys[k, i]
            if same:
                places[i] = at
                break
            h = (h + 1) & mask
    return found


#: The entry points, with the types they are compiled for.
ENTRIES = {
    prepare: "void(int64[:,::1], int64[::1], float64[::1])",
    execute: "void(int64[:,::1], int64[::1], float64[::1], int64[::1], int64[::1], int64, int64, int64)",
    apart: "int64(int64[:,::1], int64[::1], float64[::1], int64[::1])",
}
