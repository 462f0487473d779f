"""Reading and writing flat dicts of arrays."""

import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest

from vitjax.weights import npz


def test_write_then_read(tmp_path):
  flat = {"a/kernel": np.arange(6.0).reshape(2, 3), "t": np.float32(2.5)}
  npz.write(tmp_path / "x.npz", flat)
  got = npz.read(tmp_path / "x.npz")
  assert got.keys() == flat.keys()
  for name, x in flat.items():
    assert got[name].dtype == np.float32
    np.testing.assert_array_equal(got[name], x)


def test_bfloat16_is_read_as_such_and_written_as_float32(tmp_path):
  x = np.asarray([1.0, -0.3, 3e38], ml_dtypes.bfloat16)
  np.savez(tmp_path / "x.npz", x=x)
  got = npz.read(tmp_path / "x.npz")["x"]
  assert got.dtype == ml_dtypes.bfloat16
  np.testing.assert_array_equal(got, x)
  npz.write(tmp_path / "y.npz", {"x": got})
  assert npz.read(tmp_path / "y.npz")["x"].dtype == np.float32


@pytest.mark.parametrize("prefix", ["", "params/", "opt/target/"])
def test_sub_tree(tmp_path, prefix):
  file = tmp_path / "x.npz"
  flat = {f"{prefix}img/head/bias": np.ones(2), f"{prefix}t": np.ones(1)}
  if prefix:
    flat["step"] = np.ones(())
  npz.write(file, flat)
  assert list(npz.read(f"{file}:img")) == ["head/bias"]
  assert list(npz.read(f"{file}:img/head")) == ["bias"]
  with pytest.raises(ValueError, match=r"no sub-tree 'txt'. Known: img, t"):
    npz.read(f"{file}:txt")


def test_only_the_parameters_are_decompressed(tmp_path):
  """What the prefix or the sub-tree leaves out may be damaged, or huge."""
  file = tmp_path / "x.npz"
  np.savez(
    file,
    **{
      "params/img/a": np.ones(2),
      "params/txt/b": np.ones(3),
      "opt": np.ones(9),
    },
  )
  for member, subtree in [("opt", ""), ("params/txt/b", ":img")]:
    damaged = tmp_path / "damaged.npz"
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(damaged, "w") as new:
      for info in old.infolist():
        content = b"?" if info.filename == f"{member}.npy" else old.read(info)
        new.writestr(info.filename, content)
    assert f"{member}.npy" in zipfile.ZipFile(damaged).namelist()
    got = npz.read(f"{damaged}{subtree}")
    assert {n.rpartition("/")[2] for n in got} <= {"a", "b"}


def test_a_drive_letter_is_no_sub_tree():
  path, subtree = npz.split_subtree(r"D:\weights\x.npz")
  assert (str(path), subtree) == (r"D:\weights\x.npz", "")
  assert npz.split_subtree(r"D:\x.npz:img")[1] == "img"


def damaged(kind, path):
  np.savez(path, x=np.random.default_rng(0).normal(size=5000))
  data = path.read_bytes()
  if kind == "truncated":
    path.write_bytes(data[: len(data) // 2])
  elif kind == "flipped bits":
    path.write_bytes(data[:3000] + b"\0" * 64 + data[3064:])
  elif kind == "empty":
    path.write_bytes(b"")
  elif kind == "text":
    path.write_text("<html>403 Forbidden</html>")
  elif kind == "pickle":
    path.write_bytes(pickle.dumps({"x": 1}))
  elif kind == "pickled array":
    np.savez(path, x=np.asarray([{}], object))
  elif kind == "npy":
    with path.open("wb") as f:
      np.save(f, np.ones(3))
  elif kind == "impossible size":
    header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 50,)}
    with zipfile.ZipFile(path, "w") as f, f.open("x.npy", "w") as member:
      np.lib.format.write_array_header_1_0(member, header)
  elif kind == "other void":
    np.savez(path, x=np.zeros(3, "V3"))


@pytest.mark.parametrize(
  "kind",
  [
    "truncated",
    "flipped bits",
    "empty",
    "text",
    "pickle",
    "pickled array",
    "npy",
    "impossible size",
    "other void",
  ],
)
def test_damaged_file(tmp_path, kind):
  path = tmp_path / "x.npz"
  damaged(kind, path)
  message = "are a pickle" if kind == "pickle" else "cannot be read: .*again"
  with pytest.raises(ValueError, match=rf"x\.npz' {message}"):
    npz.read(path)


def test_missing_file(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"x\.npz' do not exist"):
    npz.read(tmp_path / "x.npz")


def test_a_failed_write_leaves_the_old_file(tmp_path):
  file = tmp_path / "x.npz"
  npz.write(file, {"x": np.ones(1)})
  with pytest.raises(RuntimeError), npz.atomic(file) as path:
    with open(path, "w") as f:
      f.write("half")
    raise RuntimeError
  assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]
  np.testing.assert_array_equal(npz.read(file)["x"], [1])
