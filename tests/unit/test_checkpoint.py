import json
import logging as python_logging
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import logging
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from vitjax import trees
from vitjax.checkpoint import checksums, step_files
from vitjax.checkpoint.checkpointer import (
  Checkpointer,
  CheckpointError,
  SaveError,
  load_params,
  ocp,
  read_record,
)

_ROOT = pathlib.Path(__file__).parents[2]


def _params(seed=0, rows=16):
  rng = np.random.default_rng(seed)

  def normal(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  return {
    "head": {"kernel": normal(rows, 512), "bias": normal(512)},
    "half": normal(24).astype(jnp.bfloat16),
    "none": None,
    "no_rows": jnp.zeros((0, 3)),
  }


def _state(seed=0):
  params = _params(seed)
  tx = optax.chain(
    optax.clip_by_global_norm(1.0), optax.adam(1e-3, mu_dtype=jnp.bfloat16)
  )
  opt_state = jax.tree.map(
    lambda x: (x + seed + 1).astype(x.dtype), tx.init(params)
  )
  return {
    "params": params,
    "opt_state": opt_state,
    "sgd_state": optax.sgd(0.1).init(params),
    "step": jnp.int32(seed),
  }


def _abstract(state):
  return jax.eval_shape(lambda: state)


def _assert_bitwise_equal(given, expected):
  assert jax.tree.structure(given) == jax.tree.structure(expected)
  assert not trees.compare(expected, given)
  assert checksums.of_tree(given) == checksums.of_tree(expected)


def _save(directory, steps=(1, 2), **kwargs):
  with Checkpointer(directory, keep_latest=5, **kwargs) as checkpointer:
    for step in steps:
      checkpointer.save(step, _state(step), info={"seed": step})


def _largest_file(step_directory):
  files = [f for f in step_directory.rglob("*") if f.is_file()]
  return max(files, key=lambda f: f.stat().st_size)


@pytest.fixture
def warnings_logged():
  messages = []

  class Handler(python_logging.Handler):
    def emit(self, record):
      messages.append(record.getMessage())

  handler = Handler(level=30)
  logging.get_absl_logger().addHandler(handler)
  yield messages
  logging.get_absl_logger().removeHandler(handler)


@pytest.mark.parametrize("async_save", [True, False])
def test_round_trip_is_bitwise(tmp_path, async_save):
  state, info = _state(7), {"name": "é", "list": [1, 2.5, None]}
  with Checkpointer(tmp_path / "a/b", async_save=async_save) as checkpointer:
    assert checkpointer.restore(_abstract(state)) is None
    checkpointer.save(7, state, info=info)
  with Checkpointer(tmp_path / "a/b") as checkpointer:
    assert checkpointer.latest_step == 7
    step, restored, restored_info = checkpointer.restore(_abstract(state))
  assert (step, restored_info) == (7, info)
  _assert_bitwise_equal(restored, state)


def test_donating_the_saved_buffers_at_once_is_safe(tmp_path):
  state = {"params": {f"w{i}": jnp.full((256, 1024), i) for i in range(8)}}
  expected = jax.tree.map(np.array, state)
  update = jax.jit(
    lambda t: jax.tree.map(lambda x: x * 2 + 1, t), donate_argnums=0
  )
  with Checkpointer(tmp_path) as checkpointer, jax.transfer_guard("disallow"):
    checkpointer.save(1, state)
    jax.block_until_ready(update(state))
    _, restored, _ = checkpointer.restore(_abstract(state))
  _assert_bitwise_equal(restored, expected)


def test_a_sharded_state_restores_onto_any_mesh(tmp_path):
  values = {"kernel": _params()["head"]["kernel"], "bias": jnp.arange(24.0)}

  def place(n, **specs):
    mesh = jax.make_mesh(
      (n,), ("fsdp",), axis_types=(AxisType.Auto,), devices=jax.devices()[:n]
    )
    return {name: NamedSharding(mesh, spec) for name, spec in specs.items()}

  saved_on = place(8, kernel=P("fsdp", None), bias=P("fsdp"))
  sharded = jax.device_put(values, saved_on)
  with Checkpointer(tmp_path) as checkpointer:
    checkpointer.save(1, {"params": sharded})
    for target in [
      place(8, kernel=P("fsdp"), bias=P("fsdp")),
      place(8, kernel=P(None, "fsdp"), bias=P()),
      place(4, kernel=P("fsdp"), bias=P()),
      place(1, kernel=P(), bias=P()),
      dict.fromkeys(values),
    ]:
      abstract = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=target[name])
        for name, x in values.items()
      }
      _, restored, _ = checkpointer.restore({"params": abstract})
      _assert_bitwise_equal(restored["params"], values)
      for name, sharding in target.items():
        if sharding is not None:
          assert restored["params"][name].sharding == sharding


