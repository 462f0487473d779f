"""Initialises a run from weights: a file, a published name or another run.

Parameters are those of the file, to the bit, with three exceptions: those in
`config.init.reinit` are re-initialised, position tables are resized to the
images of this run, and `config.init.channels` adapts the first kernels to
their channels.
"""

import contextlib
import pathlib
from collections.abc import Generator, Mapping

import jax

from vitjax import trained, trees, weights
from vitjax.config import places
from vitjax.config.schema import ConfigError, RunConfig
from vitjax.weights import files, npz, published
from vitjax.weights.hub import repository


def load(
  run: RunConfig,
  model,
  image_shape: tuple[int, ...],
  commits: Mapping[str, str] = {},
):
  """Parameters of `model` from `run.init.weights`.

  For a model with two towers, the weights may be given for each tower, such as
  {"img": "B_16.npz"}; parameters of no named tower are re-initialised.

  Args:
    run: its `init`, `pretrained_dir` and `seed` are read.
    model: the Linen module that is trained.
    image_shape: shape (b, h, w, c) of its images.
    commits: what to read instead of repositories of the hub, see `commits`.

  Returns:
    Nested dicts of float32 NumPy arrays.

  Raises:
    ConfigError: if the weights are not there or do not fit; says what to do.
  """
  init = run.init
  if isinstance(init.weights, str):
    return _load(
      run,
      "init.weights",
      commits.get(init.weights, init.weights),
      model,
      image_shape,
      init.reinit,
      init.ignore,
    )
  assert init.weights is not None  # else there is nothing to load
  towers = model.towers()
  if not towers:
    raise ConfigError(
      f"config.init.weights={dict(init.weights)} is for models with two "
      "towers. This model takes one file, run folder or published name."
    )
  if unknown := init.weights.keys() - towers.keys():
    raise ConfigError(
      f"config.init.weights names {sorted(unknown)}; the towers of this model "
      f"are {sorted(towers)}."
    )
  params = weights.initial(
    model,
    image_size=image_shape[1:3],
    channels=image_shape[3],
    key=jax.random.key(run.seed),
  )
  for name, source in init.weights.items():
    # Patterns are those of whole names, such as "img/head".
    reinit, ignore = (
      [p.removeprefix(f"{name}/") for p in ps if p.startswith(f"{name}/")]
      for ps in (init.reinit, init.ignore)
    )
    params[name] = _load(
      run,
      f"init.weights.{name}",
      commits.get(source, source),
      towers[name],
      image_shape,
      reinit,
      ignore,
    )
  return params


def commits(run: RunConfig, known: Mapping[str, str] = {}) -> dict[str, str]:
  """The repositories of the hub that `load` reads -> with their commits.

  Args:
    run: the config.
    known: commits that stay as they are.

  Raises:
    ConfigError: as `load`, if one of them cannot be read.
  """
  given = run.init.weights or {}
  found = {}
  for source in [given] if isinstance(given, str) else given.values():
    if repository.is_name(source):
      with _explained("init.weights", source):
        found[source] = known.get(source) or published.resolve(source)
  return found


def _load(run, key: str, source: str, model, image_shape, reinit, ignore):
  """Parameters of `model` from the source that `config.{key}` names."""
  options = {
    "image_size": tuple(image_shape[1:3]),
    "channels": image_shape[3],
    "channel_rule": run.init.channels,
    "reinit": reinit,
    "ignore": ignore,
    "key": jax.random.key(run.seed),
  }
  with _explained(key, source):
    # A file at gs:// is downloaded, and needs no package for that.
    suffix = npz.split_subtree(source)[0].suffix
    is_file = suffix in (".npz", ".safetensors", *files.TORCH)
    is_remote_run = source.startswith(("gs://", "s3://")) and not is_file
    folder = places.of(source) if is_remote_run else pathlib.Path(source)
    if folder.is_dir():
      metadata, params = trained.read_run(folder)
      return weights.fit(
        trees.flatten(params),
        model,
        source=repr(source),
        metadata=metadata,
        **options,
      )
    file = published.find(source, run.pretrained_dir)
    return weights.load(file, model, **options)


@contextlib.contextmanager
def _explained(key: str, source: str) -> Generator[None]:
  """Turns errors of weights that cannot be had into those of `config.{key}`."""
  try:
    yield
  except FileNotFoundError as e:
    raise ConfigError(
      f"config.{key}={source!r}: {e} Name another run folder, file or "
      f"published name with --config.{key}=..."
    ) from e
  except (ValueError, OSError, RuntimeError, ImportError) as e:
    raise ConfigError(f"config.{key}={source!r}: {e}") from e
