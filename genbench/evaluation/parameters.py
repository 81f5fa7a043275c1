"""The parameters that metrics of image sets share."""

import dataclasses
from typing import Any

REFERENCES = ('train', 'held_out')  # the splits that a metric may name after its own name


@dataclasses.dataclass(frozen=True)
class Settings:
    """The parameters of metrics. The defaults are those of papers and other tools."""

    kernel_subsets: int = 100  # of the kernel distance
    kernel_subset_size: int = 1000
    neighbours: int = 3  # of precision and recall
    density_neighbours: int = 5  # of density and coverage
    splits: int = 10  # of the inception score
    slices: int = 1000  # directions of the sliced Wasserstein distance

    def of(self, name: str) -> dict[str, Any]:
        """How the protocol of a metric records them."""
        said: dict[str, dict[str, Any]] = {
            'kd': {'subsets': self.kernel_subsets, 'subset_size': self.kernel_subset_size},
            **dict.fromkeys(('precision', 'recall'), {'neighbours': self.neighbours}),
            **dict.fromkeys(('density', 'coverage'), {'neighbours': self.density_neighbours}),
            'inception_score': {'splits': self.splits},
            **dict.fromkeys(('sliced_wasserstein', 'monge'), {'slices': self.slices}),
        }
        return said.get(base(name), {})


def base(name: str) -> str:
    """Return a metric's name without its reference: fd_train → fd."""
    for split in REFERENCES:
        name = name.removesuffix(f'_{split}')
    return name
