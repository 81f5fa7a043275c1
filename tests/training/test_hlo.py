"""What is read out of a compiled program, against programs written by hand and counted by hand."""

import json

import pytest
from joined import finish, start

from genbench.training.hlo import Program, size

MESH = {'data': 2, 'fsdp': 4, 'tensor': 1}
TEXT = """HloModule step, is_scheduled=true, input_output_alias={ {0}: (1, {}, may-alias), {1}: (0, {}, may-alias) }, n=8

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%cut (table: u8[50000,32], row: s32[]) -> u8[1,32] {
  %table = u8[50000,32]{1,0} parameter(0)
  %row = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %one = u8[1,32]{1,0} dynamic-slice(%table, %row, %zero), dynamic_slice_sizes={1,32}
}

%all-reduce-scatter.1 (x: f32[8,16]) -> f32[2,16] {
  %x = f32[8,16]{1,0} parameter(0)
  %all-reduce.9 = f32[8,16]{1,0} all-reduce(%x), channel_id=9, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  %id = u32[] partition-id()
  ROOT %part = f32[2,16]{1,0} dynamic-slice(%all-reduce.9, %id, %id), dynamic_slice_sizes={2,16}
}

%body (state: (s32[], bf16[4])) -> (s32[], bf16[4]) {
  %state = (s32[], bf16[4]{0}) parameter(0)
  %step = s32[] get-tuple-element(%state), index=0
  %x.1 = bf16[4]{0} get-tuple-element(%state), index=1
  %moved = bf16[4]{0} collective-permute(%x.1), channel_id=3, source_target_pairs={{0,4},{4,0},{1,5},{5,1}}
  ROOT %next = (s32[], bf16[4]{0}) tuple(%step, %moved)
}

%condition (state.1: (s32[], bf16[4])) -> pred[] {
  %state.1 = (s32[], bf16[4]{0}) parameter(0)
  ROOT %go = pred[] constant(true)
}

ENTRY %main (p: f32[8,16], q: bf16[4], images: u8[50000,32], row.1: s32[]) -> (bf16[4], f32[8,16]) {
  %p = f32[8,16]{1,0} parameter(0)
  %q = bf16[4]{0:T(8)S(1)} parameter(1)
  %images = u8[50000,32]{1,0} parameter(2)
  %row.1 = s32[] parameter(3)
  %picked = u8[1,32]{1,0} fusion(%images, %row.1), kind=kLoop, calls=%cut
  %scattered = f32[2,16]{1,0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.1
  %begun = (f32[2,16]{1,0}, f32[8,16]{1,0}) all-gather-start(%scattered), channel_id=4, replica_groups=[2,4]<=[8]
  %gathered = f32[8,16]{1,0} all-gather-done(%begun)
  %product = f32[8,8]{1,0} dot(%gathered, %p), lhs_contracting_dims={1}, rhs_contracting_dims={1}
  %start = (s32[], bf16[4]{0}) tuple(%row.1, %q)
  %loop = (s32[], bf16[4]{0}) while(%start), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %kept = bf16[4]{0} get-tuple-element(%loop), index=1
  ROOT %out = (bf16[4]{0}, f32[8,16]{1,0}) tuple(%kept, %gathered)
}
"""  # noqa: E501


def test_exchanges_by_kind_axis_number_and_bytes():
    found = {(one.kind, one.axes): (one.count, one.bytes, one.sent) for one in Program(TEXT).collectives(MESH)}
    assert found == {
        ('all-gather', 'fsdp'): (1, 512, 384.0),
        ('reduce-scatter', 'fsdp'): (1, 512, 384.0),  # a sum that is cut at once
        ('collective-permute', 'data'): (5, 40, 40.0),
    }


def test_arguments_aliases_and_types():
    program = Program(TEXT)
    assert program.arguments == {0: 512, 1: 8, 2: 1_600_000, 3: 4}
    assert program.aliased == 520
    assert program.products == {'f32': 1}


