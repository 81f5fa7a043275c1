"""Checks that every measure makes on feature arrays."""

import numpy as np

from genbench.errors import UserError

LARGEST = 1e45  # bound on features, above all of float32; the sums of sixth powers in kernels still fit float64


def checked(features: np.ndarray, name: str, least: int = 2) -> np.ndarray:
    """Check features (n, d) without a copy. float32 and float64 stay as they are, other numbers become float64.

    Raises:
      UserError: not two axes, fewer than `least` rows, or values that are not finite or beyond ±1e45.
    """
    features = np.asarray(features)
    if features.dtype not in (np.float32, np.float64):
        features = features.astype(np.float64)
    if features.ndim != 2 or len(features) < least or not features.shape[1]:
        raise UserError(f'{name} needs at least {least} rows of features (n, d), one per image; '
                        f'it has the shape {features.shape}.')  # fmt: skip
    check_range(name, features, LARGEST)
    return features


def check_range(name: str, values: np.ndarray, largest: float) -> None:
    """Refuse a non-empty array that holds NaN, infinity or values beyond ± `largest`."""
    low, high = float(values.min()), float(values.max())  # NaN if any value is
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError(f'{name} contains NaN or infinity.')
    if max(-low, high) > largest:
        raise UserError(f'{name} has values from {low:.3g} to {high:.3g}; beyond ±{largest:.0e} sums overflow.')


def checked_sets(least: int = 2, **sets: np.ndarray) -> list[np.ndarray]:
    """Apply `checked` to each set, and check that all have the same number of features."""
    found = [checked(features, name, least) for name, features in sets.items()]
    widths = {name: features.shape[1] for name, features in zip(sets, found, strict=True)}
    if len(set(widths.values())) > 1:
        described = ' and '.join(f'{width} for {name}' for name, width in widths.items())
        raise UserError(f'The sets have different numbers of features: {described}. Use the same network for both.')
    return found
