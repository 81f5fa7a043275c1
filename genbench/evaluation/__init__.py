"""The evaluation harness: features, distances, likelihoods, and rows that record what each number depends on."""

from genbench.evaluation.copying import Control, Memorisation, control, memorisation
from genbench.evaluation.distances import (
    Moments,
    fd_infinity,
    frechet_distance,
    kernel_distance,
    moments,
    pooled,
    squared_mmd,
)
from genbench.evaluation.manifolds import density_coverage, expected_coverage, manifold_scores, precision_recall
from genbench.evaluation.mixtures import feature_likelihood_divergence
from genbench.evaluation.scores import TwoSample, class_distance, inception_score, two_sample_test
from genbench.evaluation.transport import monge_distance, sliced_wasserstein, vendi_score, wasserstein

__all__ = [
    'Control', 'Memorisation', 'Moments', 'TwoSample', 'class_distance', 'control', 'density_coverage',
    'expected_coverage', 'fd_infinity', 'feature_likelihood_divergence', 'frechet_distance', 'inception_score',
    'kernel_distance', 'manifold_scores', 'memorisation', 'moments', 'monge_distance', 'pooled', 'precision_recall',
    'sliced_wasserstein', 'squared_mmd', 'two_sample_test', 'vendi_score', 'wasserstein',
]  # fmt: skip
