"""One step of every family, pinned: loss and gradient norm of each update as they were when they were recorded."""

import pytest

from genbench import families
from genbench.training.loop import train
from genbench.training.metrics import read_rows

SHIPPED = [name for name in families.names() if families.get(name).__module__.startswith('genbench.')]
# On a CPU, float32; jax 0.10 and 0.12 agree to seven digits.
PINNED = {
    'consistency': {'student/loss': 0.443870, 'student/gradient_norm': 7.26758},
    'diffusion': {'denoiser/loss': 0.850020, 'denoiser/gradient_norm': 0.870741},
    'flow_matching': {'denoiser/loss': 1.62569, 'denoiser/gradient_norm': 1.63629},
    'gan': {
        'discriminator/loss': 1.22328,
        'discriminator/gradient_norm': 5.77504,
        'generator/loss': 0.682730,
        'generator/gradient_norm': 0.355702,
    },
    'gaussian': {'moments/images': 32},
    'normalizing_flow': {'likelihood/loss': 3.52941, 'likelihood/gradient_norm': 1.99420},
    'vae': {'elbo/loss': 4.32586, 'elbo/gradient_norm': 1.75079},
}
UPDATE = (
    'The first step of {family} gives {found}. If its loss, networks, initialisation, data order or keys were changed '
    'on purpose, put these numbers into PINNED in {file} and say so in the commit; otherwise something broke.'
)


@pytest.mark.parametrize('family', SHIPPED)
def test_the_first_step_is_what_it_was(tiny, tmp_path, diffusion_run, family):
    loans = [f'family.{name}={diffusion_run}' for name in families.get(family).borrows(tiny(family))]
    train(tiny(family, 'train.num_steps=1', *loans), tmp_path, quiet=True)
    (row,) = read_rows(tmp_path / 'metrics.jsonl')
    found = {name: value for name, value in row.items() if name.endswith(('/loss', '/gradient_norm', '/images'))}
    assert found == pytest.approx(PINNED.get(family, {}), rel=1e-3), UPDATE.format(
        family=family, found=found, file=__file__
    )
