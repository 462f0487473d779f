import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from vitjax.checkpoint import checksums

_DTYPES = ["float32", "bfloat16", "float16", "float8_e4m3fn", "int32"]
_DTYPES += ["uint32", "int16", "uint8", "int8", "bool"]


@pytest.fixture(autouse=True)
def on_devices(monkeypatch):
  """Small arrays take the way of large ones."""
  monkeypatch.setattr(checksums, "_SMALL", -1)


def _random(shape, dtype, seed=0):
  rng = np.random.default_rng(seed)
  if dtype == "bool":
    return rng.integers(0, 2, shape).astype(bool)
  dtype = jnp.dtype(dtype)
  raw = rng.integers(0, 256, (*shape, dtype.itemsize), np.uint8)
  return raw.view(dtype).reshape(shape)  # NaNs and infinities included


def _one(x):
  return checksums.of_tree({"x": x})["x"]


@pytest.mark.parametrize("dtype", _DTYPES)
@pytest.mark.parametrize("shape", [(), (3, 0, 2), (2, 3, 4)])
def test_devices_and_numpy_agree(shape, dtype):
  x = _random(shape, dtype)
  assert _one(jnp.asarray(x)) == checksums.of_array(x)


def test_numpy_agrees_across_its_chunks(monkeypatch):
  x = _random((1000,), "float32")
  expected = _one(x)
  monkeypatch.setattr(checksums, "_CHUNK", 64)
  assert checksums.of_array(x) == expected
  assert checksums.of_array(x.astype(">f4")) == expected


def test_words_of_64_bits():
  x = _random((6, 2), "float64")
  with jax.enable_x64(True):
    assert _one(jnp.asarray(x)) == checksums.of_array(x)


def test_the_layout_does_not_matter():
  x = _random((16, 24), "float32")
  expected = checksums.of_array(x)
  for shape, spec in [
    ((8, 1), P("a", None)),
    ((8, 1), P(None, "a")),
    ((4, 2), P("a", "b")),
    ((2, 4), P(("b", "a"))),
    ((2, 2), P("b", "a")),
    ((8, 1), P()),
  ]:
    devices = jax.devices()[: shape[0] * shape[1]]
    mesh = jax.make_mesh(
      shape, ("a", "b"), axis_types=(AxisType.Auto,) * 2, devices=devices
    )
    assert _one(jax.device_put(x, NamedSharding(mesh, spec))) == expected


def test_leaves_of_different_places_in_one_tree():
  mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
  x = _random((8, 6), "float32")
  tree = {
    "host": x,
    "one": jax.device_put(x, jax.devices()[3]),
    "sharded": jax.device_put(x, NamedSharding(mesh, P("a", "b"))),
    "replicated": jax.device_put(x, NamedSharding(mesh, P())),
    "scalar": jax.device_put(np.int32(3), NamedSharding(mesh, P())),
    "empty": jax.device_put(x[:0], NamedSharding(mesh, P("a"))),
  }
  expected = dict.fromkeys(["host", "one", "sharded", "replicated"], x)
  expected |= {"scalar": np.int32(3), "empty": x[:0]}
  assert checksums.of_tree(tree) == {
    name: checksums.of_array(value) for name, value in expected.items()
  }


def test_words_of_64_bits_that_are_sharded():
  x = _random((8, 6), "float64")
  mesh = jax.make_mesh(
    (4,), ("a",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4]
  )
  with jax.enable_x64(True):
    for spec in (P("a"), P(), P(None)):
      y = jax.device_put(x, NamedSharding(mesh, spec))
      assert _one(y) == checksums.of_array(x)


def test_a_sharded_array_stays_where_it_is():
  # No communication at all: hundreds of leaves are in flight at once.
  mesh = jax.make_mesh((8,), ("a",), axis_types=(AxisType.Auto,))
  for spec in (P("a"), P()):
    x = jax.device_put(np.zeros((64, 32)), NamedSharding(mesh, spec))
    program = checksums._shard_sums(mesh, spec).lower(x).compile().as_text()
    assert "all-" not in program and "collective" not in program


def test_small_arrays_need_no_program(monkeypatch):
  x = _random((8, 6), "bfloat16")
  mesh = jax.make_mesh((8,), ("a",), axis_types=(AxisType.Auto,))
  tree = {"large": jnp.zeros(x.size + 1)}
  for name, spec in {"whole": P(), "parts": P("a")}.items():
    tree[name] = jax.device_put(x, NamedSharding(mesh, spec))
  expected = checksums.of_tree(tree)
  monkeypatch.setattr(checksums, "_SMALL", x.size)
  compiled = []
  for name in ("_whole_sums", "_shard_sums"):
    function = getattr(checksums, name)

    def watched(*args, name=name, function=function):
      compiled.append(name)
      return function(*args)

    monkeypatch.setattr(checksums, name, watched)
  assert checksums.of_tree(tree) == expected
  assert compiled == ["_whole_sums", "_shard_sums"]  # "large" and "parts"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
def test_every_single_flipped_bit_changes_both_sums(dtype):
  x = _random((5, 3), dtype)
  before = checksums.of_array(x)
  for bit in range(x.nbytes * 8):
    y = x.copy()
    y.reshape(-1).view(np.uint8)[bit // 8] ^= 1 << (bit % 8)
    after = checksums.of_array(y)
    assert before >> 32 != after >> 32
    assert before & 0xFFFFFFFF != after & 0xFFFFFFFF


def test_elements_that_swap_places_are_seen():
  # Fails for a sum that forgets the index.
  x = np.arange(12, dtype=np.float32)
  assert checksums.of_array(x) != checksums.of_array(x[::-1])
  assert checksums.of_array(x[:, None] * x) != checksums.of_array(
    np.roll(x[:, None] * x, 1, axis=0)
  )


def test_minus_zero_is_not_zero():
  assert checksums.of_array(np.float32(0.0)) != checksums.of_array(
    np.float32(-0.0)
  )


def test_odd_dtypes_are_refused():
  with pytest.raises(TypeError, match=r"checksum of an array of key<fry>"):
    checksums.of_tree({"key": jax.random.key(0)})
  with pytest.raises(TypeError, match="complex64"):
    checksums.of_tree(jnp.ones(2, jnp.complex64))
