"""Section of a report about a model: mistakes, positions, attention."""

import os

import jax
import numpy as np

import vitjax
from vitjax.config import resolving
from vitjax.evaluators import tables
from vitjax.plots import attention_maps, grids, pixels
from vitjax.report import mistakes, runs
from vitjax.report.section import Image, Picture, Section
from vitjax.run_folder.history import Record
from vitjax.trained import Trained

MOST_CLASSES = 20  # shown in a matrix of more than twice as many classes
MOST_POSITIONS = 8  # patches per side in the grid of position maps


def model_section(
  record: Record,
  *,
  num_examples: int | None = None,
  num_mistakes: int = 12,
  num_images: int = 4,
  allow_module: str | None = None,
) -> Section:
  """Mistakes of a run's model, its position embeddings and its attention.

  Args:
    record: what the run recorded.
    num_examples: classify the first N examples of the eval set; None for all.
    num_mistakes: number of mistakes to show.
    num_images: number of images to show attention on.
    allow_module: see `vitjax.load`.
  """
  section = Section(record.name)
  key = record.name.replace(os.sep, "_")
  trained = run = None
  with section.attempt("pictures of the model"):
    trained = vitjax.load(record.path, allow_module=allow_module)
    if record.config is None:
      raise FileNotFoundError("the run has no config.json.")
    run = resolving.resolve(record.config)
  if run is None:
    return section
  section.notes.append(f"Checkpoint of step {trained.metadata['step']:,}.")
  judged = None
  with section.attempt("mistakes"):
    name, judged = mistakes.judge(trained, run, num_examples)
    _add_mistakes(section, key, name, judged, num_mistakes)
  with section.attempt("position similarity"):
    _add_positions(section, key, trained)
  with section.attempt("attention"):
    _add_attention(section, key, trained, run, judged, num_images)
  return section


def _add_mistakes(section, key, name, judged, num_mistakes) -> None:
  n = len(judged.label)
  wrong = int((judged.label != judged.prediction).sum())
  part = (
    f"the first {n:,} of {judged.total:,}" if n < judged.total else f"{n:,}"
  )
  section.notes.append(
    f"Eval {name!r}: {wrong:,} of {part} examples are wrong."
  )
  section.tables.append(_whole_table(judged))
  predicted = np.unique(judged.prediction)
  if len(predicted) == 1:
    only = judged.said(predicted[0])
    section.notes.append(f"Every example is predicted as {only}.")
  many = len(judged.names) > 2 * MOST_CLASSES
  classes = np.arange(len(judged.names))
  title = "confusion matrix"
  hint = runs.CONFUSION
  if many:
    classes = judged.most_confused(MOST_CLASSES)
    title = f"{len(classes)} of {len(judged.names):,} classes"
    hint += " The classes with the most mistakes are shown."
  matrix = judged.confusion(classes)
  others = None
  if matrix[:, -1].any():
    others = "others" if many else "no class"
  figure = grids.confusion(
    title,
    matrix,
    [judged.names[i] for i in classes],
    others=others,
  )
  section.pictures.append(Picture(f"{key}_confusion", figure, hint))
  section.tables.append(_class_table(judged, classes))
  rows = [
    [judged.names[label], judged.said(prediction), f"{count:,}"]
    for label, prediction, count in judged.pairs(10)
  ]
  if rows:
    section.tables.append((["true", "predicted", "times"], rows))
  shown = judged.worst(num_mistakes)
  if not len(shown):
    section.notes.append("There are no mistakes to show.")
    return
  section.pictures.append(
    _images(
      f"{key}_mistakes",
      "worst mistakes",
      "The most confident wrong predictions, with their probability and the "
      "file or the number (#) of the image.",
      [pixels.rgb(judged.image(i)) for i in shown],
      [
        f"says {judged.said(judged.prediction[i])} "
        f"({judged.confidence[i]:.1%})\nis {judged.names[judged.label[i]]}"
        for i in shown
      ],
      judged.data,
      shown,
    )
  )


