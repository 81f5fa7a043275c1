"""The evaluation harness: features, distances, likelihoods, and rows that say everything a number depends on."""

from genbench.evaluation.distances import frechet_distance, kernel_distance, moments, precision_recall

__all__ = ['frechet_distance', 'kernel_distance', 'moments', 'precision_recall']
