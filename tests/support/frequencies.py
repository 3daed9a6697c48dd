"""Whether counts follow a distribution."""

import numpy as np


def chi_square(counts: np.ndarray, probs: np.ndarray) -> tuple[float, float]:
    """Pearson's statistic over bins of at least 8 expected draws (the rest pooled), and a 4-sigma bound."""
    expected = probs * counts.sum()
    big = expected >= 8
    observed = np.append(counts[big], counts[~big].sum())
    expected = np.append(expected[big], expected[~big].sum())
    observed, expected = observed[expected > 1], expected[expected > 1]
    df = len(expected) - 1
    return float(((observed - expected) ** 2 / expected).sum()), df + 4 * np.sqrt(2 * df)
