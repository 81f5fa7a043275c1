"""Records the states that the schedulers of diffusers pass through, as tests/interpolants/fixtures/schedulers.npz.

It runs where torch and diffusers are installed; genbench is not needed:

    python tests/interpolants/record_schedulers.py tests/interpolants/fixtures/schedulers.npz

Each scheduler gets the noise levels and the predicted images of `inputs`, and computes in double precision. Its own
conventions about which levels to visit therefore play no part. The path is the variance-preserving SDE of Y. Song et
al. 2021 from t = 1 to t = 0.05 and then to zero; for Heun's rule, whose scheduler adds noise to the images as they are,
the noise levels are 14 to 0.15 and then zero. DEIS ends at its last level, and not at zero.
"""

import sys
from unittest import mock

import numpy as np

TIMES = (1.0, 0.83, 0.64, 0.5, 0.37, 0.25, 0.14, 0.05)
LEVELS = (14.0, 7.0, 3.0, 1.2, 0.5, 0.15)


def inputs():
    """x at the start (1, 6), and one draw of noise per step (8, 1, 6)."""
    rng = np.random.default_rng(15)
    return rng.normal(size=(1, 6)), rng.normal(size=(len(TIMES), 1, 6))


def image(x, t, module=np):
    """A denoiser of nothing in particular."""
    return module.tanh(x / (1 + t)) * 0.7 + 0.1 * module.sin(3 * x)


def fraction(x, module=np):
    """The output −1 … 1 for the variance."""
    return module.sin(5 * x)


def alpha_bar(t):
    return np.exp(-0.5 * 19.9 * np.square(t) - 0.1 * np.asarray(t))


def level(t):
    """σ / α."""
    return np.sqrt(1 / alpha_bar(t) - 1)


def time_of(rho):
    """Its inverse."""
    log = np.log1p(np.square(rho))
    return (-0.1 + np.sqrt(0.01 + 2 * 19.9 * log)) / 19.9


def between(times, shares):
    """The times, with further ones at these shares of each step but the last, in log σ / α; and the order of each."""
    found, orders = [], []
    for t, s in zip(times, times[1:], strict=False):
        start, end = np.log(level(t)), np.log(level(s))
        found += [t, *(time_of(np.exp(start + share * (end - start))) for share in shares)]
        orders += range(1, 2 + len(shares))
    return [*found, times[-1]], [*orders, 1]


def record():
    import diffusers
    import torch
    from diffusers.schedulers import scheduling_ddpm, scheduling_dpmsolver_multistep

    torch.set_default_dtype(torch.float64)
    start, noises = (torch.tensor(part) for part in inputs())
    found = {'origin': f'diffusers {diffusers.__version__}, torch {torch.__version__}'}

    def walk(scheduler, times, end=0.0, each=lambda index: None, **options):
        """The states at these times and at the end, by a scheduler that is told its noise levels."""
        scheduler.set_timesteps(len(times))
        scheduler.sigmas = torch.tensor([*level(times), end])
        scheduler.timesteps = torch.arange(len(times))
        scheduler.num_inference_steps = len(times)
        scheduler.set_begin_index(0)
        states = [start]
        for index, t in enumerate(times):
            each(index)
            told = {name: value[index] for name, value in options.items()}
            states.append(scheduler.step(image(states[-1], t, torch), index, states[-1], **told).prev_sample)
        return torch.stack(states).numpy()

    multistep = diffusers.DPMSolverMultistepScheduler
    shared = {'prediction_type': 'sample'}
    for order in (1, 2, 3):
        found[f'dpmpp_{order}m'] = walk(multistep(solver_order=order, **shared), TIMES)
    drawn = iter(noises)
    with mock.patch.object(scheduling_dpmsolver_multistep, 'randn_tensor', lambda *_, **__: next(drawn)):
        found['dpmpp_2m_sde'] = walk(multistep(algorithm_type='sde-dpmsolver++', **shared), TIMES)
    for order in (1, 2, 3):
        for variant in ('bh1', 'bh2'):
            scheduler = diffusers.UniPCMultistepScheduler(
                solver_order=order, solver_type=variant, final_sigmas_type='zero', **shared
            )
            found[f'unipc_{order}_{variant}'] = walk(scheduler, TIMES)
        deis = diffusers.DEISMultistepScheduler(solver_order=order, **shared)
        found[f'deis_{order - 1}'] = walk(deis, TIMES[:-1], level(TIMES[-1]))
    for order, shares in ((2, [1 / 2]), (3, [1 / 3, 2 / 3])):
        times, orders = between(TIMES, shares)
        scheduler = diffusers.DPMSolverSinglestepScheduler(solver_order=order, final_sigmas_type='zero', **shared)

        def told(index, scheduler=scheduler, orders=orders, highest=order):
            scheduler.order_list = orders
            # the second of three stages integrates the line exactly, as in the paper; diffusers calls that heun
            scheduler.register_to_config(solver_type='heun' if orders[index] < highest else 'midpoint')

        states = walk(scheduler, times, each=told)
        found[f'dpmpp_{order}s'] = states[[*np.flatnonzero(np.asarray(orders) == 1), -1]]

    def chain(scheduler, model, **options):
        """The states of a scheduler with a table of the products of 1 − β, from the last of its steps to the first."""
        scheduler.set_timesteps(len(TIMES))
        scheduler.alphas_cumprod = torch.tensor(alpha_bar(TIMES)[::-1].copy())
        scheduler.one = scheduler.final_alpha_cumprod = torch.tensor(1.0)
        states = [start]
        for index, t in enumerate(TIMES):
            told = {name: value[index] for name, value in options.items()}
            output = model(states[-1], t)
            states.append(scheduler.step(output, len(TIMES) - 1 - index, states[-1], **told).prev_sample)
        return torch.stack(states).numpy()

    few = {'num_train_timesteps': len(TIMES), 'clip_sample': False, **shared}
    predicted = lambda x, t: image(x, t, torch)  # noqa: E731
    both = lambda x, t: torch.cat([image(x, t, torch), fraction(x, torch)], 1)  # noqa: E731
    for name, kind, model in (
        ('small', 'fixed_small', predicted), ('large', 'fixed_large', predicted), ('learned', 'learned_range', both)
    ):  # fmt: skip
        drawn = iter(noises)
        with mock.patch.object(scheduling_ddpm, 'randn_tensor', lambda *_, drawn=drawn, **__: next(drawn)):
            found[f'ancestral_{name}'] = chain(diffusers.DDPMScheduler(variance_type=kind, **few), model)
    for eta in (0.0, 0.6):
        steps = diffusers.DDIMScheduler(**few)
        told = {'eta': [eta] * len(TIMES), 'variance_noise': noises}
        found[f'ddim_{eta}'] = chain(steps, predicted, **told)

    heun = diffusers.HeunDiscreteScheduler(prediction_type='epsilon')
    heun.set_timesteps(len(LEVELS))
    sigmas = [*LEVELS, 0.0]
    heun.sigmas = torch.tensor([sigmas[0], *np.repeat(sigmas[1:-1], 2), 0.0])
    heun.timesteps = torch.arange(len(heun.sigmas) - 1)
    heun.set_begin_index(0)
    states = [start * LEVELS[0]]
    for index, sigma in enumerate(heun.sigmas[:-1]):
        noise = (states[-1] - image(states[-1], sigma, torch)) / sigma
        states.append(heun.step(noise, index, states[-1]).prev_sample)
    found['heun'] = torch.stack([*states[::2], states[-1]]).numpy()
    return found


if __name__ == '__main__':
    np.savez_compressed(sys.argv[1], **record())
