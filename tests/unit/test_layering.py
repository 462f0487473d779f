"""Who imports whom: what keeps the parts of the program apart."""

import ast
import functools
import pathlib
import subprocess
import sys
import textwrap

ROOT = pathlib.Path(__file__).parents[2]
FOLDERS = ("vitjax", "configs", "scripts", "tests")
SOURCES = sorted(
  path for name in FOLDERS for path in ROOT.glob(f"{name}/**/*.py")
)

# Unit -> the units that it may import besides itself; a unit may import only
# units that stand before it. A unit is a module or a package of vitjax/, and
# each is listed: one that is not fails the test.
LAYERS = {
  "__version__": "",
  "config": "",
  "trees": "config",
  "parallel": "config trees",
  "losses": "parallel",
  "mixing": "",
  "objectives": "",
  "models": "config parallel trees",
  "data": "config",
  "checkpoint": "__version__ config trees",
  "run_folder": "__version__ config data parallel",
  "weights": "config models data trees",
  "plots": "config models",
  "optim": "config models trees",
  "step": "models objectives optim trees",
  "evaluators": "config data losses parallel",
  "checks": "config data evaluators losses models optim run_folder",
  "trained": """checkpoint config data losses models run_folder trees
    weights""",
  "pretrained": "config trained trees weights",
  "distill": "config data losses models parallel trained trees weights",
  "program": """config data distill evaluators losses mixing models objectives
    optim parallel step""",
  "start": """checkpoint config data distill parallel pretrained program
    run_folder step""",
  "train": """checkpoint checks config data evaluators parallel program
    run_folder start step weights""",
  "compare": "config run_folder",
  "predict": "__version__ config data weights",
  "demo": "__version__ config data plots predict trained",
  "serve": "__version__ config data predict trained",
  "doctor": """__version__ checkpoint checks config data models parallel program
    run_folder start step trees""",
  "evaluate": """checkpoint checks config data evaluators losses parallel
    run_folder step trained""",
  "graphs": "__version__ config data models plots",
  "web": "config data graphs weights",
  "export": "__version__ config graphs run_folder web weights",
  "pareto": "__version__ config models parallel plots run_folder weights",
  "plan": "checks config data losses models parallel program",
  "report": """__version__ config data evaluate evaluators parallel plots
    run_folder step trained weights""",
  "soup": "config evaluate models trained trees weights",
  "main": "checks config parallel run_folder train",
  "sweep": "checks config main plots run_folder train",
  "finetune": """checks config data evaluate export main parallel program report
    run_folder start train weights""",
  "__main__": "__version__ config",
}


def module_of(path: pathlib.Path) -> str:
  """vitjax/data/sources/folder.py -> vitjax.data.sources.folder"""
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> list[str]:
  return [module_of(p) for p in SOURCES if ROOT / "vitjax" in p.parents]


