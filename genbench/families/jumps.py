"""The basis of students that sample in a few jumps, each from a state that they were trained on."""

from typing import Any

from genbench.families.endpoints import EndpointFamily
from genbench.families.taught import TaughtFamily
from genbench.ranges import Range


class JumpingFamily(TaughtFamily, EndpointFamily):
    """A student f(x_t, t) that knows the times of `jumps` steps and no others."""

    ranges = {'jumps': Range(1, 64)}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        base = super().defaults()
        return {**base, 'family': {**base['family'], 'jumps': 1}}

    @property
    def default_steps(self) -> int:  # type: ignore[override]
        return self.config.family.jumps

    def why_not(self, steps: int) -> str:
        jumps = self.config.family.jumps
        even = self.schedule.curve is None and jumps % steps == 0
        return (
            '' if even or steps in (1, jumps) else f'this model learned to take {jumps} (family.jumps); take that many'
        )