def test_one_flipped_bit_falls_back_and_says_so(tmp_path, warnings_logged):
  _save(tmp_path)
  file = _largest_file(tmp_path / "2" / "params")
  data = bytearray(file.read_bytes())
  data[len(data) // 2] ^= 1
  file.write_bytes(data)
  with Checkpointer(tmp_path, keep_latest=5) as checkpointer:
    step, restored, info = checkpointer.restore(_abstract(_state()))
    assert (step, info) == (1, {"seed": 1})
    _assert_bitwise_equal(restored, _state(1))
    assert any(
      "step 2" in m and "wrong checksum of params/head/kernel" in m
      for m in warnings_logged
    )
    # Nothing is deleted, and training can save the same step again.
    assert (tmp_path / "2.damaged" / "params").is_dir()
    assert checkpointer.steps == [1]
    checkpointer.save(2, _state(2))
    checkpointer.wait()
    assert checkpointer.restore(_abstract(_state()))[0] == 2
  with pytest.raises(CheckpointError, match="wrong checksum of params/head"):
    shutil.rmtree(tmp_path / "2")
    os.rename(tmp_path / "2.damaged", tmp_path / "2")
    load_params(tmp_path, step=2)


def _truncate(file):
  os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize(
  "damage",
  [
    lambda step: _truncate(_largest_file(step)),
    lambda step: _largest_file(step).unlink(),
    lambda step: _truncate(step / "info" / "metadata"),
    lambda step: (step / "params" / "manifest.ocdbt").unlink(),
    lambda step: (step / "opt_state").rename(step / "gone"),
  ],
  ids=["truncated", "deleted", "info", "manifest", "item"],
)
def test_a_damaged_step_falls_back(tmp_path, damage, warnings_logged):
  _save(tmp_path)
  damage(tmp_path / "2")
  with Checkpointer(tmp_path, keep_latest=5) as checkpointer:
    step, restored, _ = checkpointer.restore(_abstract(_state()))
  assert step == 1
  _assert_bitwise_equal(restored, _state(1))
  assert any("step 2" in message for message in warnings_logged)
  assert (tmp_path / "2.damaged").is_dir()


def test_info_that_was_altered_is_damage(tmp_path):
  _save(tmp_path, steps=[1])
  file = tmp_path / "1" / "info" / "metadata"
  file.write_text(file.read_text().replace('"seed": 1', '"seed": 7'))
  with pytest.raises(CheckpointError, match=r"do not match their CRC-32"):
    read_record(tmp_path, 1)


def test_a_step_folder_that_was_renamed_is_refused(tmp_path):
  _save(tmp_path)
  (tmp_path / "2").rename(tmp_path / "5")
  advice = (
    f"{tmp_path / '5'} holds the checkpoint of step 2: the folder was renamed. "
    "Rename it back to 2, or"
  )
  with Checkpointer(tmp_path, keep_latest=5) as checkpointer:
    with pytest.raises(ValueError) as error:
      checkpointer.restore(_abstract(_state()))
    assert checkpointer.steps == [1, 5]
  assert advice in str(error.value)
  with pytest.raises(CheckpointError) as error:
    load_params(tmp_path)
  assert advice in str(error.value)
  (tmp_path / "5").rename(tmp_path / "2")
  assert load_params(tmp_path)[0] == 2


def test_all_steps_damaged_is_an_error_and_changes_nothing(tmp_path):
  _save(tmp_path)
  _truncate(_largest_file(tmp_path / "1"))
  _truncate(tmp_path / "2" / "info" / "metadata")
  for _ in range(2):  # a second start must not begin from scratch either
    with Checkpointer(tmp_path, keep_latest=5) as checkpointer:
      with pytest.raises(CheckpointError) as error:
        checkpointer.restore(_abstract(_state()))
    assert "is intact" in str(error.value)
    assert "step 2: " in str(error.value) and "step 1: " in str(error.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "2"]


def test_only_set_aside_steps_is_an_error(tmp_path):
  _save(tmp_path, steps=[1])
  (tmp_path / "1").rename(tmp_path / "1.damaged")
  with Checkpointer(tmp_path) as checkpointer:
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is intact"):
      checkpointer.restore(_abstract(_state()))


def test_half_written_steps_are_ignored_and_removed(tmp_path):
  _save(tmp_path, steps=[1])
  half = tmp_path / "2.orbax-checkpoint-tmp"
  half.mkdir()
  (half / "params").mkdir()
  with Checkpointer(tmp_path, keep_latest=5) as checkpointer:
    assert checkpointer.steps == [1]
    assert checkpointer.restore(_abstract(_state()))[0] == 1
    checkpointer.save(3, _state(3))
  assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "3"]