def test_only_parts_of_a_tuple_of_arguments_are_aliased():
    """The form of a TPU program with thousands of arguments."""
    program = Program("""HloModule step, input_output_alias={ {0}: (0, {0}, may-alias), {1}: (0, {2}, may-alias) }, n=8

ENTRY %main (all: (f32[8,16], u8[50], s32[2])) -> (f32[8,16], s32[2]) {
  %all = (f32[8,16]{1,0:T(8,128)}, u8[50]{0}, s32[2]{0:T(128)}) parameter(0)
  %x = f32[8,16]{1,0:T(8,128)} get-tuple-element(%all), index=0
  %n = s32[2]{0:T(128)} get-tuple-element(%all), index=2
  ROOT %both = (f32[8,16]{1,0:T(8,128)}, s32[2]{0:T(128)}) tuple(%x, %n)
}
""")
    assert program.arguments == {0: 512 + 50 + 8} and program.aliased == 512 + 8


def test_bytes_moved_count_cuts_loops_and_no_vector_memory():
    picked, scattered, gathered, product = 32 + 32 + 4, 512 + 128, 128 + 512, 512 + 512 + 256
    assert Program(TEXT).bytes_moved == picked + scattered + gathered + product + 5 * 2 * 8


COMPILED = """
import functools, json
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from genbench.training import mesh as meshes

def summed(x):
    return jax.lax.psum(x, 'data')

def summed_twice(x):
    return summed(jnp.sin(summed(x)))

def chosen(*branches):
    return lambda index, x: jax.lax.switch(index, branches, x)

def repeated(index, x):
    return jax.lax.scan(lambda x, _: (chosen(jnp.sin, summed)(index, x), None), x, None, length=5)[0]

half, whole = PartitionSpec('data'), PartitionSpec()
mesh = meshes.make_mesh()
split = functools.partial(jax.shard_map, mesh=mesh, in_specs=(whole, half), out_specs=half, check_vma=False)
programs = {
    'first': chosen(summed, jnp.sin), 'second': chosen(jnp.sin, summed),
    'four': chosen(jnp.sin, summed, summed_twice, summed), 'loop': repeated,
}
print(json.dumps({name: jax.jit(split(one)).lower(jnp.int32(0), jnp.ones((8, 16))).compile().as_text()
                  for name, one in programs.items()}))
"""


@pytest.fixture(scope='module')
def texts():
    """Programs for two devices that choose between branches, each device with half of 8 × 16 numbers."""
    (said,) = finish(start(['-c', COMPILED], devices=2))
    return json.loads(said)


@pytest.mark.parametrize('name, times', [('first', 1), ('second', 1), ('four', 2), ('loop', 5)])
def test_of_a_conditional_the_branch_that_sends_most_counts(texts, name, times):
    program = Program(texts[name])
    found = [(one.kind, one.count, one.bytes) for one in program.collectives({'data': 2})]
    assert found == [('all-reduce', times, times * 4 * 4 * 16)]
    assert program.conditionals == 1


SHARED = """HloModule scatters

%all-reduce-scatter.1 (x: f32[8,16]) -> f32[4,16] {
  %x = f32[8,16]{1,0} parameter(0)
  %all-reduce.1 = f32[8,16]{1,0} all-reduce(%x), channel_id=1, replica_groups={{0,1}}, to_apply=%add
  ROOT %part.1 = f32[4,16]{1,0} dynamic-slice(%all-reduce.1, %id, %id), dynamic_slice_sizes={4,16}
}

%all-reduce-scatter.2 (y: f32[8]) -> f32[4] {
  %y = f32[8]{0} parameter(0)
  %all-reduce.2 = f32[8]{0} all-reduce(%y), channel_id=1, replica_groups={{0,1}}, to_apply=%add
  ROOT %part.2 = f32[4]{0} dynamic-slice(%all-reduce.2, %id), dynamic_slice_sizes={4}
}

%fused_computation.1 (z: f32[4]) -> f32[8] {
  %z = f32[4]{0} parameter(0)
  ROOT %all-gather.1 = f32[8]{0} all-gather(%z), channel_id=2, replica_groups={{0,1}}, dimensions={0}
}

%async_collective_fusion.2 (z: f32[4]) -> f32[8] {
  %z = f32[4]{0} parameter(0)
  ROOT %all-gather.2 = f32[8]{0} all-gather(%z), channel_id=2, replica_groups={{0,1}}, dimensions={0}
}

ENTRY %main (p: f32[8,16], q: f32[8]) -> f32[8] {
  %p = f32[8,16]{1,0} parameter(0)
  %q = f32[8]{0} parameter(1)
  %one = f32[4,16]{1,0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.1
  %two = f32[4]{0} fusion(%q), kind=kCustom, calls=%all-reduce-scatter.2
  %begun = f32[8]{0} fusion(%two), kind=kCustom, calls=%fused_computation.1
  ROOT %ended = f32[8]{0} fusion(%two), kind=kCustom, calls=%async_collective_fusion.2
}
"""


