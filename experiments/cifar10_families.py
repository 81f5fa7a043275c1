"""Families on CIFAR-10 by the recipes of the ledger, each with its published number, for an accelerator.

genbench run experiments/cifar10_families.py --out runs/cifar10_families

Set TFDS_DATA_DIR to the folder where cifar10 is prepared. FID needs the weights of the 2015 Inception network
(README.md, "Compare images that genbench did not make"). `genbench baselines ROW` says for each row of `ROWS` what its
recipe takes and how it differs from the paper. The study scores every trial by the same metrics. The families do not
spend the same number of FLOPs; experiments/fashion_families.py matches them.

Cost: a trial sees 20M to 819M images, with networks of up to 57M parameters. That takes days on one current GPU for
most trials. The study has not yet run.
"""

from collections.abc import Mapping
from typing import Any

from genbench.report.claims import Comparison, less, near
from genbench.studies import ledger
from genbench.studies.study import Study, Trial

# Trial → the row of the ledger whose recipe it is, and which of its measurements is the published one.
ROWS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    'diffusion': ('ddpm-fid', {'sampler': 'ancestral', 'nfe': 1000}),
    'edm': ('edm-ve-fid', {'sampler': 'heun', 'nfe': 35}),
    'flow_matching': ('i-cfm-euler-100-fid', {'sampler': 'euler', 'nfe': 100}),
    'consistency': ('consistency-distillation-2-fid', {'sampler': 'multistep_consistency', 'nfe': 2}),
    'consistency_training': ('improved-consistency-1-fid', {'sampler': 'multistep_consistency', 'nfe': 1}),
    'mean_flow': ('meanflow-fid', {'sampler': 'flow_map', 'nfe': 1}),
    'style_gan': ('stylegan2-ada-fid', {}),
    'r3gan': ('r3gan-fid', {}),
    'glow': ('glow-bpd', {'method': 'density_1'}),
    'vdvae': ('vdvae-bpd', {'method': 'elbo'}),
    'pixel_cnn': ('pixelcnn++-bpd', {'method': 'autoregression'}),
}
TEACHER = {'consistency': 'edm'}


def get_study() -> Study:
    return Study(
        title='Generative families on CIFAR-10',
        claim='The recipes of the papers reach the numbers of the papers, and each trained family beats the '
        'closed-form Gaussian.',
        trials=(*map(_trial, ROWS), Trial('gaussian', 'configs/cifar10/gaussian.py')),
        evaluation={
            'evaluation.num_samples': 50_000,
            'evaluation.sets': 1,
            'evaluation.metrics': ('fid', 'precision', 'recall', 'likelihood', 'speed'),
            'evaluation.features.name': 'inception',
        },
        tests=(*map(_published, ROWS), *(less('fid', name, 'gaussian') for name in ROWS)),
        baseline='gaussian',
    )


def _trial(name: str) -> Trial:
    """The recipe of a row, with the sampler of its number."""
    row = ledger.get(ROWS[name][0])
    overrides = [*row.overrides, *(text for text in row.evaluation if text.startswith('evaluation.samplers='))]
    if name not in TEACHER:
        return Trial(name, row.config, overrides)
    teacher = TEACHER[name]
    return Trial(name, row.config, [*overrides, f'family.teacher={{trials}}/{teacher}'], after=(teacher,))


def _published(name: str) -> Comparison:
    """The published number, within the tolerance of the ledger."""
    row_id, where = ROWS[name]
    row = ledger.get(row_id)
    return near(row.metric, name, row.value, row.tolerance, where)
