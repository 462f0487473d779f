"""Which members of a soup are averaged, and what is refused."""

import numpy as np
import pytest

from tests import run_folders
from vitjax import trained, trees, weights
from vitjax.soup import averaging


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  return run_folders.make_file(tmp_path_factory.mktemp("soup") / "a.npz")


def changed(file, name, factor=1.0, **metadata):
  """The model of a file with other weights or another description."""
  model = trained.load(file)
  flat = trees.flatten(model.params)
  params = trees.unflatten({k: np.float32(factor) * x for k, x in flat.items()})
  out = file.with_name(name)
  about = {**model.metadata, **metadata}
  weights.save(out, params, model.model, metadata=about)
  return str(out)


def test_the_mean_is_a_model_that_says_what_it_is_made_of(file):
  names = [str(file), changed(file, "b.npz", 3.0)]
  soup = averaging.uniform(averaging.read(names))
  first = trees.flatten(trained.load(file).params)
  for name, x in trees.flatten(soup.params).items():
    np.testing.assert_allclose(x, 2 * first[name], rtol=1e-6)
    assert x.dtype == np.float32
  about = soup.metadata["soup"]
  assert about["kind"] == "uniform"
  assert [m["model"] for m in about["members"]] == names
  assert "checksums" not in soup.metadata and soup.metadata["class_names"]


def test_equal_members_make_themselves(file):
  names = [str(file), *(changed(file, f"{i}.npz") for i in range(2))]
  soup = averaging.uniform(averaging.read(names))
  for name, x in trees.flatten(trained.load(file).params).items():
    np.testing.assert_array_equal(trees.flatten(soup.params)[name], x)


def test_greedy_keeps_what_does_not_make_it_worse(file):
  names = [changed(file, f"g{i}.npz", i) for i in (1.0, 2.0, 6.0, 4.0)]
  members = averaging.read(names)
  start = trees.flatten(members[0].model.params)
  # The nearer the factor is to 3.4, the better: 4, 2, 1, 6 alone.
  values = []

  def score(params):
    kernel = trees.flatten(params)["embedding/kernel"]
    values.append(np.mean(kernel / start["embedding/kernel"]))
    return -abs(values[-1] - 3.4)

  soup = averaging.greedy(members, "val/x", score, "max")
  # 4; with 2 it is 3, better; with 1 worse; with 6 it is 4, worse.
  assert [m.name for m in soup.members] == [names[3], names[1]]
  assert soup.value == pytest.approx(-0.4, abs=1e-5)
  assert list(soup.values) == [names[i] for i in (3, 1, 0, 2)]
  np.testing.assert_allclose(values[4:], [3, 7 / 3, 4], rtol=1e-5)
  worst = averaging.greedy(members, "val/x", lambda p: -score(p), "min")
  assert [m.name for m in worst.members] == [names[3], names[1]]


@pytest.mark.parametrize(
  ("metadata", "part"),
  [
    ({"class_names": ["a", "b", "c"]}, "class_names differs"),
    ({"loss": "sigmoid_xent"}, "loss differs"),
  ],
)
def test_members_of_other_tasks_are_refused(file, metadata, part):
  other = changed(file, "other.npz", **metadata)
  with pytest.raises(
    ValueError, match=f"other.npz does not fit .*a.npz: {part}"
  ):
    averaging.read([str(file), other])


def test_members_of_other_shapes_are_refused(file):
  model = run_folders.VIT | {"num_classes": 3, "width": 8}
  other = run_folders._save(
    file.with_name("small.npz"),
    model,
    {"class_names": list(run_folders.CLASSES), "loss": "softmax_xent"},
  )
  with pytest.raises(
    ValueError, match=r"small.npz does not fit .*Shape: .* vs"
  ):
    averaging.read([str(file), str(other)])


def test_the_number_of_members(file):
  with pytest.raises(ValueError, match="1 of at least 2 members"):
    averaging.read([str(file)])
  with pytest.raises(ValueError, match="is given twice; give each member"):
    averaging.read([str(file), str(file)])


def test_names_of_members(tmp_path):
  for name, want in (
    (f"{tmp_path}@12", (str(tmp_path), 12)),
    (f"{tmp_path}@best", (str(tmp_path), "best")),
    (f"{tmp_path}@worst", (f"{tmp_path}@worst", "latest")),
    (str(tmp_path), (str(tmp_path), "latest")),
    ("hf:me/model@12", ("hf:me/model@12", "latest")),
    ("a@b.npz", ("a@b.npz", "latest")),
  ):
    assert averaging.parse(name) == want
  assert averaging.first_run(["a.npz", f"{tmp_path}@3"]) == str(tmp_path)
  with pytest.raises(ValueError, match="no member is a run folder"):
    averaging.first_run(["a.npz"])
