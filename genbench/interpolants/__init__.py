"""Gaussian paths x_t = α(t) x + σ(t) ε: schedules, predictions, solvers and the probability-flow density.

Time runs from data (small t) to noise (large t). Diffusion, flow matching and consistency models share all the code
here. They differ in their schedule, prediction, weighting and target.
"""
