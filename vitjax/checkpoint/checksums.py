"""Checksums of arrays that do not depend on how the arrays are laid out.

Owns: one 64-bit number per leaf, computed on the devices that hold it, and
its NumPy twin. A checkpoint stores the numbers beside the arrays, because the
storage layer does not notice a flipped bit. No file is read or written here.

An array is a sequence of 32-bit words w[i], where i is the element's place
in the whole array in row-major order (elements narrower than 32 bits are one
zero-extended word each, 64-bit ones are two words). The checksum is a pair of
sums modulo 2^32,

  sum_i mix_a(w[i] xor A*i)   and   sum_i mix_b(w[i] + B*i + C),

where each mix is a bijection of 32-bit words (odd multipliers and xor-shifts,
as in the finaliser of MurmurHash3). Two facts follow:

- Sums modulo 2^32 commute, so any sharding, mesh or number of hosts gives the
  same pair, and only the sums travel between devices, never the array.
- For a fixed place i, w -> mix(w xor A*i) is a bijection: if exactly one word
  is changed, both sums change. Every corruption within one word is found, for
  certain. Others (several words, words that swap places) pass unseen with
  probability about 2^-64. This guards against accidents, not against forgery.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vitjax import trees

_INDEX_A, _INDEX_B, _OFFSET_B = 0x9E3779B1, 0x27D4EB2F, 0x165667B1
_MIX_A = ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, None))
_MIX_B = ((16, 0x7FEB352D), (15, 0x846CA68B), (16, None))
_CHUNK = 1 << 20  # words that the NumPy twin holds at once
# Arrays of up to this number of elements, of which each host has all, are left
# to the NumPy twin: that is faster than to compile a program for their shape.
_SMALL = 1 << 15


def _mix(word: Any, rounds: Any, uint32: Any) -> Any:
  for shift, multiplier in rounds:
    word = word ^ (word >> uint32(shift))
    if multiplier is not None:
      word = word * uint32(multiplier)
  return word


def _sums(word: Any, index: Any, xp: Any) -> tuple[Any, Any]:
  u = xp.uint32
  a = _mix(word ^ (index * u(_INDEX_A)), _MIX_A, u)
  b = _mix(word + (index * u(_INDEX_B) + u(_OFFSET_B)), _MIX_B, u)
  return xp.sum(a, dtype=u), xp.sum(b, dtype=u)


def _word_dtype(dtype: np.dtype) -> np.dtype:
  """Returns the unsigned type whose words represent `dtype`."""
  known = jnp.issubdtype(dtype, np.number) or dtype == np.bool_
  if not known or jnp.issubdtype(dtype, np.complexfloating):
    raise TypeError(
      f"cannot take the checksum of an array of {dtype}; use real numbers or "
      "bool, and jax.random.key_data for a key."
    )
  return np.dtype(f"u{min(dtype.itemsize, 4)}")


def _device_sums(
  x: jax.Array, starts: Sequence[Any], sizes: Sequence[int]
) -> jax.Array:
  """Returns the two sums over a block of an array.

  Args:
    x: the block.
    starts: where it begins in the whole array, for each axis.
    sizes: the shape of the whole array.
  """
  if x.dtype == jnp.bool_:
    words = x.astype(jnp.uint8)
  else:
    words = jax.lax.bitcast_convert_type(x, _word_dtype(x.dtype))
  if words.ndim > x.ndim:  # 64 bits: two words to an element
    starts, sizes = [*starts, 0], [*sizes, 2]
  index, stride = jnp.zeros(words.shape, jnp.uint32), 1
  for axis in reversed(range(words.ndim)):
    place = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    place = place + jnp.asarray(starts[axis], jnp.uint32)
    index = index + place * jnp.uint32(stride % 2**32)
    stride *= sizes[axis]
  return jnp.stack(_sums(words.astype(jnp.uint32), index, jnp))


@jax.jit
def _whole_sums(x: jax.Array) -> jax.Array:
  return _device_sums(x, [0] * x.ndim, x.shape)[None]


# One small program per shape instead of one for the tree: a model has few
# shapes and hundreds of leaves (600 leaves: 1 s to compile instead of 12).
# The programs do not communicate: hundreds of them in flight, each waiting
# for all devices, have deadlocked on 8 virtual devices of 2 cores.
@functools.lru_cache(maxsize=256)
def _shard_sums(mesh: Mesh, spec: P) -> Any:
  """Returns the program that takes the sums of each device's shard."""

  def of_shard(x: jax.Array) -> jax.Array:
    axes = [entry or () for entry in (*spec, *[None] * (x.ndim - len(spec)))]
    axes = [(a,) if isinstance(a, str) else tuple(a) for a in axes]
    starts, sizes = [], []
    for size, names in zip(x.shape, axes):
      place = jax.lax.axis_index(names) if names else 0
      starts.append(jnp.asarray(place, jnp.uint32) * jnp.uint32(size))
      sizes.append(size * math.prod(mesh.shape[name] for name in names))
    sums = _device_sums(x, starts, sizes)
    copies = tuple(
      n for n in mesh.axis_names if not any(n in names for names in axes)
    )
    first = jax.lax.axis_index(copies) == 0 if copies else True
    return jnp.where(first, sums, jnp.uint32(0))[None]

  return jax.jit(
    jax.shard_map(
      of_shard,
      mesh=mesh,
      in_specs=spec,
      out_specs=P(mesh.axis_names),
      check_vma=False,
    )
  )


