"""The `genbench metrics` command."""

import argparse

from genbench.data import recipe
from genbench.errors import UserError
from genbench.evaluation import standalone, table
from genbench.evaluation.inputs import Options
from genbench.evaluation.scoring import Settings
from genbench.training import processes

LIMITS = {'sets': (1, 2**31), 'batch_size': (1, 2**16), 'num_samples': (0, 2**40), 'seed': (0, 2**31 - 1),
          'kid_subset_size': (2, 2**31), 'slices': (1, 2**20),
          **dict.fromkeys(('kid_subsets', 'pr_neighbours', 'dc_neighbours', 'is_splits'), (1, 2**20))}  # fmt: skip


def metrics(given: argparse.Namespace) -> int:
    """Print the metrics of image sets, or save the moments of one. Return the exit status.

    Raises:
      UserError: a flag or an input that makes no sense.
    """
    for name, (least, most) in LIMITS.items():
        if not least <= (value := getattr(given, name)) <= most:
            raise UserError(f'--{name.replace("_", "-")} is {value}; it should be at least {least} and at most {most}.')
    options = Options(
        features=given.features, convention=given.convention, weights=given.weights,
        weights_sha256=given.weights_sha256, batch_size=given.batch_size, data_dir=given.data_dir,
        skip_unreadable=given.skip_unreadable, sets=given.sets, seed=given.seed, sampler=given.sampler,
        num_samples=given.num_samples, average=given.average, step=given.step, cache=not given.no_cache,
        recipe=recipe.of(given),
        settings=Settings(
            given.kid_subsets, given.kid_subset_size, given.pr_neighbours, given.dc_neighbours, given.is_splits,
            given.slices,
        ),
    )  # fmt: skip
    if given.a == 'moments':
        if not given.out or len(given.b) > 1:
            raise UserError('genbench metrics moments IMAGES needs one set of images and --out=FILE.npz.')
        protocol = standalone.save_moments(given.b[0], given.out, options)
        if processes.is_first():
            print(f'{given.out}: moments of {protocol["reference"]["n"]} images')
        return 0
    names = None if given.metrics is None else [name for name in given.metrics.split(',') if name]
    *more, reference = given.b
    samples = [given.a, *more]
    rows = standalone.compare(
        samples if more else given.a, reference, names, options, held_out=given.held_out, out=given.json
    )
    for address in samples if processes.is_first() else ():
        own = [row for row in rows if row.get('samples', address) == address]
        print(*([f'{address}:'] if more else ()), table.text(own), sep='\n')
    return 0