def test_scatters_may_share_a_channel_and_a_gather_may_be_spread_over_fusions():
    found = {one.kind: (one.count, one.bytes) for one in Program(SHARED).collectives({'data': 2})}
    assert found == {'reduce-scatter': (2, 4 * (8 * 16 + 8)), 'all-gather': (1, 4 * 8)}


SLICES = """HloModule slices, num_partitions=4

ENTRY %main (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  %sum = f32[8]{0} all-reduce(%p), channel_id=1, replica_groups={{0,1},{2,3}}, to_apply=%add
  %begin = token[] after-all(), frontend_attributes={MegascaleRendezvousKeyName="all-reduce.1"}
  %sent = (f32[8]{0}, u32[], token[]) send(%sum, %begin), channel_id=2, is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}
  %got = (f32[8]{0:T(8,128)S(1)}, u32[], token[]) recv(%begin), channel_id=3, is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}
  ROOT %out = f32[8]{0} get-tuple-element(%got), index=0
}
"""  # noqa: E501


def test_exchanges_between_slices_are_told_apart_from_those_within_one():
    mesh = {'data': 6, 'fsdp': 2, 'tensor': 1}  # three slices, each with two of the six
    found = {(one.kind, one.axes): (one.bytes, one.sent, one.crossing) for one in Program(SLICES).collectives(mesh)}
    between = pytest.approx(2 * 32 * 2 / 3)
    assert found == {('all-reduce', 'fsdp'): (32, 32.0, 0.0), ('all-reduce', 'slices'): (32, between, between)}


CONDITIONAL = """HloModule choice

%dear (a: (f32[64])) -> f32[64] {
  %a = (f32[64]{0}) parameter(0)
  %x = f32[64]{0} get-tuple-element(%a), index=0
  ROOT %all-reduce.1 = f32[64]{0} all-reduce(%x), channel_id=1, replica_groups={{0,1}}, to_apply=%add
}

%wide (b: (f32[64])) -> f32[64] {
  %b = (f32[64]{0}) parameter(0)
  %y = f32[64]{0} get-tuple-element(%b), index=0
  %spread = f32[640]{0} broadcast(%y), dimensions={}
  ROOT %part = f32[64]{0} slice(%spread), slice={[0:64]}
}

ENTRY %main (choice: pred[], p: f32[64]) -> f32[64] {
  %choice = pred[] parameter(0)
  %p = f32[64]{0} parameter(1)
  %given = (f32[64]{0}) tuple(%p)
  ROOT %out = f32[64]{0} conditional(%choice, %given, %given), true_computation=%dear, false_computation=%wide
}
"""


def test_each_number_counts_its_own_costliest_branch():
    program = Program(CONDITIONAL)
    assert [one.bytes for one in program.collectives({'data': 2})] == [256]  # the branch dear; wide has none
    assert program.bytes_moved == (256 + 2560) + (256 + 256)  # the branch wide; dear reads and writes 512


@pytest.mark.parametrize(
    'text, expected', [('f32[]', 4), ('(bf16[2,3]{1,0}, pred[8])', 20), ('s4[6]', 3), ('f8e4m3[5]', 5)]
)
def test_sizes_of_arrays(text, expected):
    assert size(text) == expected
