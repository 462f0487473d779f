"""Tables of several classes, probabilities and numbers; unknown labels."""

import json

import cv2
import numpy as np
import pytest

from vitjax.config import common
from vitjax.data import pipeline, sources
from vitjax.data.checking import check
from vitjax.data.pp import builder

FILES = ("a.png", "b.png", "c.png")


@pytest.fixture
def table(tmp_path):
  """Writes a table of three images; returns a data set's name for it."""
  for i, file in enumerate(FILES):
    assert cv2.imwrite(
      str(tmp_path / file), np.full((40, 40, 3), 60 * i, np.uint8)
    )

  def write(lines, options="", suffix=".csv"):
    path = tmp_path / f"table{suffix}"
    path.write_text("\n".join(lines) + "\n")
    return f"labels:{path}{options}"

  return write


def several(*labels):
  """Rows of a table, each with its file and a split."""
  return [f"{file},{label},train" for file, label in zip(FILES, labels)]


def read(data, names=None):
  source = sources.open_source(data, "train", class_names=names)
  fetched = source.fetch(np.arange(source.num_examples))
  return source, {name: x.numpy() for name, x in fetched.items()}


NAN = np.nan


def test_columns_of_zeros_and_ones(table):
  lines = ["file,cat,site,dog,split"]
  lines += ["a.png,1,x,0,train", "b.png,0,y,1.0,train", "c.png,True,z,1,train"]
  source, batch = read(table(lines, ":multi_label=dog+cat"))
  assert source.kind == "multi_label"
  assert source.class_names == ("dog", "cat")
  np.testing.assert_array_equal(batch["labels"], [[0, 1], [1, 0], [1, 1]])
  preprocess = builder.build("decode|resize(4)")
  [again] = pipeline.eval_batches(source, preprocess, batch_size=3)
  np.testing.assert_array_equal(again["labels"], batch["labels"])
  assert again["labels"].dtype == np.float32
  assert "label" not in batch and source.labels is None
  assert not source.has_unknown


def test_all_columns(table):
  lines = ["split,file,cat,dog", "train,a.png,1,0", "train,b.png,0,0"]
  source, _ = read(table([*lines, "train,c.png,0,1"], ":multi_label=*"))
  assert source.class_names == ("cat", "dog")


def test_all_columns_but_that_of_groups(table):
  lines = ["file,who,cat,dog", "a.png,p1,1,0", "b.png,p2,0,0", "c.png,p2,0,1"]
  source, _ = read(table(lines, ":multi_label=*:group=who"))
  assert source.class_names == ("cat", "dog")


@pytest.mark.parametrize("given", ["", ":multi_label=labels"])
def test_lists_of_classes(table, given):
  """In one row, in several rows of an image, and none at all."""
  lines = ["file,labels", "a.png,dog 10;dog 9", "b.png,", "./a.png,ant"]
  lines += ["c.png,ant|dog 9"]
  source = sources.open_source(table(lines, given), "train+val")
  assert source.class_names == ("ant", "dog 9", "dog 10")
  by_file = dict(
    zip(
      [source.describe(i)[-5:] for i in range(3)],
      source.targets.tolist(),
      strict=True,
    )
  )
  assert by_file == {"a.png": [1, 1, 1], "b.png": [0, 0, 0], "c.png": [1, 1, 0]}


