"""Accelerators to compile for without having them: TPU slices and machines with NVIDIA GPUs.

XLA's compilers need a description of the devices, not the devices themselves. libtpu describes TPUs by name. A GPU is
described by what its driver would report; these numbers are the properties that CUDA gives.
"""

import argparse
import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from genbench.errors import UserError, did_you_mean

GIB = 2**30
GPUS_IN_MACHINE = 8


@dataclasses.dataclass(frozen=True)
class Kind:
    """The known facts about one device. Devices are counted as jax counts them.

    Attributes:
      example: a topology name with this kind.
      memory: bytes of a device. For TPUs, the limit that libtpu reports when a program is too large.
      bandwidth: bytes per second of that memory, from the vendors' data sheets.
      link: bytes per second that a device sends around a ring. For a TPU this counts both directions of one link, for a
        GPU all links. TPUs: Austin et al. 2025, How to Scale Your Model, part 2, and Jouppi et al. 2020 (v2); GPUs: the
        data sheets.
      network: bytes per second that a device sends to other slices or machines, its share of the network cards. Google
        Cloud's documentation of each TPU (v5e, v5p, v6e, tpu7x); How to Scale Your Model, part 2, has 25 GB/s per host
        for older ones. NVIDIA DGX systems have one card of 200 (A100) or 400 Gbit/s (H100, H200) for each GPU.
      options: further arguments of libtpu, or fields of XLA's description of a GPU.
    """

    example: str
    memory: int
    bandwidth: float
    link: float
    network: float
    options: Mapping[str, Any]

    @property
    def platform(self) -> str:
        return 'cuda' if 'core_count' in self.options else 'tpu'

    @property
    def available(self) -> int:
        """Bytes that programs can have. On a GPU jax takes a share of the memory, three quarters by default."""
        share = os.environ.get('XLA_PYTHON_CLIENT_MEM_FRACTION') or os.environ.get('XLA_CLIENT_MEM_FRACTION') or 0.75
        return int(self.memory * float(share)) if self.platform == 'cuda' else self.memory


_HOPPER = {
    'core_count': 132, 'fpus_per_core': 128, 'shared_memory_per_core': 233472, 'shared_memory_per_block_optin': 232448,
    'l2_cache_size': 52428800, 'clock_rate_ghz': 1.98, 'capability': (9, 0),
}  # fmt: skip
_AMPERE = {
    'core_count': 108, 'fpus_per_core': 64, 'shared_memory_per_core': 167936, 'shared_memory_per_block_optin': 166912,
    'l2_cache_size': 41943040, 'clock_rate_ghz': 1.41, 'capability': (8, 0),
}  # fmt: skip

