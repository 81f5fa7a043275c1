"""Gaussian paths x_t = α(t) x + σ(t) ε: schedules, predictions, solvers and the probability-flow density.

Time runs from data (small t) to noise (large t). Everything here is written once for diffusion, flow matching and
consistency models, which differ by schedule, prediction, weighting and target.
"""
