"""Least squares with coefficients that are not negative: few rows, few columns, nothing beside Python."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Fit:
    """`worst`: the largest residual as a share of its value; `typical`: the median of them."""

    coefficients: tuple[float, ...]
    residuals: tuple[float, ...]
    worst: float
    typical: float


def fit(rows: Sequence[Sequence[float]], values: Sequence[float]) -> Fit:
    """Coefficients c with `rows x c` near `values`; each row counts by its relative error.

    A coefficient that would be negative is 0, and the others are found again without it: a cost cannot be negative, and
    where it seems so it is below what the measurement can see. Raises ValueError when there are fewer rows than columns.
    """
    columns = len(rows[0])
    if len(rows) < columns:
        raise ValueError(f"{len(rows)} measurements cannot tell {columns} numbers")
    weighted = [[x / value for x in row] for row, value in zip(rows, values, strict=True)]
    used = list(range(columns))
    while True:
        found = _solve(weighted, used)
        negative = [one for one, value in zip(used, found, strict=True) if value < 0]
        if not negative:
            break
        used.remove(min(negative, key=lambda one: found[used.index(one)] * max(abs(row[one]) for row in weighted)))
        if not used:
            found = []
            break
    coefficients = [0.0] * columns
    for one, value in zip(used, found, strict=True):
        coefficients[one] = value
    residuals = [
        value - sum(c * x for c, x in zip(coefficients, row, strict=True))
        for row, value in zip(rows, values, strict=True)
    ]
    shares = sorted(abs(residual) / value for residual, value in zip(residuals, values, strict=True))
    return Fit(tuple(coefficients), tuple(residuals), shares[-1], shares[len(shares) // 2])


def _solve(rows: Sequence[Sequence[float]], used: Sequence[int]) -> list[float]:
    """The normal equations, by elimination with pivots; every weighted value is 1."""
    if not used:
        return []
    size = len(used)
    scale = [max(max(abs(row[one]) for row in rows), 1e-300) for one in used]
    scaled = [[row[one] / by for one, by in zip(used, scale, strict=True)] for row in rows]
    matrix = [
        [sum(row[i] * row[j] for row in scaled) for j in range(size)] + [sum(row[i] for row in scaled)]
        for i in range(size)
    ]
    for i in range(size):
        best = max(range(i, size), key=lambda j: abs(matrix[j][i]))
        matrix[i], matrix[best] = matrix[best], matrix[i]
        if abs(matrix[i][i]) < 1e-12:
            raise ValueError("the measurements do not tell these numbers apart")
        for j in range(size):
            if j != i:
                by = matrix[j][i] / matrix[i][i]
                matrix[j] = [a - by * b for a, b in zip(matrix[j], matrix[i], strict=True)]
    return [matrix[i][size] / matrix[i][i] / scale[i] for i in range(size)]