def test_another_model_is_an_error_not_a_fallback(tmp_path):
  _save(tmp_path)
  other = _state()
  other["params"]["head"]["kernel"] = jnp.zeros((16, 10))
  other["params"]["half"] = jnp.zeros(24, jnp.float32)
  del other["params"]["head"]["bias"]
  other["ema_params"] = {"w": jnp.zeros(3)}
  other["step"] = jnp.zeros((2,), jnp.int32)
  other["nothing"] = ()
  with Checkpointer(tmp_path, keep_latest=5) as checkpointer:
    with pytest.raises(ValueError) as error:
      checkpointer.restore(_abstract(other))
    assert checkpointer.steps == [1, 2]
  assert (
    f"step 2 in {tmp_path} does not fit this run (wanted vs saved). "
    "Missing: ema_params/w. Extra: params/head/bias. "
    "Shape: params/head/kernel (16, 10) vs (16, 512), step (2,) vs (). "
    "Dtype: params/half float32 vs bfloat16. The config has changed"
  ) in str(error.value)


def test_latest_and_best_are_kept(tmp_path):
  with Checkpointer(tmp_path, best_metric="val/acc@1") as checkpointer:
    for step, accuracy in enumerate([0.1, 0.5, 0.3, 0.2]):
      metrics = {"val/acc@1": accuracy}
      checkpointer.save(step, _state(step), metrics=metrics)
    checkpointer.wait()
    assert checkpointer.steps == [1, 3]
  # A new process remembers which one was best; saves between evaluations,
  # or with NaN, are never the best.
  with Checkpointer(tmp_path, best_metric="val/acc@1") as checkpointer:
    checkpointer.save(4, _state(4))
    checkpointer.save(5, _state(5), metrics={"val/loss": 1.0})
    checkpointer.save(6, _state(6), metrics={"val/acc@1": float("nan")})
    checkpointer.wait()
    assert checkpointer.steps == [1, 6]
    step, params, _ = load_params(tmp_path, step="best")
    assert step == 1
    _assert_bitwise_equal(params, trees.unflatten(trees.flatten(_params(1))))
    checkpointer.save(7, _state(7), metrics={"val/acc@1": 0.5})  # a tie
    checkpointer.wait()
    assert checkpointer.steps == [7]


def test_the_best_may_be_the_smallest(tmp_path):
  with Checkpointer(
    tmp_path, best_metric="loss", best_mode="min", keep_every_steps=4
  ) as checkpointer:
    for step, loss in enumerate([3.0, 1.0, float("inf"), 2.0, 5.0, 4.0], 1):
      checkpointer.save(step, {"w": jnp.ones(3)}, metrics={"loss": loss})
    checkpointer.wait()
    assert checkpointer.steps == [2, 4, 6]
  assert load_params(tmp_path, step="best", item="w")[0] == 2
  with pytest.raises(CheckpointError, match=r"no item 'params'.*has: w\."):
    load_params(tmp_path)


