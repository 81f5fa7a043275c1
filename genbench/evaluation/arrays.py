"""What every measure asks of feature arrays."""

import numpy as np

from genbench.errors import UserError


def checked(features: np.ndarray, name: str, least: int = 2) -> np.ndarray:
    """Features (n, d) as they are where they are float32 or float64, other numbers as float64; no copy to check them.

    Raises:
      UserError: not two axes, fewer than `least` rows, or values that are not finite.
    """
    features = np.asarray(features)
    if features.dtype not in (np.float32, np.float64):
        features = features.astype(np.float64)
    if features.ndim != 2 or len(features) < least or not features.shape[1]:
        raise UserError(f'{name} needs at least {least} rows of features (n, d), one an image; '
                        f'it has the shape {features.shape}.')  # fmt: skip
    if not np.isfinite(features.sum(dtype=np.float64)):
        raise UserError(f'{name} holds values that are not finite (NaN or infinity).')
    return features


def checked_sets(least: int = 2, **sets: np.ndarray) -> list[np.ndarray]:
    """`checked` sets that also have the same number of features."""
    found = [checked(features, name, least) for name, features in sets.items()]
    widths = {name: features.shape[1] for name, features in zip(sets, found, strict=True)}
    if len(set(widths.values())) > 1:
        described = ' and '.join(f'{width} for {name}' for name, width in widths.items())
        raise UserError(f'The sets have different numbers of features: {described}. Take both from the same network.')
    return found