def test_lists_in_json_lines(table):
  lines = [
    json.dumps({"file": file, "labels": labels, "split": "train"})
    for file, labels in zip(FILES, ([2, 10], [], ["a;b"]))
  ]
  source, batch = read(table(lines, suffix=".jsonl"))
  assert source.class_names == ("2", "10", "a;b")
  np.testing.assert_array_equal(
    batch["labels"], [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
  )


def test_an_evaluation_has_the_classes_of_the_model(table):
  data = table(["file,labels,split", *several("dog", "", "cat")])
  _, batch = read(data, names=("bird", "cat", "dog"))
  np.testing.assert_array_equal(batch["labels"][0], [0, 0, 1])
  with pytest.raises(
    ValueError, match=r"c.png has labels .* 2 classes .*'cat'"
  ):
    sources.open_source(data, "train", class_names=("bird", "dog"))


def test_columns_are_joined_with_those_of_a_model_by_name(table):
  lines = ["file,cat,dog,split", *several("0.2,0.8", "1,0", "0.5,0.5")]
  for kind in ("soft_label", "regression"):
    source, batch = read(table(lines, f":{kind}=cat+dog"), ("dog", "cat"))
    assert source.class_names == ("dog", "cat")
    np.testing.assert_allclose(
      batch["labels"], [[0.8, 0.2], [0, 1], [0.5, 0.5]]
    )
  lines = ["file,cat,dog,split", *several("0,1", "1,", "0,0")]
  data = table(lines, ":multi_label=cat+dog:ignore=empty")
  _, batch = read(data, ("dog", "cat"))
  np.testing.assert_array_equal(batch["labels"], [[1, 0], [NAN, 1], [0, 0]])
  with pytest.raises(ValueError, match="class 0 is 'cat' instead of 'cow'"):
    read(data, ("cow", "dog"))


def test_probabilities(table):
  lines = ["file,cat,dog,split", *several(".2,.8", ".5,.5", "0.9995,0")]
  source, batch = read(table(lines, ":soft_label=cat+dog"))
  np.testing.assert_allclose(batch["labels"], [[0.2, 0.8], [0.5, 0.5], [1, 0]])
  np.testing.assert_array_equal(batch["label"], [1, 0, 0])
  np.testing.assert_array_equal(source.known_labels(), [1, 0, 0])


def test_numbers(table):
  lines = ["file,age,split", *several("-1.5", "2e3", "7")]
  source, batch = read(table(lines, ":regression=age"))
  np.testing.assert_array_equal(batch["labels"], [[-1.5], [2000], [7]])
  assert (source.class_names, source.num_classes) == (("age",), 1)
  with pytest.raises(ValueError, match=r"has numbers. This needs .* one class"):
    source.known_labels()


@pytest.mark.parametrize(
  ("columns", "rows", "options", "labels"),
  [
    ("x,y", ("1,", "-1,0", "0,nan"), ":multi_label=x+y", [[1, NAN], [NAN, 0]]),
    ("x,y", ("1,0", "NaN,-1.0", ",1"), ":soft_label=x+y", [[1, 0], [NAN, NAN]]),
    ("x", ("3", "-1", ""), ":regression=x", [[3], [NAN]]),
    ("labels", ("a", "-1", ""), "", [[1], [NAN]]),
  ],
)
def test_unknown_labels(table, columns, rows, options, labels):
  data = table(
    [f"file,{columns},split", *several(*rows)],
    f"{options}:ignore=empty+-1+NaN",
  )
  source, batch = read(data)
  np.testing.assert_array_equal(batch["labels"][:2], labels)
  assert source.has_unknown
  if "soft" in options:
    np.testing.assert_array_equal(batch["label"], [0, -1, -1])


def test_unknown_classes_stay_in_the_order(table):
  lines = ["file,label,split", *several("dog", "unsure", "cat")]
  source, batch = read(table(lines, ":ignore=Unsure"))
  assert source.class_names == ("cat", "dog")
  np.testing.assert_array_equal(batch["label"], [1, -1, 0])
  lines = ["file,label,split", *several("2", "-1", "0")]
  source, batch = read(table(lines, ":ignore=-1"))
  assert source.class_names == ("0", "1", "2")
  np.testing.assert_array_equal(batch["label"], [2, -1, 0])


@pytest.mark.parametrize(
  ("columns", "row", "options", "message"),
  [
    ("x", "2", ":multi_label=x", "line 2: x is '2'.* must be 0 or 1"),
    ("x", "", ":multi_label=x", "x is ''.* add :ignore=empty"),
    ("x", "-1", ":regression=x:multi_label=x", "only one of"),
    ("x", "-1", ":regression=", "write :regression= once"),
    ("x", "nan", ":regression=x", "x is 'nan'.* a finite number.*:ignore=nan"),
    ("x,y", ".5,.6", ":soft_label=x+y", "x, y have the sum 1.1. It must be 1"),
    ("x,y", "1.5,-.5", ":soft_label=x+y", "x is '1.5'.* a probability"),
    ("age", "1", ":regression=agee", "no column 'agee'.*Did you mean 'age'"),
    ("x", "1", ":multilabel=x", "is not an option.*Did you mean 'multi_label'"),
    (
      "x",
      "1",
      ":regression=x:ignroe=-1",
      ":ignroe= is .*Did you mean 'ignore'",
    ),
    ("x,label", "1,a", ":group=xx", "group=xx has no parent.*Did you mean 'x'"),
    ("label", "", "", "the label is ''.* add :ignore=empty"),
    ("label,x", "a,1", ":ignore=a", "no training images"),
  ],
)
def test_what_is_wrong_is_named(table, columns, row, options, message):
  data = table([f"file,{columns},split", f"a.png,{row},train"], options)
  with pytest.raises(ValueError, match=message):
    sources.open_source(data, "train")


@pytest.mark.parametrize(
  ("labels", "count"), [(("0.5", "1.0", "2.5"), 1), (("v1.0", "1.0", "2"), 0)]
)
def test_numbers_as_names_are_told(table, labels, count):
  data = table(["file,label,split", *several(*labels)])
  found = [x for x in check.check(data).warnings if ":regression=label" in x]
  assert len(found) == count


def test_rows_of_one_image_that_contradict(table):
  data = table(["file,x", "a.png,1", "./a.png,0"], ":multi_label=x")
  with pytest.raises(
    ValueError, match=r"line 3: './a.png' has a label already"
  ):
    sources.open_source(data, "train")
  data = table(["file,labels,split", "a.png,x,train", "a.png,y,val"])
  with pytest.raises(
    ValueError, match="is in split 'val', and on line 2 in 'tr"
  ):
    sources.open_source(data, "train")


def test_other_labels_are_another_data_set(table):
  """Also other columns, and another kind of the same numbers."""

  def fingerprint(rows, options):
    data = table(["file,x,y,split", *several(*rows)], options)
    return sources.open_source(data, "train").fingerprint

  rows = ("0,1", "1,0", "0,1")
  found = [
    fingerprint(rows, ":multi_label=x+y"),
    fingerprint(rows, ":soft_label=x+y"),
    fingerprint(rows, ":regression=x+y"),
    fingerprint(rows, ":multi_label=y+x"),
    fingerprint(("1,1", *rows[1:]), ":multi_label=x+y"),
  ]
  assert len(set(found)) == len(found)
  assert fingerprint(rows, ":multi_label=x+y") == found[0]


def test_folds_and_paths_keep_the_columns(table):
  data = table(
    ["file,age", "a.png,1", "b.png,2", "c.png,3"], ":regression=age:fold=1/3"
  )
  data = data.removeprefix("labels:")
  sizes = [
    sources.open_source(data, split).num_examples for split in ("train", "val")
  ]
  assert sizes == [2, 1]


@pytest.mark.parametrize(
  ("columns", "options", "what"),
  [
    ("x,y", ":multi_label=x+y", "any number of classes"),
    ("label,y", ":ignore=1", "some unknown classes"),
  ],
)
def test_a_mixture_is_of_images_with_one_class(table, columns, options, what):
  data = table(
    [f"file,{columns},split", *several("1,0", "0,1", "0,0")], options
  )
  with pytest.raises(ValueError, match=f"have {what}. Each image of a mixture"):
    sources.open_source(f"mixture:0.5*{data}+0.5*digits", "train")


def test_check_counts_classes_and_ranges(table):
  lines = ["file,x,y,split", *several("1,1", "1,0", ",0")]
  report = check.check(table(lines, ":multi_label=x+y:ignore=empty"))
  assert report.splits["train"].classes == {"x": 2, "y": 1}
  assert "1 image(s) with an unknown label" in report.notes
  report = check.check(table(lines, ":regression=x+y:ignore=empty"))
  assert report.splits["train"].targets == {"x": (1, 1, 1), "y": (0, 0, 1)}
  assert "0 .. 0 .. 1" in str(report)
  data = table(["file,label,split", *several("a", "", "b")], ":ignore=empty")
  report = check.check(data)
  assert report.splits["train"].classes == {"a": 1, "b": 1}
  assert "1 image(s) with an unknown label" in report.notes


def test_recipes_fit_the_labels():
  def recipe(options):
    from configs import small_vit

    return small_vit.get_config(f"labels:x.csv{options}")

  config = recipe(":regression=age+size")
  assert config.loss == "mse" and config.evals.val.type == "regression"
  assert config.checkpoint.best_metric == "val/mae"
  assert recipe(":multi_label=a+b").checkpoint.best_metric == "val/mAP"
  assert recipe(":soft_label=a+b").loss == "softmax_xent"
  config = recipe("")
  common.fit_labels(config)
  assert config == recipe("")
