"""The documentation names things that exist, and its numbers are the code's."""

import importlib.util
import pathlib
import pkgutil
import re
import tomllib

import pytest

from vitjax import models, optim
from vitjax.config import schema

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
OURS = sorted(DOCS.rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "colabs" / "README.md", *OURS]
KINDS = ("Tutorial", "How-to", "Reference", "Explanation")
# A config file with its options, in any text; placeholders are in capitals.
CONFIG = re.compile(r"(?:\bconfigs/|--config=)(\w+)\.py(?::([^\s`\"]+))?")


def anchors(page):
  """Those that a heading gets: lower case, no signs, hyphens for spaces."""
  titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
  return {re.sub(r"[^\w -]", "", x.lower()).replace(" ", "-") for x in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda x: str(x.relative_to(ROOT)))
def test_links_lead_somewhere(page):
  for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
    if link.startswith("https://"):
      continue
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    assert target.exists(), link
    assert not anchor or anchor in anchors(target), link


def test_every_page_says_its_kind_and_is_listed_under_it():
  index = (DOCS / "README.md").read_text()
  listed = {
    title.rstrip("s"): re.findall(
      r"^\| \[.*?\]\((.*?)\)", section, re.MULTILINE
    )
    for title, section in re.findall(
      r"^## (.*?)\n(.*?)(?=^## |\Z)", index, re.MULTILINE | re.DOTALL
    )
  }
  assert set(listed) == set(KINDS)
  for page in OURS:
    if page == DOCS / "README.md":
      continue
    first = page.read_text().split("\n\n")[1]
    kind = re.match(r"\*([\w-]+)\.\*", first)
    assert kind and kind[1] in KINDS, f"{page.name}: {first}"
    assert page.relative_to(DOCS).as_posix() in listed[kind[1]], page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda x: str(x.relative_to(ROOT)))
def test_modules_and_files_exist(page):
  text = page.read_text()
  for path in re.findall(r"\bvitjax/[\w/]*\w(?:\.py)?", text):
    assert (ROOT / path).exists(), path
  for name in re.findall(r"\bvitjax(?:\.\w+)+", text):
    if not name.endswith((".ipynb", ".py")):
      pkgutil.resolve_name(name)


def test_the_commands_and_extras_exist():
  text = (DOCS / "commands.md").read_text()
  commands = re.findall(r"^\| `(vitjax\.\w+)[` ]", text, re.MULTILINE)
  assert len(commands) > 10
  for command in commands:
    assert importlib.util.find_spec(command), command
  with open(ROOT / "pyproject.toml", "rb") as f:
    extras = tomllib.load(f)["project"]["optional-dependencies"]
  table = text.partition("## Extras")[2].partition("## ")[0]
  for extra in extras:
    assert f"`{extra}`" in table, extra


@pytest.mark.parametrize("page", PAGES, ids=lambda x: str(x.relative_to(ROOT)))
def test_configs_can_be_read(page):
  text = page.read_text().replace(".py:\\\n", ".py:")
  theirs = re.compile(r"^\| (big_vision|vision_transformer): [^|]*", re.M)
  for name, options in CONFIG.findall(theirs.sub("", text)):
    module = importlib.import_module(f"configs.{name}")
    # Those of a placeholder, or of a run that the reader has.
    if not re.search(r"[A-Z]{3}|\.\.\.|[$]|^runs/", options):
      module.get_config(options.rstrip(".") or None)


@pytest.mark.parametrize(
  "page, line, files",
  [
    # "  resized            1 arrays  pos_embedding (1, 197, 192) -> ..."
    ("models.md", r"^  ([a-z -]+?) +\d+ arrays", ["weights/fitting.py"]),
    # "  accumulation x4   fits, 19.840 GiB"
    (
      "scale.md",
      r"^ *(memory|accumulation x|remat|advice)\S*(?: dots)? {2,}([a-z ]+)",
      ["plan/table.py", "plan/planning.py", "plan/changes.py"],
    ),
  ],
)
def test_output_on_a_page_is_what_the_program_prints(page, line, files):
  source = "".join((ROOT / "vitjax" / file).read_text() for file in files)
  parts = re.findall(line, (DOCS / page).read_text(), re.M)
  assert len(parts) > 3
  for part in parts:
    for text in (part,) if isinstance(part, str) else part:
      assert text.strip() in source, text


def test_the_tests_of_failures_exist():
  text = (DOCS / "failures.md").read_text()
  tests = re.findall(r"`(\w+/\w+\.py)(?:::(\w+)(\.\.\.)?)?`", text)
  assert len(tests) > 20
  for path, name, cut in tests:
    code = (ROOT / "tests" / path).read_text()
    end = "" if cut or not name else r"\("
    assert re.search(rf"^def {name}{end}", code, re.MULTILINE), (path, name)


def test_the_recipes_to_reproduce_can_be_read():
  text = (ROOT / "docs" / "reproduce.md").read_text()
  table = text.partition("| paper |")[2].partition("\n## ")[0]
  found = re.findall(r"`(\w+)\.py(?::([^`]+))?`", table)
  assert len(found) >= 9
  for name, options in found:
    if "..." not in options:
      module = importlib.import_module(f"configs.{name}")
      module.get_config(options or None)


def test_the_keys_to_migrate_to_exist():
  text = (ROOT / "docs" / "migration.md").read_text()
  tables = text.partition("## Config keys")[2].partition("\nDurations")[0]
  ours = [x.split("|")[-2] for x in tables.splitlines() if x.startswith("|")]
  keys = re.findall(r"`([a-z_]+(?:\.[\w]+)*)(?==[^`]*`|`)", "".join(ours))
  assert len(keys) > 20
  options = set()
  for name in ("vit", "mixer", "two_tower"):
    options |= {*models.options(name)}
  for key in keys:
    *section, last = key.removeprefix("model.").split(".")
    last = re.sub("^every_steps$", "every", last)
    if section == ["optim"]:
      known = {*optim.options("adam"), *optim.options("sgd")}
    elif section:
      name = {"init": "Init", "evals": "Eval", "checkpoint": "Checkpoint"}
      known = getattr(schema, name[section[0]]).__dataclass_fields__
    else:
      known = {*options, *schema.RunConfig.__dataclass_fields__, "sgd", "name"}
    assert last in known, key