def _images(key, title, hint, images, answers, data, numbers) -> Picture:
  """A picture of images, with links to the files of examples `numbers`."""
  files = [mistakes.file_of(data, i) for i in numbers]
  captions = [
    f"{answer}\n{file.name if file else f'#{i}'}".lstrip()
    for answer, file, i in zip(answers, files, numbers)
  ]
  return Picture(
    key,
    grids.mosaic(title, images, captions),
    hint,
    [
      Image(
        pixels.data_uri(pixels.png(image)),
        caption,
        file.absolute().as_uri() if file else None,
      )
      for image, caption, file in zip(images, captions, files)
    ],
  )


# Name in `Judged.measures` -> column of a table.
_OF_ALL = {
  "balanced_acc": "balanced accuracy (mean recall)",
  "macro_precision": "mean precision",
  "macro_f1": "mean F1",
  "auroc": "mean AUROC",
  "ap": "mean AP",
}
_OF_CLASS = {
  "support": "examples",
  "precision": "precision",
  "recall": "recall",
  "f1": "F1",
  "class_auroc": "AUROC",
  "class_ap": "AP",
}


def _whole_table(judged):
  """Accuracy and means over the classes, as a table of a section."""
  known = {k: x for k, x in _OF_ALL.items() if k in judged.measures}
  values = [judged.accuracy, *(float(judged.measures[name]) for name in known)]
  return ["accuracy", *known.values()], [list(map(tables.text, values))]


def _class_table(judged, classes):
  """The metrics of some classes, as a table of a section."""
  known = {k: x for k, x in _OF_CLASS.items() if k in judged.measures}
  rows = [
    [
      judged.names[i],
      *(tables.text(judged.measures[name][i].item()) for name in known),
    ]
    for i in classes
  ]
  return ["class", *known.values()], rows


def _add_positions(section, key, trained: Trained) -> None:
  shape = (1, *trained.image_size, trained.channels)
  similarity = np.asarray(
    attention_maps.position_similarity(trained.model, trained.params, shape)
  )
  h, w, *_ = similarity.shape
  rows, columns = (
    np.unique(np.linspace(0, size - 1, MOST_POSITIONS).round().astype(int))
    for size in (h, w)
  )
  figure = grids.grid_of_maps(
    "position similarity",
    similarity[rows][:, columns],
    row_label="row of the patch",
    column_label="column of the patch",
    row_names=rows.tolist(),
    column_names=columns.tolist(),
  )
  section.pictures.append(
    Picture(
      f"{key}_positions",
      figure,
      "Each small map shows the cosine similarity of one patch's position "
      "embedding to those of all patches. If neighbours are similar, the model "
      "has learned which patches lie side by side.",
    )
  )


def _add_attention(section, key, trained, run, judged, num_images) -> None:
  name, data = mistakes.eval_data(trained, run)
  numbers = range(min(num_images, data.source.num_examples))
  images = [mistakes.image_of(data, i) for i in numbers]
  if not images:
    return
  batch = data.preprocess.on_device({"image": np.stack(images)})["image"]
  show = attention_maps.maps_fn(trained.model)
  heads, rollouts = jax.tree.map(np.asarray, show(trained.params, batch))
  answers = [
    f"says {judged.said(judged.prediction[i])}\n"
    f"is {judged.names[judged.label[i]]}"
    if judged is not None and i < len(judged.label)
    else ""
    for i in numbers
  ]
  if rollouts is not None:
    pairs = [
      np.concatenate([pixels.rgb(image), pixels.overlay(image, heat)], axis=1)
      for image, heat in zip(images, rollouts)
    ]
    section.pictures.append(
      _images(
        f"{key}_rollout",
        "attention rollout",
        f"The first images of eval {name!r}. Bright patches contribute most to "
        "the output, by the attention of all blocks.",
        pairs,
        answers,
        data,
        numbers,
      )
    )
  else:
    section.notes.append(
      "No attention rollout: the weights of differential attention may be "
      "negative."
    )
  section.pictures.append(
    Picture(
      f"{key}_heads",
      grids.grid_of_maps(
        f"heads on image #{numbers[0]}",
        heads[0],
        row_label="block",
        column_label="head",
        each=True,
      ),
      "How much each head of each block attends to each patch for the pooled "
      "token. Every map has its own scale.",
    )
  )
