"""The command `vitjax`, the shipped configs, and how commands read a line."""

import json
import os
import pathlib
import re
import subprocess
import sys
import textwrap

import pytest

from configs import lit
from vitjax import __main__ as command
from vitjax.config import command_line, common, shipped
from vitjax.data import tokenizers

ROOT = pathlib.Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
# Prints the config of a command line, as `vitjax train` resolves it.
RESOLVE = """
from vitjax.config import command_line, flag, plain, resolving

def main(argv):
  print(plain.to_json(resolving.resolve(flag.read())))

command_line.run(main, flag.define, flag.parse_flags)
"""
OWN = """
import mixture  # a file beside this one
import quickstart  # a shipped config
from vitjax.config import common

def get_config(arg=None):
  options = common.parse_arg(arg, batch=16)
  config = quickstart.get_config()
  config.input.batch_size = options.batch
  config.mixing.mixup_alpha = mixture.ALPHA
  return config
"""


def python(*arguments, cwd, **environment) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, *map(str, arguments)],
    cwd=cwd,
    env=ENVIRONMENT | environment,
    capture_output=True,
    text=True,
  )


def resolve(folder, *arguments) -> dict:
  """The config of a command line in a folder outside of the checkout."""
  result = python("-c", RESOLVE, *arguments, cwd=folder)
  assert result.returncode == 0, result.stderr
  return json.loads(result.stdout)


def refused(*arguments, cwd, **environment) -> str:
  result = python("-m", *arguments, cwd=cwd, **environment)
  assert result.returncode == 1, result.stdout
  assert "Traceback" not in result.stderr, result.stderr
  return result.stderr


def test_help_imports_nothing_slow(tmp_path):
  result = python("-X", "importtime", "-m", "vitjax", "--help", cwd=tmp_path)
  for name in command.COMMANDS:
    assert re.search(rf"^  {name} ", result.stdout, re.MULTILINE)
  loaded = {line.split("|")[-1].strip() for line in result.stderr.splitlines()}
  assert "runpy" in loaded
  assert not loaded & {"absl", "jax", "ml_collections", "numpy", "tensorflow"}


def test_a_command_is_its_module(tmp_path):
  for name, (module, _) in command.COMMANDS.items():
    assert module in ("vitjax.main", "vitjax.config", f"vitjax.{name}")
  result = python("-m", "vitjax", "export", "--help", cwd=tmp_path)
  assert result.returncode == 0
  assert "--layout" in result.stdout and "vitjax.export" in result.stdout
  text = refused("vitjax", "export", "--lay=x", cwd=tmp_path)
  assert text.startswith("vitjax.export: ")
  text = refused("vitjax", "trian", cwd=tmp_path)
  assert "'trian' is not a command. Did you mean 'train'?" in text


def test_the_list_says_what_each_recipe_is(tmp_path):
  result = python("-m", "vitjax", "configs", cwd=tmp_path)
  lines = result.stdout.splitlines()
  files = sorted(x.name for x in (ROOT / "configs").glob("[!_]*.py"))
  assert [line.split()[0] for line in lines] == files
  for name, text in shipped.summaries().items():
    assert len(text) > 20 and text.endswith("."), f"{name}: {text}"


def test_a_copy_of_a_shipped_config(tmp_path):
  file = tmp_path / "quickstart.py"
  assert shipped.copy("quickstart", str(tmp_path)) == file
  assert file.read_bytes() == (ROOT / "configs/quickstart.py").read_bytes()
  file.write_text("mine")
  arguments = ("vitjax", "configs", "copy", "quickstart.py")
  text = refused(*arguments, tmp_path, cwd=tmp_path)
  assert f"{file} exists and was not changed" in text
  assert file.read_text() == "mine"
  text = refused("vitjax", "configs", "copy", "quikstart.py", ".", cwd=tmp_path)
  assert "Did you mean 'quickstart.py'?" in text


