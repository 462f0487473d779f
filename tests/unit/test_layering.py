"""Who imports whom: what keeps the parts of the program apart."""

import ast
import pathlib
import subprocess
import sys
import textwrap
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[2]
FOLDERS = ("vitjax", "configs", "scripts", "tests")
SOURCES = sorted(
  path for name in FOLDERS for path in ROOT.glob(f"{name}/**/*.py")
)

# Module -> the modules of vitjax that it may import besides its own package.
# A module that is not here is a command, or shared by the commands: it may
# import everything, and no module that is here may import it.
LAYERS = {
  "attention": "models",
  "checkpoint": "checksums orbax_noise step_files trees",
  "checksums": "trees sharding",
  "command_line": "",
  "compare": "command_line config record",
  "config": "trees",
  "data": "command_line sharding tokenizers",
  "drawing": "",
  "evaluators": "data losses tokenizers trees sharding",
  "history": "config record",
  "losses": "trees",
  "metrics": "progress record trees sharding",
  "mixing": "trees",
  "models": "sharding",
  "objectives": "losses trees",
  "optim": "models trees sharding config",
  "orbax_noise": "",
  "preemption": "",
  "progress": "",
  "record": "",
  "run_folder": "config tokenizers",
  "sharding": "trees",
  "step": "objectives optim trees sharding",
  "step_files": "checksums trees",
  "tokenizers": "",
  "trees": "",
  "weights": "trees sharding tokenizers",
}


def module_of(path: pathlib.Path) -> str:
  """vitjax/data/folder.py -> vitjax.data.folder"""
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> list[str]:
  return [module_of(p) for p in SOURCES if ROOT / "vitjax" in p.parents]


def imports(path: pathlib.Path) -> Iterator[tuple[int, str]]:
  """(line, dotted name) of all that a file imports, also inside functions."""
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.Import):
      yield from ((node.lineno, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f"{path}:{node.lineno}: a relative import"
      yield from (
        (node.lineno, f"{node.module}.{alias.name}") for alias in node.names
      )


def violations(is_wrong) -> list[str]:
  """Lines of vitjax whose import `is_wrong(importing module, imported)`."""
  found = []
  for path in SOURCES:
    if ROOT / "vitjax" not in path.parents:
      continue
    for line, name in imports(path):
      if is_wrong(module_of(path), name):
        found.append(f"{path.relative_to(ROOT)}:{line}: {name}")
  return found


def is_below(name: str, *packages: str) -> bool:
  return any(name == p or name.startswith(f"{p}.") for p in packages)


def test_every_file_parses():
  assert len(SOURCES) > 50
  for path in SOURCES:
    compile(path.read_text(encoding="utf-8"), path, "exec", dont_inherit=True)


def test_the_layers_import_downwards():
  def is_wrong(module, name):
    part = (module.split(".") + [""])[1]
    if part not in LAYERS or not name.startswith("vitjax."):
      return False
    allowed = [part, *LAYERS[part].split(), "__version__"]
    return not is_below(name, *(f"vitjax.{x}" for x in allowed))

  assert is_wrong("vitjax.trees", "vitjax.models.vit")
  assert is_wrong("vitjax.data.folder", "vitjax.train")
  assert not is_wrong("vitjax.train", "vitjax.data")
  assert not violations(is_wrong)


def test_nothing_imports_the_training():
  # It is there for its command; what others need belongs into a module below.
  def is_wrong(module, name):
    return is_below(name, "vitjax.main", "vitjax.train") and (
      module != "vitjax.main"
    )

  assert not violations(is_wrong)


def test_only_the_input_and_the_curves_use_tensorflow():
  def is_wrong(module, name):
    allowed = is_below(module, "vitjax.data", "vitjax.metrics")
    return not allowed and is_below(
      name, "tensorflow", "tensorflow_datasets", "tensorboard"
    )

  assert not violations(is_wrong)


def test_only_the_models_use_flax():
  def is_wrong(module, name):
    if is_below(module, "vitjax.models"):
      return is_below(name, "flax") and not is_below(name, "flax.linen")
    return is_below(name, "flax")

  assert not violations(is_wrong)


def test_configs_load_in_no_time():
  allowed = {*sys.stdlib_module_names, "ml_collections"}
  for path in (p for p in SOURCES if p.parent == ROOT / "configs"):
    for line, name in imports(path):
      assert name.split(".")[0] in allowed or is_below(
        name, "configs.common"
      ), f"{path}:{line}: {name}"


def test_every_module_imports_and_the_light_ones_stay_light():
  # In a process of its own: this one has loaded everything already.
  script = """
    import importlib, sys

    def check(*absent):
      loaded = [name for name in absent if name in sys.modules]
      assert not loaded, f"already loaded: {loaded}"

    import vitjax
    check("jax", "tensorflow", "flax", "numpy")
    import vitjax.config, vitjax.compare
    check("jax", "tensorflow")
    import vitjax.models, vitjax.weights
    vitjax.models.list()
    check("tensorflow")
    import vitjax.trained, vitjax.optim, vitjax.step, vitjax.run_folder
    check("tensorflow")
    import tempfile, vitjax.metrics, vitjax.train
    with tempfile.TemporaryDirectory() as folder:
      vitjax.metrics.MetricsWriter(folder).close()
    check("keras", "matplotlib", "sklearn")  # these take seconds
    from jax._src import xla_bridge
    assert not xla_bridge.backends_are_initialized(), "a backend was started"

    from absl import flags
    for name in sys.argv[1:]:
      importlib.import_module(name)
      # Commands define the same flags, and never meet in one process.
      for flag in list(flags.FLAGS):
        if name == flags.FLAGS.find_module_defining_flag(flag):
          delattr(flags.FLAGS, flag)
    assert not xla_bridge.backends_are_initialized(), "a backend was started"
  """
  result = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(script), *modules()],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr


def test_help_is_quick_and_useful():
  result = subprocess.run(
    [sys.executable, "-X", "importtime", "-m", "vitjax.main", "--help"],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0
  for part in ("--config=configs/plain_vit.py:s16", "--workdir", "Exit codes"):
    assert part in result.stdout
  loaded = {line.split("|")[-1].strip() for line in result.stderr.splitlines()}
  assert "ml_collections" in loaded
  assert not loaded & {"jax", "tensorflow", "flax", "numpy"}
