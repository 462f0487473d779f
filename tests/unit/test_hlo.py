"""Facts read from compiled programs, for TPUs and for this machine."""

import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vitjax.plan import hlo

HLO = """\
HloModule jit_train_step

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %s = f32[] add(f32[] %x, f32[] %y)
}

%body (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %g = f32[8,4]{1,0} all-gather(f32[2,4]{1,0} %a), dimensions={0}
  ROOT %t = (s32[], f32[8,4]) tuple(s32[] %i, f32[8,4] %g)
}

%c (p: (s32[], f32[8,4])) -> pred[] {
  %n = s32[] constant(8)
  ROOT %l = pred[] compare(s32[] %i, s32[] %n), direction=LT
}

ENTRY %main (a: f32[4]) -> f32[4] {
  %r = (f32[4]{0}, bf16[8]{0}) all-reduce(f32[4] %a, bf16[8] %b), to_apply=%add
  %q = (f32[2]{0}, f32[8]{0}) all-gather-start(f32[2] %a), dimensions={0}
  %d = f32[8]{0} all-gather-done((f32[2], f32[8]) %q)
  %w = (s32[], f32[8,4]) while(%t), condition=%c, body=%body, \
backend_config={"known_trip_count":{"n":"3"}}
}
"""


def test_a_loop_counts_as_often_as_the_compiler_says_that_it_runs():
  assert hlo.collectives(HLO) == {
    "all-gather": {"count": 4, "bytes": 32 + 3 * 128},
    "all-reduce": {"count": 1, "bytes": 16 + 16},
  }


# As the compiler for a v5e writes them: S(1) is the memory of the chip.
ON_CHIP = """\
%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %q = (s32[]{:T(128)}, f32[4]{0:T(128)}) parameter(0)
  %v = f32[4]{0:T(128)} get-tuple-element(%q), index=1
  %e = f32[4]{0:T(128)S(1)} exponential(%v)
  ROOT %u = (s32[]{:T(128)}, f32[4]{0:T(128)}) tuple(%i, %v)
}

%c (p: (s32[], f32[4])) -> pred[] {
  ROOT %l = pred[] compare(s32[] %i, s32[] %n), direction=LT
}

ENTRY %main (a: f32[8,4], b: f32[8]) -> f32[8] {
  %a = f32[8,4]{1,0:T(8,128)} parameter(0)
  %b = f32[8]{0:T(128)} parameter(1)
  %s = ((f32[8,4]{1,0:T(8,128)}), f32[2,4]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) \
slice-start(%a), slice={[0:2], [0:4]}
  %d = f32[2,4]{1,0:T(8,128)S(1)} slice-done(%s)
  %k = (f32[8]{0:T(128)S(1)}, f32[8]{0:T(128)}, u32[]{:S(2)}) copy-start(%b)
  %j = f32[8]{0:T(128)S(1)} copy-done(%k)
  %w = (s32[], f32[4]) while(%t), condition=%c, body=%body
  ROOT %f = f32[8]{0:T(128)} fusion(%d, %j), kind=kLoop, calls=%add
}
"""


def test_what_is_on_the_chip_is_no_traffic_with_memory():
  # slice, copy, loop, fusion: what they read, and what they write
  memory = 32 + 32 + 16 + 32
  on_chip = 32 + 32 + 16 + (32 + 32)
  assert hlo.memory_share(ON_CHIP) == memory / (memory + on_chip)
  assert hlo.memory_share(HLO) == 1


# As the compiler for TPUs writes them: without a count, with comments in
# tuples. The counter is the second of the carried values, and grows by 2.
TPU = """\
%body.1 (wide.p: (f32[8,4], u32[], s32[])) -> (f32[8,4], u32[], s32[]) {
  %k = u32[]{:T(128)} constant(2), metadata={op_name="while/body"}
  %p = (f32[8,4]{1,0}, u32[]{:T(128)}, s32[]) parameter(0)
  %x = f32[8,4]{1,0} get-tuple-element(%p), index=0
  %i = u32[]{:T(128)} get-tuple-element(%p), index=1
  %y = f32[8,4]{1,0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}
  %more = u32[]{:T(128)} add(%i, %k), metadata={op_name="while/body/add"}
  ROOT %t = (f32[8,4]{1,0}, u32[], s32[]) tuple(%y, /*index=1*/%more, %z)
}

%cond.1 (wide.p.1: (f32[8,4], u32[], s32[])) -> pred[] {
  %n = u32[]{:T(128)} constant(7), metadata={op_name="while/cond"}
  %p.1 = (f32[8,4]{1,0}, u32[]{:T(128)}, s32[]) parameter(0)
  %i.1 = u32[]{:T(128)} get-tuple-element(%p.1), index=1, metadata={op_name="c"}
  ROOT %l = pred[]{:T(512)} compare(%i.1, %n), direction=LT, metadata={op="x"}
}

%forever (q: (f32[8,4], u32[], s32[])) -> pred[] {
  %j = f32[8,4]{1,0} get-tuple-element(%q), index=0
  ROOT %b = pred[] bitcast(%j)
}

ENTRY %main (a: f32[8,4]) -> f32[8,4] {
  %w = (f32[8,4], u32[], s32[]) while(%t), condition=%cond.1, body=%body.1
  %v = (f32[8,4], u32[], s32[]) while(%w), condition=%forever, body=%body.1
}
"""


def test_a_loop_of_a_tpu_counts_to_its_end():
  # 0, 2, 4, 6; and one whose end is not known counts once.
  assert hlo.collectives(TPU) == {
    "collective-permute": {"count": 5, "bytes": 5 * 128}
  }


def test_a_loop_whose_body_ends_in_no_tuple_counts_once():
  text = re.sub(r"ROOT %t = (.*?) tuple\(.*\)", r"ROOT %t = \1 copy(%u)", TPU)
  assert " tuple(" not in text
  assert hlo.collectives(text) == {
    "collective-permute": {"count": 2, "bytes": 2 * 128}
  }


def test_a_real_loop():
  mesh = Mesh(np.array(jax.devices()), ("data",))
  sharded = NamedSharding(mesh, PartitionSpec("data"))

  def step(x):
    def body(i, x):
      return x / (1 + jnp.sum(x * i))  # over all devices

    return jax.lax.fori_loop(0, 6, body, x)

  x = jax.ShapeDtypeStruct((16, 4), jnp.float32, sharding=sharded)
  text = jax.jit(step, out_shardings=sharded).lower(x).compile().as_text()
  assert hlo.collectives(text) == {"all-reduce": {"count": 6, "bytes": 6 * 4}}
