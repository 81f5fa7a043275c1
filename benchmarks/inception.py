"""Inception features: genbench against PyTorch eager, on the same machine in the same run.

    pip install torch==2.13.0
    pip install --no-deps torch-fidelity==0.4.0 pytorch-fid==0.3.0 clean-fid==0.1.35
    python benchmarks/inception.py --out benchmarks/results/inception-cpu.md

Both sides get uint8 images of 32×32 in memory and return float32 features; resizing is included, compilation is not.
PyTorch runs torch-fidelity's extractor, which is the reference of the convention ttur. Each side lives in a process of
its own, and they take turns, so that neither's idle threads disturb the other. The weights are random: speed does not
depend on them.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import importlib.util
import multiprocessing
import os
import pathlib
import platform
import statistics
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
SIDES = ('genbench', 'PyTorch eager')
TOLERANCE = 1e-3  # mean absolute difference of features; on CPU it is below 1e-5, and TF32 adds to it on a GPU


def recorder():
    """The recorder of the tests, which builds the reference without torchvision."""
    path = ROOT / 'tests' / 'evaluation' / 'features' / 'record_inception.py'
    spec = importlib.util.spec_from_file_location('record_inception', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def torch_side(weights: str):
    """A function (images, batch size) → features, and the weights written where the other side reads them."""
    import torch

    extractor, _ = recorder().reference_networks(torch)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    extractor = extractor.to(device)
    if not pathlib.Path(weights).is_file():
        torch.save({name: value.cpu() for name, value in extractor.state_dict().items()}, weights)

    def run(images: np.ndarray, batch: int) -> np.ndarray:
        with torch.inference_mode():
            parts = []
            for start in range(0, len(images), batch):
                planes = np.ascontiguousarray(images[start : start + batch].transpose(0, 3, 1, 2))
                parts.append(extractor(torch.from_numpy(planes).to(device))[0].cpu().numpy())
        return np.concatenate(parts)

    return run


def genbench_side(weights: str):
    """The same with genbench, as `genbench metrics` runs it."""
    import hashlib

    from genbench.evaluation import features

    digest = hashlib.sha256(pathlib.Path(weights).read_bytes()).hexdigest()

    def run(images: np.ndarray, batch: int) -> np.ndarray:
        if batch not in networks:
            networks[batch] = features.get('inception', weights=weights, weights_sha256=digest, batch_size=batch)
        return networks[batch](images)

    networks: dict[int, object] = {}
    return run


def work(side: str, weights: str, connection) -> None:
    """Answer (images, batch size) with (seconds, features) until None comes."""
    run = {'genbench': genbench_side, 'PyTorch eager': torch_side}[side](weights)
    connection.send('ready')
    while (order := connection.recv()) is not None:
        images, batch = order
        began = time.perf_counter()
        found = run(images, batch)
        connection.send((time.perf_counter() - began, found))


@contextlib.contextmanager
def sides(weights: str):
    """{side: function (images, batch size) → (seconds, features)} in processes of their own."""
    context = multiprocessing.get_context('spawn')
    ends, processes = {}, []
    for side in reversed(SIDES):  # PyTorch writes the weights
        ends[side], far = context.Pipe()
        processes.append(context.Process(target=work, args=(side, weights, far), daemon=True))
        processes[-1].start()
        assert ends[side].recv() == 'ready'

    def asker(end):
        def ask(images, batch):
            end.send((images, batch))
            return end.recv()

        return ask

    try:
        yield {side: asker(ends[side]) for side in SIDES}
    finally:
        for end in ends.values():
            end.send(None)
        for process in processes:
            process.join(30)


def measure(ask, images: np.ndarray, batch: int, repeats: int) -> dict[str, list[float]]:
    """Images a second of each side, in turns; the features must agree."""
    warm = [ask[side](images[:batch], batch)[1] for side in SIDES]
    error = np.abs(warm[0] - warm[1]).mean()
    assert error < TOLERANCE, f'the features differ by {error}'
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    for repeat in range(repeats):
        for side in SIDES if repeat % 2 else SIDES[::-1]:
            rates[side].append(len(images) / ask[side](images, batch)[0])
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--batches', default='8,32,64', help='batch sizes (8,32,64)')
    parser.add_argument('--images', type=int, default=64, help='in one measurement (64)')
    parser.add_argument('--repeats', type=int, default=7, help='of each measurement (7)')
    parser.add_argument('--out', default='', help='write the table to this Markdown file')
    given = parser.parse_args()
    images = np.random.Generator(np.random.Philox(0)).integers(0, 256, (given.images, 32, 32, 3)).astype(np.uint8)
    versions = ', '.join(f'{name} {importlib.metadata.version(name)}' for name in ('jax', 'torch', 'torch-fidelity'))
    lines = [
        '# Inception features of uint8 32×32 images, resizing included', '',
        f'{datetime.date.today()}, {len(os.sched_getaffinity(0))} cores of {processor()}, Python '
        f'{platform.python_version()}, {versions}. {given.images} images and {given.repeats} measurements in '
        'turns for each batch; medians, and the range of the ratios of neighbours. Load average at the start '
        f'{os.getloadavg()[0]:.1f}.', '',
        '| batch | genbench, images/s | PyTorch eager, images/s | ratio | range |', '|---|---|---|---|---|',
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, sides(str(pathlib.Path(folder) / 'inception.pth')) as ask:
        for batch in map(int, given.batches.split(',')):
            rates = measure(ask, images, batch, given.repeats)
            ratios = [mine / theirs for mine, theirs in zip(*rates.values(), strict=True)]
            mine, theirs = (statistics.median(rates[side]) for side in SIDES)
            lines.append(f'| {batch} | {mine:.2f} | {theirs:.2f} | {statistics.median(ratios):.2f} | '
                         f'{min(ratios):.2f}–{max(ratios):.2f} |')  # fmt: skip
            print(lines[-1], flush=True)
    if given.out:
        pathlib.Path(given.out).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(given.out).write_text('\n'.join(lines) + '\n')


def processor() -> str:
    """What the machine calls its processor."""
    with contextlib.suppress(OSError, StopIteration):
        lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
        return next(line for line in lines if line.startswith('model name')).partition(':')[2].strip()
    return platform.processor() or platform.machine()


if __name__ == '__main__':
    main()
