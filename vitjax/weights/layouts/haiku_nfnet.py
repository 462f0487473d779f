"""deepmind-research's NFNets: Haiku's two-level dict, flattened.

The released `F*_haiku.npz` are pickles despite their name, and unpickling
runs whatever code a file contains, so they are refused. Convert a file that
you trust once, in a process of its own, to an archive of plain arrays with
names such as "NFNet/~/stem_conv0/w":

  import dill, numpy
  with open("F0_haiku.npz", "rb") as f:
    params = dill.load(f)
  numpy.savez("F0.npz", **{
    f"{module}/{name}": numpy.asarray(x)
    for module, arrays in params.items()
    for name, x in arrays.items()
  })
"""

from collections.abc import Collection, Iterator

from vitjax.weights.layouts import torch_tensors
from vitjax.weights.layouts.torch_tensors import SAME, Flat, Row

NAME = "haiku_nfnet"


def matches(names: Collection[str]) -> bool:
  """Haiku's name of the network."""
  return any(name.startswith("NFNet/~/") for name in names)


def _rows(model) -> Iterator[Row]:
  torch_tensors.require(model, "nfnet", NAME)

  def conv(theirs, ours):
    yield f"{theirs}/w", f"{ours}/kernel", SAME
    yield f"{theirs}/gain", f"{ours}/gain", SAME
    yield f"{theirs}/bias", f"{ours}/bias", SAME

  def linear(theirs, ours):
    yield f"{theirs}/w", f"{ours}/kernel", SAME
    yield f"{theirs}/b", f"{ours}/bias", SAME

  for i in range(4):
    yield from conv(f"NFNet/~/stem_conv{i}", f"stem_conv{i}")
  for i in range(sum(model.depths)):
    theirs = "NFNet/~/nf_block" + (f"_{i}" if i else "")
    ours = f"nf_block_{i}"
    for name in ("conv0", "conv1", "conv1b", "conv2", "conv_shortcut"):
      yield from conv(f"{theirs}/~/{name}", f"{ours}/{name}")
    gate = f"{theirs}/~/squeeze_excite/~"
    yield from linear(f"{gate}/linear", f"{ours}/squeeze_excite/Dense_0")
    yield from linear(f"{gate}/linear_1", f"{ours}/squeeze_excite/Dense_1")
    yield f"{theirs}/skip_gain", f"{ours}/skip_gain", SAME
  yield from conv("NFNet/~/final_conv", "final_conv")
  yield from linear("NFNet/~/linear", "head")


def to_vitjax(flat: Flat, model) -> Flat:
  """Renames."""
  return torch_tensors.to_vitjax(flat, _rows(model))


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`."""
  return torch_tensors.from_vitjax(flat, _rows(model), NAME)