def test_load_params_reads_one_item_as_numpy(tmp_path):
  _save(tmp_path)
  for name in ("opt_state", "step"):  # it must not need the rest
    (tmp_path / "2" / name).rename(tmp_path / "2" / f"no_{name}")
  step, params, info = load_params(tmp_path)
  assert (step, info) == (2, {"seed": 2})
  expected = trees.unflatten(trees.flatten(_params(2)))  # without None
  _assert_bitwise_equal(params, expected)
  assert all(type(x) is np.ndarray for x in jax.tree.leaves(params))
  assert load_params(tmp_path, step=1)[0] == 1
  assert load_params(tmp_path, step=1, item="step")[1] == 1


def test_load_params_says_what_there_is(tmp_path):
  with pytest.raises(CheckpointError, match="there is no checkpoint in"):
    load_params(tmp_path / "absent")
  _save(tmp_path)
  with pytest.raises(
    CheckpointError, match=r"no step 9 in .*; it has \[1, 2\]"
  ):
    load_params(tmp_path, step=9)
  with pytest.raises(CheckpointError, match=r"has a best metric .*None"):
    load_params(tmp_path, step="best")
  _truncate(_largest_file(tmp_path / "2" / "params"))
  with pytest.raises(CheckpointError) as error:
    load_params(tmp_path)
  assert "params of step 2" in str(error.value)
  assert "Other steps there: [1]" in str(error.value)


def test_steps_only_go_forward(tmp_path):
  with Checkpointer(tmp_path) as checkpointer:
    checkpointer.save(5, _state())
    checkpointer.save(5, _state())  # the periodic save and the last one
    with pytest.raises(ValueError, match=r"cannot save step 4: .* step 5"):
      checkpointer.save(4, _state())
  with Checkpointer(tmp_path) as checkpointer:
    with pytest.raises(ValueError, match=r"cannot save step 5: .* step 5"):
      checkpointer.save(5, _state())
    checkpointer.restore(_abstract(_state()))
    checkpointer.save(5, _state())


@pytest.mark.parametrize(
  ("state", "message"),
  [
    ({"step": 3}, "state leaf step is a int; a state holds arrays only"),
    ({"a": {"b": np.zeros(2)}}, "a/b is float64, which JAX would restore as"),
    ({"key": jax.random.key(0)}, "key<fry>"),
  ],
)
def test_what_cannot_be_saved_is_refused(tmp_path, state, message):
  with Checkpointer(tmp_path) as checkpointer:
    with pytest.raises(TypeError, match=message):
      checkpointer.save(1, state)
    with pytest.raises(TypeError, match="info cannot be written as JSON"):
      checkpointer.save(1, {"a": jnp.ones(1)}, info={"x": jnp.ones(1)})
    with pytest.raises(ValueError, match="cannot be called 'info'"):
      checkpointer.save(1, {"info": jnp.ones(1)})
    checkpointer.save(1, {"a": jnp.ones(1)})


def test_a_directory_that_is_a_file(tmp_path):
  (tmp_path / "file").write_text("")
  for path in ("file", "file/below"):
    with pytest.raises(CheckpointError, match=r"cannot be written to .*file"):
      Checkpointer(tmp_path / path)


def test_a_directory_that_is_read_only(tmp_path):
  tmp_path.chmod(0o500)
  if os.access(tmp_path, os.W_OK):
    pytest.skip("this user may write anywhere")
  with pytest.raises(CheckpointError, match=r"cannot be written.*Permission"):
    Checkpointer(tmp_path)


def test_orbax_is_quiet(tmp_path):
  shown = []

  class Handler(python_logging.Handler):
    def emit(self, record):
      shown.append(record.pathname)

  handler = Handler(level=0)
  verbosity = logging.get_verbosity()
  logging.get_absl_logger().addHandler(handler)
  logging.set_verbosity(logging.INFO)
  try:
    _save(tmp_path, steps=[1])
    logging.info("ours")
  finally:
    logging.get_absl_logger().removeHandler(handler)
    logging.set_verbosity(verbosity)
  assert shown == [__file__]


