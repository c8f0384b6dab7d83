"""A table whose right columns are known: numbers in units far apart, categories, gaps."""

from __future__ import annotations

import numpy as np

from lumos.tabular.files import Columns

TRUE_NUMBERS, TRUE_CATEGORIES, CATEGORIES = 7, 2, 6
MISSING = 0.03
NOISE = 0.1
"""Standard deviation of what is added to the output, as a share of the output's."""


def generate(rows: int, columns: int, seed: int) -> tuple[Columns, list[str]]:
    """Draw a table of ``columns`` inputs, six of them categories, and the output ``y``, a function of nine.

    With numbers z standardised and levels g of the categories, y = sin 2z_1 + z_2 z_3 + z_4^2 / 2 + g_1 tanh z_5 +
    |z_6| + 0.7 z_7 + g_2, and noise. Three of a hundred values are missing; what was there entered y.

    Returns:
        The columns, with ``y`` as the last one, and the names of those that matter.
    """
    rng = np.random.default_rng([seed, 7])
    names = [f"c{k:02d}" for k in range(columns)]
    order = rng.permutation(columns).tolist()
    z = rng.standard_normal((rows, columns))
    level = np.zeros((rows, columns))
    values: dict[str, np.ndarray] = {}
    for k, name in enumerate(names):
        if k in order[:CATEGORIES]:
            count = 3 + order.index(k) % 4
            picked = rng.integers(0, count, rows)
            level[:, k] = rng.permutation(np.linspace(-1, 1, count))[picked]
            values[name] = np.array([f"k{v}" for v in range(count)], dtype=object)[picked]
        else:
            values[name] = (z[:, k] + rng.normal()) * 10.0 ** rng.integers(-6, 7)
    categories, numbers = order[:TRUE_CATEGORIES], order[CATEGORIES : CATEGORIES + TRUE_NUMBERS]
    a, b, c, d, e, f, g = z[:, numbers].T
    one, two = level[:, categories].T
    y = np.sin(2 * a) + b * c + d**2 / 2 + one * np.tanh(e) + np.abs(f) + 0.7 * g + two
    y = y + NOISE * y.std() * rng.standard_normal(rows)
    for name in names:
        gaps = rng.random(rows) < MISSING
        values[name][gaps] = None if values[name].dtype == object else np.nan
    return Columns({**values, "y": y}), sorted(names[k] for k in (*categories, *numbers))
