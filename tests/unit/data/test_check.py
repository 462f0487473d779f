"""What `python -m vitjax.data check` finds, against sets made to have it."""

import base64
import io
import json
import re
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

from vitjax.data.checking import check, images
from vitjax.data.pp import builder

RNG = np.random.default_rng(0)


def save(path, height=40, width=50, mode="RGB"):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = RNG.integers(0, 256, (height, width, 3), np.uint8)
  Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def root(tmp_path):
  for i in range(3):
    save(tmp_path / "train" / "cat" / f"{i}.jpg", 40 + i, 60)
    save(tmp_path / "train" / "dog 10" / f"{i}.png")
  save(tmp_path / "train" / "dog 9" / "0.jpg", mode="L")
  save(tmp_path / "val" / "cat" / "0.jpg")
  return tmp_path


def copy(root, source, target):
  (root / target).parent.mkdir(parents=True, exist_ok=True)
  (root / target).write_bytes((root / source).read_bytes())


def test_a_good_set(root):
  report = check.check(f"folder:{root}")
  assert not report.problems and not report.warnings and not report.duplicates
  train = report.splits["train"]
  assert list(train.classes.items()) == [
    ("cat", 3),
    ("dog 9", 1),
    ("dog 10", 3),
  ]
  assert train.examples == 7 and report.splits["val"].examples == 1
  assert train.height == (40, 40, 42) and train.width == (50, 50, 60)
  assert train.shorter_side == {"32 .. 63": 7}
  assert train.colours == {"rgb": 6, "grey": 1}
  assert str(report).endswith("Nothing is wrong.")