def test_a_shipped_config_is_found_everywhere(tmp_path):
  at_home = resolve(ROOT, "--config=configs/lit.py:smoke")
  assert resolve(tmp_path, "--config=lit.py:smoke") == at_home
  assert resolve(tmp_path, "--config=configs/lit.py:smoke") == at_home


def test_a_shipped_config_in_python(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  options = "vocab=/path/vocab.txt,batch=64"
  got = shipped.load(f"lit.py:{options}")
  assert got.to_dict() == lit.get_config(options).to_dict()


def test_the_vocabulary_of_a_shipped_config(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert (
    tokenizers.bert(common.CAPTIONS_VOCAB)("dress")[0, 1] == 147
  )  # its line, from 0


def test_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
  (tmp_path / "quickstart.py").write_text("")
  monkeypatch.chdir(tmp_path)
  assert shipped.find("quickstart.py") == pathlib.Path("quickstart.py")
  assert shipped.find("./configs/no.py") == pathlib.Path("configs/no.py")
  other = str(tmp_path / "other/quickstart.py")
  assert shipped.find(other) == pathlib.Path(other)  # a slip, and no wish


def test_the_config_that_the_docs_show(tmp_path):
  text = (ROOT / "docs/extend.md").read_text()
  (tmp_path / "small.py").write_text(
    text.partition("# my_configs/small.py")[2].partition("```")[0]
  )
  got = resolve(tmp_path, "--config=small.py:data=folder:images")
  assert got["input"]["data"] == "folder:images"
  assert got["optim"]["learning_rate"] == 1e-3


def test_a_config_of_ones_own(tmp_path):
  folder = tmp_path / "mine"
  folder.mkdir()
  (folder / "own.py").write_text(OWN)
  (folder / "mixture.py").write_text("ALPHA = 0.3")
  got = resolve(tmp_path, "--config=mine/own.py:batch=32")
  assert got["input"]["batch_size"] == 32
  assert got["mixing"]["mixup_alpha"] == 0.3
  assert got["model"]["name"] == "vit"


@pytest.mark.parametrize(
  ("line", "part"),
  [
    ("from configs import common", "`from vitjax.config import common`"),
    ("import configs.common", "`from vitjax.config import common`"),
    (
      "import nothing_such",
      "No module named 'nothing_such'. A config file can",
    ),
  ],
)
def test_an_import_that_fails_in_a_config(tmp_path, line, part):
  (tmp_path / "old.py").write_text(f"{line}\ndef get_config(): pass\n")
  result = python("-c", RESOLVE, "--config=old.py", cwd=tmp_path)
  assert result.returncode == 1
  assert part in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
  ("body", "part"),
  [
    ("return {}['a']", "mine.py, line 3: KeyError: 'a'"),
    ("return None", "get_config of mine.py returned None instead of a"),
    ("return 3", "get_config of mine.py returned 3 instead of a"),
    ("raise ValueError('odd')", ": odd"),
    ("return open('/no/such')", "No such file or directory: '/no/such'"),
  ],
)
def test_a_config_that_fails(tmp_path, body, part):
  (tmp_path / "mine.py").write_text(f"\ndef get_config():\n  {body}\n")
  text = refused("vitjax", "train", "--config=mine.py", cwd=tmp_path)
  assert part in text


@pytest.mark.parametrize(
  ("override", "path", "value"),
  [
    ("total_epochs=0.05", "total_epochs", 0.05),
    ("total_epochs=3", "total_epochs", 3),
    ("pretrained_dir=/x", "pretrained_dir", "/x"),
    ("pretrained_dir=~/x", "pretrained_dir", os.path.expanduser("~/x")),
    ("pretrained_dir=None", "pretrained_dir", None),
    ("checkpoint.best_metric=None", "checkpoint.best_metric", None),
    ("evals.test=None", "evals", {}),
    ("mesh.model=-1", "mesh.model", -1),
  ],
)
def test_overrides(tmp_path, override, path, value):
  (tmp_path / "mine.py").write_text(
    textwrap.dedent("""
      import quickstart

      def get_config():
        config = quickstart.get_config()
        config.pretrained_dir = None
        config.checkpoint = {"best_metric": "test/acc@1"}
        return config
    """)
  )
  got = resolve(tmp_path, "--config=mine.py", f"--config.{override}")
  for key in path.split("."):
    got = got[key]
  assert got == value and type(got) is type(value)


def test_a_home_folder_in_a_config(tmp_path):
  (tmp_path / "mine.py").write_text(
    "import quickstart\n"
    "def get_config():\n"
    "  config = quickstart.get_config()\n"
    "  config.init = {'weights': '~/weights.npz'}\n"
    "  return config\n"
  )
  got = resolve(tmp_path, "--config=mine.py")
  assert got["init"]["weights"] == os.path.expanduser("~/weights.npz")


def test_the_home_folder(monkeypatch):
  monkeypatch.setenv("HOME", "/home/me")
  argv = ["--workdir=~/x", "--models=~/a,~/b", "~/c.jpg", "--model=~", "-x=~/"]
  assert command_line.expand_home(argv) == [
    "--workdir=/home/me/x",
    "--models=/home/me/a,/home/me/b",
    "/home/me/c.jpg",
    "--model=/home/me",
    "-x=/home/me/",
  ]
  config = "--config=~/transfer.py:~/w.npz,weights=~/x,data=folder:~/images"
  assert command_line.expand_home([config]) == [
    "--config=/home/me/transfer.py:/home/me/w.npz,weights=/home/me/x,"
    "data=folder:~/images"  # by the data source
  ]
  same = ["a~/b", "--texts=~100 m", "--model=~other/x", "--x=a b~/"]
  assert command_line.expand_home(same) == same


@pytest.mark.parametrize(
  ("arguments", "parts"),
  [
    (["--config.modle.x=3"], ["key that the config lacks: 'modle'"]),
    (["--config.sed=3"], ["config.sed is not a key. Did you mean 'seed'?"]),
    (["--config.seed=0.5"], ["config.seed=0.5 (float) must be int."]),
    (["--workdir=/proc/x"], ["--workdir=/proc/x: cannot write into /proc"]),
    (["--workdir=/dev/null/x"], ["cannot write into /dev/null (Not a dir"]),
    (["--config.pretrained_dir", "/x"], ["behind an equals sign"]),
  ],
  ids=lambda x: x[0],
)
def test_errors_that_need_no_slow_imports(tmp_path, arguments, parts):
  code = """
import runpy, sys
sys.modules["jax"] = sys.modules["tensorflow"] = None  # cannot be imported
runpy.run_module("vitjax.main", run_name="__main__", alter_sys=True)
"""
  result = python(
    "-c", code, "--config=quickstart.py", *arguments, cwd=tmp_path
  )
  assert result.returncode == 1
  assert "Traceback" not in result.stderr, result.stderr
  for part in parts:
    assert part in result.stderr
  assert not [*tmp_path.iterdir()]


def test_a_gpu_that_is_not_there(tmp_path):
  code = textwrap.dedent("""
    from vitjax.config import command_line

    def main(argv):
      import jax
      jax.devices()

    command_line.run(main)
  """)
  result = python("-c", code, cwd=tmp_path, JAX_PLATFORMS="cuda")
  assert result.returncode == 1
  assert result.stderr.count("\n") == 1
  for part in ("JAX_PLATFORMS='cuda'", "`unset JAX_PLATFORMS`"):
    assert part in result.stderr


@pytest.mark.slow
def test_libraries_point_to_their_commands(tmp_path):
  for name, part in (
    ("vitjax.train", "python -m vitjax.main --config=FILE"),
    ("vitjax.data.prepare", "python -m vitjax.data prepare imagenet"),
  ):
    assert part in refused(name, cwd=tmp_path)
