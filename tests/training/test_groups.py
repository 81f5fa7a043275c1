"""Which devices a collective joins, in each notation of XLA, and what leaves a machine."""

import pytest

from genbench.training import compiled, groups, topologies
from genbench.training import mesh as meshes
from genbench.training.hlo import Collective, Program


@pytest.mark.parametrize(
    'text, expected',
    [
        ('replica_groups={{0,2},{1,3}}', [[0, 2], [1, 3]]),
        ('replica_groups=[2,2]<=[4]', [[0, 1], [2, 3]]),
        ('replica_groups=[2,2]<=[2,2]T(1,0)', [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=1,'b'=4] {'b'}", [[0, 1, 2, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}, to_apply=%add", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=1,'b'=2,'c'=2], device_ids=([4]) {'b','c'}", [[0, 1, 2, 3]]),
        ('replica_groups={}', [[0, 1, 2, 3]]),
    ],
)
def test_groups_in_each_notation(text, expected):
    assert groups.groups(text, 4) == expected


MACHINES = """HloModule two, num_partitions=8

ENTRY %main (p: f32[8,16]) -> f32[8,16] {
  %p = f32[8,16]{1,0} parameter(0)
  %inside = f32[8,16]{1,0} all-reduce(%p), channel_id=1, replica_groups=[2,4]<=[8], to_apply=%add
  %across = f32[8,16]{1,0} all-reduce(%inside), channel_id=2, replica_groups=[4,2]<=[2,4]T(1,0), to_apply=%add
  %part = f32[2,16]{1,0} slice(%across), slice={[0:2], [0:16]}
  %whole = f32[16,16]{1,0} all-gather(%part), channel_id=3, replica_groups=[1,8]<=[8], dimensions={0}
  %near = f32[8,16]{1,0} collective-permute(%across), channel_id=4, source_target_pairs={{0,1},{1,0},{4,5},{5,4}}
  %far = f32[8,16]{1,0} collective-permute(%near), channel_id=5, source_target_pairs={{0,4},{4,0}}
  ROOT %out = f32[8,16]{1,0} all-to-all(%far), channel_id=6, replica_groups=[1,8]<=[8], dimensions={0}
}
"""  # two machines with four devices each


def test_what_leaves_a_machine():
    """Counted by hand: of what a machine lacks, each of its devices fetches an equal part."""
    mesh = {'data': 2, 'fsdp': 4, 'tensor': 1}
    found = {(one.kind, one.axes): one.crossing for one in Program(MACHINES).collectives(mesh, machine=4)}
    assert found == {
        ('all-reduce', 'fsdp'): 0,
        ('all-reduce', 'data'): 512,  # two devices swap halves of 512 bytes, and then the sums of these halves
        ('all-gather', 'data+fsdp'): 128,  # a machine lacks half of 1024 bytes
        ('collective-permute', 'fsdp'): 0,
        ('collective-permute', 'data'): 512,
        ('all-to-all', 'data+fsdp'): 256,  # half of what a device sends goes to the other machine
    }
    assert not any(one.crossing for one in Program(MACHINES).collectives(mesh))  # all in one machine


@pytest.mark.parametrize(
    'name, slices, machine, link, network',
    [('h100:16', 1, 8, 450e9, 400e9 / 8), ('h100:8', 1, 0, 450e9, 400e9 / 8), ('v5e:4x4', 2, 0, 100e9, 25e9 / 8)],
)
def test_what_crosses_takes_the_rate_of_the_network(name, slices, machine, link, network):
    """The rates that are published for a host of eight devices."""
    target = topologies.parse(name, slices)
    exchanges = [Collective('all-reduce', 'fsdp', 1, 0, 9e9, 0.0), Collective('all-reduce', 'data', 1, 0, 4e9, 3e9)]
    found = compiled._estimate(target, meshes.make_mesh(), 'float32', None, 0, exchanges)
    assert target.machine == machine
    assert found['exchange_seconds'] == pytest.approx((9e9 + 4e9 - 3e9) / link)
    assert found['seconds'] == found['network_seconds'] == pytest.approx(3e9 / network)
    assert found['bound_by'] == 'network'