def test_unreadable_files_are_a_problem(root):
  data = (root / "train/cat/0.jpg").read_bytes()
  (root / "train/cat/cut.jpg").write_bytes(data[: len(data) // 2])
  (root / "train/cat/empty.png").touch()
  (root / "val/cat/text.jpg").write_text("<html>404</html>")
  report = check.check(f"folder:{root}")
  names = [name.removeprefix(f"{root}/") for name in report.unreadable]
  assert names == [
    "train/cat/cut.jpg",
    "train/cat/empty.png",
    "val/cat/text.jpg",
  ]
  (problem,) = report.problems
  assert (
    problem.startswith("3 image(s) cannot be decoded: ")
    and "is empty" in problem
  )
  # Sizes are those of the others.
  assert report.splits["train"].height == (40, 40, 42)


def test_tensorflow_starts_in_the_main_thread(root, monkeypatch):
  """Also if the data set cannot be opened, which would have started it."""
  threads = []

  def run_once(*args):
    threads.append(threading.current_thread())
    return first(*args)

  first = images.pipeline.run_once
  monkeypatch.setattr(images.pipeline, "run_once", run_once)
  save(root / "val" / "cow" / "0.jpg")
  assert check.check(f"folder:{root}").problems
  assert threads[0] is threading.main_thread() and len(threads) == 9


def test_copies(root):
  copy(root, "train/cat/0.jpg", "val/cat/9.jpg")
  copy(root, "train/cat/1.jpg", "train/dog 9/same.jpg")
  copy(root, "train/cat/2.jpg", "train/cat/again.jpg")
  report = check.check(f"folder:{root}")
  assert not report.problems
  shown = [
    {name.removeprefix(f"{root}/") for name in group}
    for group in report.duplicates
  ]
  assert {"train/cat/2.jpg", "train/cat/again.jpg"} in shown and len(shown) == 3
  assert [len(group) for group in report.leaked] == [2]
  leaked, conflict, twice = report.warnings
  assert leaked.startswith("1 image(s) in more than one split: ")
  assert leaked.endswith(f"{root}/train/cat/0.jpg = {root}/val/cat/9.jpg")
  assert "more than one label" in conflict and "dog 9/same.jpg" in conflict
  assert "again.jpg" in twice and "same.jpg" not in twice


def test_a_class_that_train_does_not_have(root):
  save(root / "val" / "ant" / "0.jpg")
  (problem,) = check.check(f"folder:{root}").problems
  assert "split 'val'" in problem and "'ant'" in problem


def test_sizes_and_colours(root):
  save(root / "train/cat/narrow.png", 300, 59)
  save(root / "train/cat/tiny.webp", 31, 31)
  save(root / "train/cat/five.png", 500, 100)
  for mode, name in (
    ("CMYK", "ink.jpg"),
    ("P", "palette.png"),
    ("P", "palette.gif"),
    ("RGBA", "alpha.png"),
    ("LA", "grey alpha.png"),
    ("RGB", "plain.bmp"),
  ):
    save(root / "val/cat" / name, mode=mode)
  deep = np.zeros((40, 40), np.uint16)
  Image.fromarray(deep).save(root / "val/cat/deep.png")
  Image.fromarray(deep).save(root / "val/cat/deep.tif")
  report = check.check(f"folder:{root}")
  narrow, tiny = report.warnings
  assert narrow.startswith("1 image(s) with a side more than 5 times")
  assert "narrow.png (300x59)" in narrow
  assert tiny.startswith("1 image(s) with a side below 32 pixels")
  assert "tiny.webp (31x31)" in tiny
  assert report.splits["val"].colours == {
    "rgb": 2,
    "grey, 16 bit": 2,
    "palette": 2,
    "cmyk": 1,
    "rgb, alpha": 1,
    "grey, alpha": 1,
  }


def test_photographs_that_are_turned_are_counted(root):
  image = Image.open(root / "train/cat/0.jpg")
  exif = Image.Exif()
  exif[0x0112] = 6
  for kind in ("jpg", "png", "webp", "tif"):
    image.save(root / "train" / "cat" / f"turned.{kind}", exif=exif)
  report = check.check(f"folder:{root}")
  assert report.splits["train"].rotated == 4
  assert report.splits["val"].rotated == 0
  (note,) = report.notes
  assert note.startswith("4 image(s) are rotated") and "turned.tif" in note
  assert not report.warnings
  # Sizes are those of upright images.
  assert report.splits["train"].height == (40, 41, 60)


def test_frames_and_transparency(root):
  image = Image.open(root / "val/cat/0.jpg")
  pages = [image.rotate(90), image.rotate(180)]
  image.save(root / "val/cat/pages.tif", save_all=True, append_images=pages)
  clear = image.convert("RGBA")
  clear.save(root / "val/cat/opaque.png")
  clear.putpixel((3, 4), (9, 9, 9, 0))
  clear.save(root / "val/cat/clear.png")
  report = check.check(f"folder:{root}")
  (warning,) = report.warnings
  assert warning.startswith("1 image(s) with transparent pixels")
  assert "clear.png" in warning
  (note,) = report.notes
  assert note.startswith("1 image(s) with several frames or pages")
  assert "pages.tif" in note


def test_twelve_bits_in_a_file_of_sixteen(root):
  ramp = np.arange(40 * 40).reshape(40, 40)
  for kind in ("png", "tif"):
    twelve = (ramp * 4095 // ramp.max()).astype(np.uint16)
    Image.fromarray(twelve).save(root / "val/cat" / f"12bit.{kind}")
    sixteen = (ramp * 65535 // ramp.max()).astype(np.uint16)
    Image.fromarray(sixteen).save(root / "val/cat" / f"16bit.{kind}")
  report = check.check(f"folder:{root}")
  (warning,) = report.warnings
  assert warning.startswith("2 image(s) of 16 bits use few of them")
  assert "decode(levels=(0, 4095))" in warning
  assert "12bit.png (up to 4095)" in warning and "16bit" not in warning
  pp = "decode(levels=(0, 4095))"
  assert not check.check(f"folder:{root}", pp=pp).warnings


def test_what_is_left_out_is_named(root):
  (root / "train/cat/notes.txt").write_text("x")
  (root / "train/cat/raw.cr3").write_text("x")
  save(root / "holdout/cat/0.jpg")
  report = check.check(str(root))
  ignored, skipped = sorted(report.warnings)
  assert ignored.startswith("ignored folder(s)") and "'holdout'" in ignored
  assert "1 x .txt" in skipped and "1 x .cr3" in skipped


def test_a_link_that_leads_nowhere_does_not_end_the_check(root):
  for name in ("a.jpg", "b.jpg"):
    (root / "train" / "cat" / name).symlink_to("/nonexistent/image.jpg")
  (root / "val/cat/text.jpg").write_text("<html>404</html>")
  report = check.check(f"folder:{root}")
  gone, broken = report.problems
  assert "2 image(s) do not exist" in gone and "'train/cat/b.jpg'" in gone
  assert broken.startswith("1 image(s) cannot be decoded")
  assert len(report.unreadable) == 3 and report.splits["train"].examples == 7
  (root / "labels.csv").write_text(
    "file,label\ntrain/cat/0.jpg,a\ntrain/cat/1.jpg,b\ngone.jpg,b\n"
  )
  report = check.check(f"labels:{root}/labels.csv")
  assert "'gone.jpg'" in report.problems[0]
  assert report.splits["train"].examples == 2


def test_many_classes_are_summed_up(tmp_path):
  for i in range(40):
    for j in range(1 + (i != 7)):
      path = tmp_path / "train" / f"c{i}" / f"{j}.png"
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray(np.full((2, 2), i + 100 * j, np.uint8)).save(path)
  lines = str(check.check(f"folder:{tmp_path}")).splitlines()
  at = next(i for i, x in enumerate(lines) if x.startswith("smallest of 40"))
  assert lines[at + 1].split() == ["c7", "1"]


def test_tables(root, monkeypatch):
  (root / "labels.csv").write_text(
    "file,label,split\n"
    "train/cat/0.jpg,0,train\ntrain/cat/1.jpg,1,train\nval/cat/0.jpg,2,val\n"
  )
  report = check.check(f"labels:{root}/labels.csv")
  assert report.splits["train"].classes == {"0": 1, "1": 1}
  assert "split 'val'" in report.problems[0]
  (root / "captions.csv").write_text(
    "file,caption,split\n"
    "train/cat/0.jpg,a cat,train\ntrain/cat/0.jpg,one cat,train\n"
    "val/cat/0.jpg,a cat,val\n"
  )
  report = check.check(f"captions:{root}/captions.csv")
  assert report.splits["train"].examples == 1 and not report.problems
  monkeypatch.chdir(root.parent)
  with pytest.raises(ValueError, match=f"write ./{root.name}\\.$"):
    check.check(root.name)
  with pytest.raises(ValueError, match="'cifar10' cannot be checked"):
    check.check("cifar10")


def test_the_statistics_of_each_channel(tmp_path):
  stacks = RNG.integers(0, 256, (2, 8, 8, 5), np.uint8)
  images = [*stacks, np.kron(stacks[0], np.ones((3, 3, 1), np.uint8))]
  for i, image in enumerate(images):
    path = tmp_path / "train" / "ab"[i % 2] / f"{i}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, image)
  report = check.check(f"folder:{tmp_path}", pp="decode(channels=5)")
  train = report.splits["train"]
  # Each image weighs the same, whatever its size.
  values = np.stack([stacks[0], stacks[1], stacks[0]]).reshape(-1, 5) / 255
  np.testing.assert_allclose(train.mean, values.mean(0), atol=1e-9)
  np.testing.assert_allclose(train.std, values.std(0), atol=1e-9)
  builder.build(train.normalize)
  assert f"pixels: {train.normalize}\n" in str(report)


def test_tiff_files_of_many_samples(tmp_path):
  tifffile = pytest.importorskip("tifffile")
  for name, turn in (("a", 1), ("b", 6)):
    path = tmp_path / "train" / name / "0.tif"
    path.parent.mkdir(parents=True)
    tifffile.imwrite(
      path,
      RNG.integers(0, 256, (8, 9, 6), np.uint8),
      photometric="minisblack",
      planarconfig="contig",
      extratags=[(274, "H", 1, turn, True)],
    )
  report = check.check(f"folder:{tmp_path}", pp="decode(channels=6)")
  train = report.splits["train"]
  assert train.colours == {"6 samples": 2} and train.rotated == 1
  assert len(train.mean) == 6 and not report.problems
  (problem,) = check.check(f"folder:{tmp_path}").problems
  assert "has 6 channels, not 3: write decode(channels=6)" in problem


def test_names_in_several_splits(root):
  for name in ("IMG_1.jpg", "IMG_2.jpg", "IMG_3 (1).jpg"):
    save(root / "train/cat" / name)
  save(root / "val/cat/IMG_1.png")
  save(root / "val/cat/IMG_3_rot90.jpg")
  for i in range(9):
    save(root / "val/cat" / f"other{i}.jpg")
  (warning,) = check.check(f"folder:{root}").warnings
  assert warning.startswith("2 name(s) in more than one split, of other conte")
  assert "IMG_1.jpg ~ " in warning and "IMG_3_rot90.jpg" in warning
  # What has the same bytes is said once.
  copy(root, "train/cat/IMG_1.jpg", "val/cat/IMG_1.jpg")
  (root / "val/cat/IMG_1.png").unlink()
  report = check.check(f"folder:{root}")
  assert len(report.same_name) == 1 and len(report.leaked) == 1
  # Splits whose images are numbered alike say nothing.
  for i in range(40):
    save(root / "train/cat" / f"x{i}.jpg")
    save(root / "val/cat" / f"x{i}.jpg")
  assert not check.check(f"folder:{root}").same_name


def test_images_that_look_alike(root):
  photos = [datasets.load_sample_images().images[i][:200, :300] for i in (0, 1)]
  for photo, name in zip(photos, ("a", "b")):
    Image.fromarray(photo).save(root / "train/cat" / f"{name}.png")
    Image.fromarray(photo).save(root / "train/cat" / f"{name}.jpg", quality=50)
  copy(root, "train/cat/a.png", "train/cat/same.png")
  Image.fromarray(photos[0]).resize((150, 100)).save(root / "val/cat/c.jpg")
  Image.fromarray(photos[1]).resize((150, 100)).save(root / "train/dog 9/c.jpg")
  assert not check.check(f"folder:{root}").near_duplicates
  report = check.check(f"folder:{root}", most_bits=4)
  first, second = ({*group} for group in report.near_duplicates)
  assert first == {
    f"{root}/{x}"
    for x in ("train/cat/a.jpg", "train/cat/a.png", "val/cat/c.jpg")
  }
  assert len(second) == 3 and [{*x} for x in report.near_leaked] == [first]
  assert any(
    x.startswith("1 group(s) that look alike in more than one split: ")
    for x in report.warnings
  )
  assert any(
    x.startswith("1 group(s) that look alike with several labels: ")
    for x in report.warnings
  )
  with pytest.raises(ValueError, match="--near=9 must be 0 to 8, of 64 bits"):
    check.check(f"folder:{root}", most_bits=9)


def predict(root, wrong):
  """A file of predictions that are right but for one image."""
  rows = []
  for path in sorted((root / "train").rglob("*.*")):
    label, answer = path.parent.name, path.parent.name
    if path == root / wrong:
      answer = "dog 10"
    top = [{"label": answer, "probability": 0.9}]
    rows.append({"file": str(path), "label": label, "top": top})
  (root / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
  return [str(root / "rows.jsonl")]


def test_labels_that_may_be_wrong(root):
  predictions = predict(root, "train/cat/1.jpg")
  report = check.check(f"folder:{root}", predictions=predictions)
  (suspect,) = report.suspects
  assert suspect.file == f"{root}/train/cat/1.jpg"
  assert (suspect.label, suspect.suggested) == ("cat", "dog 10")
  (warning,) = report.warnings
  assert warning.startswith("1 label(s) that may be wrong")
  assert warning.endswith("1.jpg (cat, perhaps dog 10)")
  (note,) = report.notes
  assert note.startswith("1 image(s) without a prediction")


def test_the_page(root):
  pytest.importorskip("jinja2")
  from vitjax.data.checking import page

  (root / "train/cat/<b>.jpg").write_bytes(b"no image")
  copy(root, "train/cat/0.jpg", "val/cat/9.jpg")
  report = check.check(
    f"folder:{root}", predictions=predict(root, "train/cat/1.jpg")
  )
  page.write(report, root / "page.html")
  text = (root / "page.html").read_text()
  pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
  # 8 of the classes, 2 copies, 1 label.
  assert len(pictures) == 9 + 2 + 1
  for data in pictures:
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert max(image.size) == 112
  assert "<b>" not in text and "&lt;b&gt;.jpg" in text
  assert "cat (10%), perhaps dog 10 (90%)" in text
  assert not re.search(r'(src|href)="(?!data:|file:)', text)
  assert not list(root.glob("*.part"))


def run(*arguments, options=()):
  return subprocess.run(
    [sys.executable, *options, "-m", "vitjax.data", *arguments],
    capture_output=True,
    text=True,
  )


@pytest.mark.slow
def test_command(root):
  (root / "train/cat/empty.png").touch()
  done = run("check", f"folder:{root}", "--json")
  assert done.returncode == 1, done.stderr
  report = json.loads(done.stdout)
  assert report["splits"]["train"]["classes"]["cat"] == 4
  assert report["unreadable"] == {f"{root}/train/cat/empty.png": "is empty"}


def test_help_is_quick_and_errors_are_one_line():
  done = run("--help", options=("-X", "importtime"))
  assert done.returncode == 0
  for part in ("check folder:", "prepare imagenet", "--from", "Exit codes"):
    assert part in done.stdout
  loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
  assert not loaded & {"jax", "tensorflow", "numpy"}
  for arguments, message in (
    (
      ["chekc", "x"],
      "vitjax.data: 'chekc x' is not a command. Write check DATA",
    ),
    (["prepare", "imagenet"], "vitjax.data: prepare imagenet needs --from="),
    (["check", "x", "--jsno"], "vitjax.data: Unknown command line flag 'jsno'"),
  ):
    done = run(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(message) and done.stderr.count("\n") == 1