# On v2, v3 and tpu7x a device is one of two cores of a chip. v4 joins its two cores into one device (megacore).
KINDS = {
    'v2': Kind('v2:2x2', int(7.48 * GIB), 3.5e11, 1.24e11, 3.125e9, {}),
    'v3': Kind('v3:2x2', int(15.48 * GIB), 4.5e11, 2e11, 3.125e9, {}),
    'v4': Kind('v4:2x2x1', int(30.75 * GIB), 1.2e12, 9e10, 6.25e9, {'chip_config_name': 'megacore'}),
    'v5p': Kind('v5p:2x2x1', int(95.74 * GIB), 2.8e12, 2e11, 6.25e9, {}),
    'v5e': Kind('v5e:4x8', int(15.75 * GIB), 8.1e11, 1e11, 3.125e9, {}),
    'v6e': Kind('v6e:2x4', int(31.25 * GIB), 1.6e12, 2e11, 1.25e10, {}),
    'tpu7x': Kind('tpu7x:2x2x1', int(94.75 * GIB), 3.685e12, 2e11, 6.25e9, {}),
    'a100': Kind('a100:8', 85100068864, 2.039e12, 3e11, 2.5e10, {**_AMPERE, 'name': 'NVIDIA A100-SXM4-80GB'}),
    'h100': Kind('h100:8', 84942979072, 3.352e12, 4.5e11, 5e10, {**_HOPPER, 'name': 'NVIDIA H100 80GB HBM3'}),
    'h200': Kind('h200:8', 151397597184, 4.8e12, 4.5e11, 5e10, {**_HOPPER, 'name': 'NVIDIA H200'}),
}
_ALIASES = {'v5': 'v5p', 'v7x': 'tpu7x'}


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices to compile for without having them.

    Attributes:
      kind: a key of KINDS.
      sides: chips along each side of a TPU slice; (number,) for GPUs.
    """

    kind: str
    sides: tuple[int, ...]
    slices: int = 1

    @property
    def known(self) -> Kind:
        return KINDS[self.kind]

    @property
    def name(self) -> str:
        many = f', {self.slices} slices' if self.slices > 1 else ''
        return f'{self.kind}:{"x".join(map(str, self.sides))}{many}'

    @property
    def machine(self) -> int:
        """Devices in one machine, if there are several and XLA makes one program for all; otherwise 0."""
        return GPUS_IN_MACHINE if self.known.platform == 'cuda' and self.sides[0] > GPUS_IN_MACHINE else 0

    @property
    def environment(self) -> dict[str, str]:
        """Environment of a process that compiles for them, without devices of its own and without network access."""
        if self.known.platform == 'cuda':
            # XLA cannot choose the tiles of its Triton kernels without a device to time them on.
            return {'XLA_FLAGS': '--xla_gpu_enable_triton_gemm=false'}
        return {'TPU_SKIP_MDS_QUERY': '1', 'ALLOW_MULTIPLE_LIBTPU_LOAD': '1', 'TPU_LOG_DIR': 'disabled'}

    def devices(self) -> list[Any]:
        """jax devices to compile for.

        Raises:
          UserError: the compiler does not know this topology.
        """
        import jax
        from jax.experimental import topologies as described

        kind = self.known
        if kind.platform == 'cuda':
            (count,) = self.sides
            machines = -(-count // GPUS_IN_MACHINE)
            arguments: dict[str, Any] = {'platform': 'cuda', 'target_config': _described(kind),
                         'topology': f'1x{machines}x{count // machines}'}  # fmt: skip
        else:
            arguments = {'platform': 'tpu', 'num_slices': self.slices, 'chips_per_host_bounds': self._host,
                         **kind.options}  # fmt: skip
        try:
            return list(described.get_topology_desc(self.name.partition(',')[0], **arguments).devices)
        except jax.errors.JaxRuntimeError as error:
            raise UserError(f'The compiler knows no topology {self.name}: {str(error).splitlines()[0]}.') from None

    @property
    def _host(self) -> tuple[int, ...]:
        """Chips of one host along each side."""
        return (1, 1, 1) if math.prod(self.sides) == 1 else (2, 2, 1)


def parse(name: str, slices: int = 1) -> Target:
    """The devices that a name such as v5e:4x8 or h100:8 stands for.

    Raises:
      UserError: it stands for none. The message lists the known kinds.
    """
    kind, _, size = name.strip().lower().partition(':')
    kind = _ALIASES.get(kind, kind)
    known = ', '.join(one.example for one in KINDS.values())
    if kind not in KINDS:
        raise UserError(f'There is no topology {name!r} (--topology). {did_you_mean(kind, KINDS)} Examples: {known}.')
    gpu = KINDS[kind].platform == 'cuda'
    if not re.fullmatch(r'[1-9]\d{0,4}' if gpu else r'[1-9]\d{0,2}(x[1-9]\d{0,2}){1,2}', size):
        shape = 'KIND:NUMBER' if gpu else 'KIND:SIDExSIDE, or SIDExSIDExSIDE'
        raise UserError(f'--topology={name} has no size; write {shape}, such as {KINDS[kind].example}.')
    sides = tuple(int(side) for side in size.split('x'))
    if gpu and sides[0] > GPUS_IN_MACHINE and sides[0] % GPUS_IN_MACHINE:
        raise UserError(f'--topology={name}: above {GPUS_IN_MACHINE} GPUs, use a multiple of {GPUS_IN_MACHINE}.')
    if slices < 1 or (gpu and slices > 1):
        raise UserError(f'--slices is {slices}; {"GPUs have no slices" if gpu else "it should be at least 1"}.')
    return Target(kind, sides, slices)


def asked(given: argparse.Namespace, needed: bool = False) -> Target | None:
    """The devices that --topology and --slices name. Without these flags None, or an error if they are `needed`.

    Raises:
      UserError: no devices have that name, or the flags are inconsistent.
    """
    if needed and given.dry_run and not given.topology:
        raise UserError('--dry-run needs --topology=NAME here.')
    if not given.topology:
        if given.slices != 1 or getattr(given, 'json', False):
            raise UserError(f'--{"json" if getattr(given, "json", False) else "slices"} needs --topology=NAME.')
        return None
    if not given.dry_run:
        raise UserError('--topology only compiles for absent devices; add --dry-run.')
    return parse(given.topology, given.slices)


def check_installed(target: Target) -> None:
    """Raise a UserError if the compiler for these devices is missing, or does not match this version of jax."""
    jax = metadata.version('jax')
    if target.known.platform == 'tpu':
        found, extra, package = _version('libtpu'), 'topology-tpu', 'libtpu'
        pinned = [re.match(r'libtpu==([\d.]+?)(\.\*)?\s*;', text) for text in metadata.requires('jax') or ()]
        wanted = next((match.group(1) for match in pinned if match), '')
    else:
        plugins = ('jax-cuda12-plugin', 'jax-cuda13-plugin')
        package = next((name for name in plugins if _version(name)), plugins[0])
        found, extra, wanted = _version(package), 'topology-gpu', jax
        if found and not any(map(_has, ('nvidia.cuda_nvcc', 'nvidia.cu13'))):
            found = ''
    if not found:
        raise UserError(f"--topology={target.name} needs XLA's compiler for it. "
                        f"Run: pip install 'genbench[{extra}]'")  # fmt: skip
    if wanted and found != wanted and not found.startswith(f'{wanted}.'):
        raise UserError(f'jax {jax} needs {package} {wanted}, but {found} is installed. '
                        f"Run: pip install 'genbench[{extra}]'")  # fmt: skip


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package itself is missing
        return False


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ''


def _described(kind: Kind) -> str:
    """XLA's description of a GPU, as text of its protocol buffer GpuTargetConfigProto."""
    own = dict(kind.options)
    (major, minor), name = own.pop('capability'), own.pop('name')
    fields = {
        **own, 'threads_per_block_limit': 1024, 'threads_per_warp': 32, 'shared_memory_per_block': 49152,
        'threads_per_core_limit': 2048, 'block_dim_limit_x': 2**31 - 1, 'block_dim_limit_y': 65535,
        'block_dim_limit_z': 65535, 'memory_bandwidth': int(kind.bandwidth), 'device_memory_size': kind.memory,
        'registers_per_core_limit': 65536, 'registers_per_block_limit': 65536,
    }  # fmt: skip
    lines = '\n'.join(f'  {key}: {value}' for key, value in fields.items())
    return (f'gpu_device_info {{\n{lines}\n  cuda_compute_capability {{ major: {major} minor: {minor} }}\n}}\n'
            'platform_name: "CUDA"\n'
            'runtime_version { major: 12 minor: 8 patch: 0 }\n'
            'dnn_version_info { major: 9 minor: 10 patch: 0 }\n'
            f'device_description_str: "{name}"\n')  # fmt: skip
