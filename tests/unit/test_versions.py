"""The files of requirements fit pyproject.toml, and the page about them."""

import pathlib
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[2]
# Where the tests run; markers of platforms choose between packages.
PLACE = {
  "platform_system": "Linux",
  "platform_machine": "x86_64",
  "python_full_version": "3.13.0",
  "python_version": "3.13",
}
with open(ROOT / "pyproject.toml", "rb") as file:
  PROJECT = tomllib.load(file)["project"]


def parse(lines) -> list[Requirement]:
  """Requirements of the tested platform; comments and blank lines are none."""
  found = [
    Requirement(line) for line in lines if line.strip() and line[0] != "#"
  ]
  return [x for x in found if x.marker is None or x.marker.evaluate(PLACE)]


def pinned(name: str) -> dict[str, str]:
  """Package -> version of a file of requirements, which gives exact ones."""
  versions = {}
  for requirement in parse((ROOT / name).read_text().splitlines()):
    (specifier,) = requirement.specifier
    assert specifier.operator == "==", f"{name}: {requirement}"
    versions[canonicalize_name(requirement.name)] = specifier.version
  return versions


def needed(extra: str | None) -> list[Requirement]:
  """What pyproject.toml asks for, with all extras that `extra` includes."""
  if extra is None:
    return parse(PROJECT["dependencies"])
  found = []
  for requirement in parse(PROJECT["optional-dependencies"][extra]):
    if requirement.name == "vitjax":
      found += [x for part in requirement.extras for x in needed(part)]
    else:
      found.append(requirement)
  return found


def unmet(requirements, versions) -> list[str]:
  found = []
  for requirement in requirements:
    version = versions.get(canonicalize_name(requirement.name))
    if version is None or version not in requirement.specifier:
      found.append(f"{requirement}: {version}")
  return found


def test_a_package_that_is_missing_or_too_old_is_found():
  versions = {"ml-collections": "1.0", "numpy": "2.1"}
  asked = parse(["ml_collections>=1.1", "numpy>=2.0", "jax>=0.10", "# no"])
  assert unmet(asked, versions) == [
    "ml_collections>=1.1: 1.0",
    "jax>=0.10: None",
  ]


def test_the_pinned_versions_are_within_the_bounds():
  assert not unmet(needed(None), pinned("requirements.txt"))


def test_the_newest_versions_are_all_that_the_tests_install():
  versions = pinned("requirements-newest.txt")
  assert not unmet(needed(None) + needed("test"), versions)


@pytest.mark.parametrize(
  "name", ["requirements.txt", "requirements-newest.txt"]
)
def test_the_page_gives_the_versions_of_the_files(name):
  page = (ROOT / "docs" / "versions.md").read_text()
  (row,) = re.findall(rf"^\| `{re.escape(name)}`.*$", page, re.MULTILINE)
  given = re.findall(r"\b(jax|flax) (\d[\d.]*\d)", row)
  assert len(given) == 2
  versions = pinned(name)
  assert dict(given) == {key: versions[key] for key, _ in given}