_CHILD = """
  import sys, jax, jax.numpy as jnp, numpy as np
  from vitjax.checkpoint.checkpointer import Checkpointer, SaveError
  directory = sys.argv[1]
  def state(step, n=20_000):
    rng = np.random.default_rng(step)
    w = {f"w{i}": rng.normal(size=n).astype(np.float32) for i in range(8)}
    return {"params": jax.tree.map(jnp.asarray, w), "step": jnp.int32(step)}
"""


def _child(body, *args, **kwargs):
  code = textwrap.dedent(_CHILD) + textwrap.dedent(body)
  return subprocess.Popen(
    [sys.executable, "-W", "error", "-c", code, *map(str, args)],
    cwd=_ROOT,
    env=os.environ | {"JAX_PLATFORMS": "cpu"},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    **kwargs,
  )


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_a_failed_write_is_one_clear_error(tmp_path):
  # A limit on the size of files fails a write as a full disk does, and needs
  # no rights to set up.
  child = _child(
    """
    import resource, signal
    checkpointer = Checkpointer(directory)
    checkpointer.save(1, state(1))
    checkpointer.wait()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    unlimited = resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, unlimited))
    checkpointer.save(2, state(2, n=500_000))
    try:
      checkpointer.save(3, state(3))
    except SaveError as error:
      print(error)
    print(checkpointer.steps)
    resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
    checkpointer.save(4, state(4))  # room was made: it can go on
    checkpointer.close()
    """,
    tmp_path,
  )
  out, err = child.communicate()
  assert child.returncode == 0, err
  message, steps = out.splitlines()
  assert f"step 2 could not be written to {tmp_path}: File too" in message
  assert "MB are free there; one checkpoint takes up to 16.0 MB" in message
  assert "Step 1 is complete" in message
  assert steps == "[1]"
  assert "Event loop is closed" not in err and "Traceback" not in err
  assert [p.name for p in tmp_path.iterdir()] == ["4"]
  assert load_params(tmp_path)[0] == 4


@pytest.fixture
def failing_steps(monkeypatch):
  """Steps whose save fails, as on a network disk that comes and goes."""
  steps = set()
  original = ocp.CheckpointManager.save

  def save(self, step, *args, **kwargs):
    if step in steps:
      raise OSError(5, "Input/output error")
    return original(self, step, *args, **kwargs)

  monkeypatch.setattr(ocp.CheckpointManager, "save", save)
  return steps


def test_some_failed_saves_are_tolerated(
  tmp_path, failing_steps, warnings_logged
):
  failing_steps |= {2, 3, 5, 6, 7}
  with Checkpointer(tmp_path, max_failures=3) as checkpointer:
    for step in range(1, 7):
      checkpointer.save(step, _state(step))
      checkpointer.wait()
    # Two in a row, one that succeeded, two in a row.
    reported = [m.split(" could")[0] for m in warnings_logged]
    assert reported == [f"the checkpoint of step {i}" for i in (2, 3, 5, 6)]
    for message, count in zip(warnings_logged, (1, 2, 1, 2)):
      assert "Input/output error" in message
      assert f"failure {count} in a row; the run continues, and stops at 3" in (
        message
      )
    assert checkpointer.steps == [4]
    with pytest.raises(SaveError, match="of step 7 could not"):
      checkpointer.save(7, _state(7))


