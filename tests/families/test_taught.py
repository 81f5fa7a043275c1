"""What a student takes from its teacher."""

import jax
import numpy as np
import pytest
from flax import nnx

from genbench import config, families
from genbench.data.spec import DataSpec
from genbench.errors import UserError
from genbench.families.base import Borrowed, Networks

SPEC = DataSpec('images', (4, 4, 1), levels=5)
SMALL = {'channels': 32, 'multipliers': (1,), 'blocks': 1, 'attention': ()}


@pytest.mark.parametrize(
    'network', [{'name': 'ncsnpp', 'embedding': 'fourier', **SMALL}, {'name': 'edm2', **SMALL}], ids=['ncsnpp', 'edm2']
)
@pytest.mark.parametrize('name', ['consistency', 'flow_matching'])
def test_a_student_of_another_seed_predicts_what_its_teacher_does(name, network):
    """These networks draw the frequencies of their embedding of time, and no gradient moves them."""
    kind = {'consistency': 'diffusion', 'flow_matching': 'flow_matching'}[name]
    options = {'name': kind, 'schedule': 'cosine'} if kind == 'diffusion' else {'name': kind}
    teacher = families.get(kind)(config.resolve({'family': options, 'network': network}), SPEC)
    reflow = {'coupling': 'pairs'} if kind == name else {}
    asked = {'family': {'name': name, 'teacher': 'a run', **reflow}, 'network': network if reflow else {}}
    student = families.get(name)(config.resolve(asked), SPEC, {'teacher': Borrowed(teacher)})
    taught, own = teacher.networks(nnx.Rngs(0)), student.networks(nnx.Rngs(1))
    student.initialise(Networks(own, borrowed={'teacher': Networks(taught)}), {}, jax.random.key(0))
    x, t = jax.random.normal(jax.random.key(2), (3, 4, 4, 1)), np.array([0.1, 0.5, 0.9], np.float32)
    (one,), (other,) = taught.values(), own.values()
    for module in (one, other):  # fresh networks end in zeros
        nnx.update(module, jax.tree.map(lambda leaf: leaf + 0.1, nnx.state(module, nnx.Param)))
    np.testing.assert_allclose(one(x, t), other(x, t), rtol=1e-6, atol=1e-6)
    assert np.abs(one(x, t) - one(x, t[::-1])).max() > 1e-3


@pytest.mark.parametrize('name', ['consistency_trajectory', 'distribution_matching'])
def test_a_regression_with_noise_that_students_do_not_draw_is_refused(name):
    chosen = {'name': 'diffusion', 'schedule': 'cosine', 'prediction': 'v', 'offset_noise': 0.1}
    teacher = families.get('diffusion')(config.resolve({'family': chosen}), SPEC)
    asked = config.resolve({'family': {'name': name, 'teacher': 'a run'}})
    with pytest.raises(UserError, match='trained with family.offset_noise'):
        families.get(name)(asked, SPEC, {'teacher': Borrowed(teacher)})
