"""Flow matching on the straight path.

Y. Lipman et al., Flow Matching for Generative Modeling, 2023; X. Liu et al., Flow Straight and Fast (rectified flow),
2023; P. Esser et al., Scaling Rectified Flow Transformers, 2024 (logit-normal times).
"""

from typing import Any

from genbench.families.base import register
from genbench.families.regression import RegressionFamily


@register('flow_matching')
class FlowMatching(RegressionFamily):
    """A velocity field trained on ‖u(x_t, t) − (ε − x)‖² (Lipman et al. 2023, equation 23, with time reversed)."""

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        base = super().defaults()
        return {**base, 'family': {**base['family'], 'schedule': 'straight', 'prediction': 'velocity'}}