def test_the_last_save_may_not_fail(tmp_path, failing_steps):
  failing_steps |= {2}
  with Checkpointer(tmp_path, max_failures=3) as checkpointer:
    checkpointer.save(1, _state(1))
    with pytest.raises(SaveError, match="Step 1 is complete"):
      checkpointer.save(2, _state(2), is_last=True)
    checkpointer.save(3, _state(3), is_last=True)
    assert checkpointer.steps == [3]


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize(
  "kills", [1, pytest.param(8, marks=pytest.mark.slow)], ids=["one", "many"]
)
def test_a_kill_during_a_save_leaves_the_step_before(tmp_path, kills):
  for kill in range(kills):
    child = _child(
      """
      checkpointer = Checkpointer(directory)
      restored = checkpointer.restore(jax.eval_shape(lambda: state(0)))
      step = restored[0] if restored else 0
      if restored:
        expected = state(step)
        same = lambda a, b: np.testing.assert_array_equal(a, b, strict=True)
        jax.tree.map(same, restored[1], expected)
      print("from", step, flush=True)
      while True:
        step += 1
        checkpointer.save(step, state(step))
        print("saving", step, flush=True)
      """,
      tmp_path,
    )
    started = child.stdout.readline()
    assert started.startswith("from"), child.stderr.read()
    for _ in range(4):
      child.stdout.readline()
    time.sleep(0.013 * kill)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    with Checkpointer(tmp_path) as checkpointer:
      step = checkpointer.latest_step
    # Saves follow each other at once: when step n+1 began, n was complete.
    assert step >= int(started.split()[1]) + 3
    assert load_params(tmp_path)[0] == step


@pytest.mark.slow
@pytest.mark.multiprocess
def test_two_processes_fall_back_together(tmp_path):
  body = """
    import os, pathlib
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
    rank, port = int(sys.argv[2]), sys.argv[3]
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(f"localhost:{port}", 2, rank)
    from jax.experimental import multihost_utils
    mesh = jax.make_mesh((4,), ("fsdp",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, P("fsdp"))
    def placed(step):
      return {"params": jax.tree.map(
        lambda x: jax.make_array_from_callback(
          x.shape, sharding, lambda i: np.asarray(x)[i]),
        state(step)["params"])}
    checkpointer = Checkpointer(directory, keep_latest=3)
    for step in (1, 2):
      checkpointer.save(step, placed(step))
    checkpointer.wait()
    if rank == 0:
      files = [f for f in pathlib.Path(directory, "2").rglob("*")
               if f.is_file()]
      big = max(files, key=lambda f: f.stat().st_size)
      data = bytearray(big.read_bytes())
      data[len(data) // 2] ^= 1
      big.write_bytes(data)
    multihost_utils.sync_global_devices("damaged")
    abstract = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
      placed(0))
    step, restored, _ = checkpointer.restore(abstract)
    print(step, checkpointer.steps)
    checkpointer.save(2, placed(2))
    checkpointer.close()
    """
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    port = probe.getsockname()[1]
  children = [_child(body, tmp_path, rank, port) for rank in range(2)]
  for child in children:
    out, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    assert out.split("\n")[-2] == "1 [1]"
  assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "2", "2.damaged"]
  # Written by two processes, verified by one.
  step, params, _ = load_params(tmp_path)
  rng = np.random.default_rng(2)
  assert step == 2
  np.testing.assert_array_equal(
    params["w0"], rng.normal(size=20_000).astype(np.float32)
  )


def test_the_record_names_every_leaf(tmp_path):
  _save(tmp_path, steps=[3], best_metric="a")
  record = read_record(tmp_path, 3)
  assert record["step"] == 3 and record["best"]["metric"] == "a"
  leaf = record["items"]["params"]["head/kernel"]
  assert leaf["shape"] == [16, 512] and leaf["dtype"] == "float32"
  names = {name: list(leaves) for name, leaves in record["items"].items()}
  assert names == {n: trees.names(tree) for n, tree in _state().items()}
  text = (tmp_path / "3" / "info" / "metadata").read_text()
  json.loads(text, parse_constant=lambda c: pytest.fail(f"not JSON: {c}"))


def test_a_step_of_a_newer_version_is_not_damage(tmp_path):
  _save(tmp_path)
  file = tmp_path / "2" / "info" / "metadata"
  record = json.loads(file.read_text()) | {"format": 2, "vitjax": "9.0"}
  file.write_text(json.dumps(step_files._seal(record)))
  with Checkpointer(tmp_path, keep_latest=5) as checkpointer:
    with pytest.raises(ValueError, match=r"written by vitjax 9\.0, which this"):
      checkpointer.restore(_abstract(_state()))
  with pytest.raises(CheckpointError, match=r"written by vitjax 9\.0"):
    load_params(tmp_path)