@functools.lru_cache(maxsize=16)
def _total(mesh: Mesh | None) -> Any:
  """Returns the program that adds up the sums, so that every host has them."""
  return jax.jit(
    lambda parts: jnp.sum(jnp.stack(parts), axis=1, dtype=jnp.uint32),
    out_shardings=NamedSharding(mesh, P()) if mesh is not None else None,
  )


def of_tree(tree: trees.PyTree) -> dict[str, int]:
  """Returns the checksum of each leaf by name, computed where the leaf is.

  In a run of several processes all of them must call it, as they must for
  any computation on global arrays; each gets the whole answer.

  Args:
    tree: `jax.Array`s of any sharding, or NumPy arrays.

  Raises:
    TypeError: for complex numbers, PRNG keys and other odd dtypes.
  """
  flat = trees.flatten(tree)
  for leaf in flat.values():
    _word_dtype(trees.shape_and_dtype(leaf)[1])
  results: dict[str, int] = {}
  parts: dict[Any, dict[str, jax.Array]] = {}
  with jax.transfer_guard("allow"):
    small = {name: x for name, x in flat.items() if _is_small(x)}
    for name, leaf in jax.device_get(small).items():
      results[name] = of_array(leaf)
    for name, leaf in flat.items():
      if name in small:
        continue
      sharding = getattr(leaf, "sharding", None)
      if isinstance(sharding, NamedSharding):
        part = _shard_sums(sharding.mesh, sharding.spec)(leaf)
        parts.setdefault(sharding.mesh, {})[name] = part
      elif isinstance(leaf, jax.Array):
        part = _whole_sums(leaf)
        if len(leaf.sharding.device_set) > 1:
          jax.block_until_ready(part)  # it communicates: one at a time
        parts.setdefault(sharding, {})[name] = part
      else:
        results[name] = of_array(leaf)
    for place, named in parts.items():
      jax.block_until_ready(named)
      mesh = place if isinstance(place, Mesh) else None
      sums = jax.device_get(_total(mesh)(list(named.values())))
      results |= {n: _join(*pair.tolist()) for n, pair in zip(named, sums)}
  return {name: results[name] for name in flat}


def _is_small(leaf: Any) -> bool:
  whole = getattr(leaf, "is_fully_replicated", False)
  return whole and leaf.size <= _SMALL


def of_array(array: np.ndarray) -> int:
  """Returns the same checksum, computed by NumPy alone."""
  array = np.asarray(array)
  if array.dtype.byteorder == ">":
    array = array.astype(array.dtype.newbyteorder("<"))
  flat = np.ascontiguousarray(array).reshape(-1)
  words = flat.view(_word_dtype(array.dtype))
  sums = [0, 0]
  for start in range(0, words.size, _CHUNK):
    chunk = words[start : start + _CHUNK].astype(np.uint32)
    places = np.arange(start, start + chunk.size, dtype=np.uint64)
    for i, part in enumerate(_sums(chunk, places.astype(np.uint32), np)):
      sums[i] = (sums[i] + int(part)) % 2**32
  return _join(*sums)


def _join(a: int, b: int) -> int:
  return (a << 32) | b