@functools.cache
def imports(path: pathlib.Path) -> list[tuple[int, str]]:
  """(line, dotted name) of all that a file imports, also inside functions."""
  found = []
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.Import):
      found += ((node.lineno, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f"{path}:{node.lineno}: a relative import"
      found += (
        (node.lineno, f"{node.module}.{alias.name}") for alias in node.names
      )
  return found


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


def unit_of(module: str) -> str:
  """vitjax.data.pipeline -> data; the public names of vitjax are its own."""
  return (module.split(".") + ["__version__"])[1]


def test_every_unit_is_listed():
  assert {unit_of(module) for module in modules()} == set(LAYERS)


def test_the_layers_import_downwards():
  # `import vitjax` is for its public names, which import when first used.
  def is_wrong(module, name):
    unit = unit_of(module)
    if not name.startswith("vitjax."):
      return False
    allowed = [unit, *LAYERS[unit].split()]
    return not is_below(name, *(f"vitjax.{x}" for x in allowed))

  assert is_wrong("vitjax.trees", "vitjax.models.vit")
  assert is_wrong("vitjax.data.folder", "vitjax.train")
  assert not is_wrong("vitjax.train", "vitjax.data")
  assert not violations(is_wrong)
  order = list(LAYERS)
  for unit, allowed in LAYERS.items():
    above = set(allowed.split()) - set(order[: order.index(unit)])
    assert not above, f"{unit} stands before {above}, which it may import"


def graph() -> dict[str, set[str]]:
  """Module -> the modules that it imports, also inside functions."""
  known = set(modules())
  edges = {module: set() for module in known}
  for path in SOURCES:
    if ROOT / "vitjax" in path.parents:
      for _, name in imports(path):
        while name not in known and "." in name:
          name = name.rpartition(".")[0]
        if name in known - {"vitjax", module_of(path)}:
          edges[module_of(path)].add(name)
  return edges


def circles(edges: dict[str, set[str]]) -> list[set[str]]:
  """Sets of modules that import one another, directly or through others."""
  reached = {}
  for start in edges:
    seen, todo = set(), [*edges[start]]
    while todo:
      if (module := todo.pop()) not in seen:
        seen.add(module)
        todo += edges[module]
    reached[start] = seen
  found = []
  for module, seen in reached.items():
    circle = {other for other in seen if module in reached[other]}
    if module in seen and circle not in found:
      found.append(circle)
  return found


def test_no_modules_import_one_another():
  assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [
    {"a", "b", "c"}
  ]
  edges = graph()
  rooms = sorted(set(map(unit_of, edges)) - {"__version__"})
  arrows = sum(map(len, edges.values()))
  found = circles(edges)
  print(f"\n{len(rooms)} rooms: {' '.join(rooms)}")
  print(f"{len(edges)} modules, {arrows} arrows, {len(found)} circles: {found}")
  assert not found
  alone = [*(ROOT / "vitjax").glob("*.py")]
  assert len(alone) <= 14, f"{len(alone)} modules beside packages"


def test_only_commands_that_train_import_the_training():
  # What others need belongs into a module below.
  def is_wrong(module, name):
    return is_below(name, "vitjax.main", "vitjax.train") and not is_below(
      module, "vitjax.main", "vitjax.finetune", "vitjax.sweep"
    )

  assert not violations(is_wrong)


def test_only_the_input_and_the_curves_use_tensorflow():
  def is_wrong(module, name):
    banned = {
      "vitjax.data.tf": (),
      "vitjax.run_folder.trackers.tensorboard": ("tensorflow_datasets",),
    }.get(module, ("tensorflow", "tensorflow_datasets", "tensorboard"))
    if is_below(module, "vitjax.data") and banned:
      banned = ("tensorflow", "tensorboard")  # tfds comes after data.tf
    return is_below(name, *banned)

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
        name,
        "vitjax.config.common",
        "vitjax.weights.zoo",
        "vitjax.weights.augreg",
        "vitjax.weights.published",  # for a repository of the hub only
      ), f"{path}:{line}: {name}"


def test_the_records_of_published_files_are_light():
  # Configs read them.
  owners = ("vitjax.weights.zoo", "vitjax.weights.augreg")
  allowed = sys.stdlib_module_names

  def is_wrong(module, name):
    is_light = module == "vitjax.weights" or is_below(module, *owners)
    return is_light and not (
      name.split(".")[0] in allowed or is_below(name, *owners)
    )

  assert not violations(is_wrong)
  code = (
    "import sys; from configs import transfer; transfer.get_config();"
    "print({'jax', 'numpy', 'tensorflow', 'flax'} & {*sys.modules})"
  )
  out = subprocess.run(
    [sys.executable, "-c", code],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  assert out.stdout == "set()\n"


def test_every_module_imports_and_the_light_ones_stay_light():
  # In a process of its own: this one has loaded everything already.
  script = """
    import importlib, sys

    def check(*absent):
      loaded = [name for name in absent if name in sys.modules]
      assert not loaded, f"already loaded: {loaded}"

    import vitjax
    check("jax", "tensorflow", "flax", "numpy")
    import vitjax.config.resolving, vitjax.compare
    check("jax", "tensorflow")
    import vitjax.models, vitjax.weights
    vitjax.models.list()
    check("tensorflow")
    import vitjax.trained, vitjax.optim, vitjax.step, vitjax.run_folder
    check("tensorflow")
    import tempfile, vitjax.run_folder.writer, vitjax.train
    with tempfile.TemporaryDirectory() as folder:
      vitjax.run_folder.writer.MetricsWriter(
        folder, trackers={"tensorboard": {}}
      ).close()
    check("keras", "matplotlib", "sklearn")  # these take seconds
    import jax
    jax.config.update("jax_num_cpu_devices", 2)  # refused after a backend

    for name in sys.argv[1:]:
      importlib.import_module(name)  # two commands in one process, too
    jax.config.update("jax_num_cpu_devices", 3)
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
