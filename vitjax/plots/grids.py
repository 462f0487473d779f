"""Matrices, maps and images side by side."""

from collections.abc import Sequence

import numpy as np

from vitjax.plots.figures import Figure, short

_SMALL = 30  # classes whose names fit beside a matrix


def confusion(
  title: str, matrix: np.ndarray, names: Sequence[str], *, others: str | None
) -> Figure:
  """A confusion matrix, coloured by the share of each row.

  Args:
    title: title of the figure.
    matrix: (m, m + 1) counts; the last column has other predictions.
    names: names of the m classes.
    others: name of the last column; None to leave it out.
  """
  shown = matrix if others else matrix[:, :-1]
  rate = shown / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
  names = [short(name, 18) for name in names]
  few = len(names) <= 12

  def draw(axes):
    axes.imshow(rate, cmap="viridis", vmin=0, vmax=1)
    axes.set_title(title, loc="left")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(names) <= _SMALL:
      columns = [*names, others] if others else names
      size = 10 if few else 7
      axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=size)
      axes.set_yticks(range(len(names)), names, fontsize=size)
      for (row, column), count in np.ndenumerate(shown):
        axes.text(
          column,
          row,
          str(count),
          ha="center",
          va="center",
          color="white" if rate[row, column] < 0.6 else "black",
          alpha=1 if count else 0.5,
          fontsize=8 if few else 5.5,
        )

  side = 2 + min(max(len(names), 6), _SMALL) * (0.26 if few else 0.16)
  return Figure(title, draw, (side, side))


def grid_of_maps(
  title: str,
  maps: np.ndarray,
  *,
  row_label: str,
  column_label: str,
  row_names: Sequence[int] | None = None,
  column_names: Sequence[int] | None = None,
  each: bool = False,
) -> Figure:
  """Small maps side by side.

  Args:
    title: title of the figure.
    maps: (rows, columns, h, w).
    row_label, column_label: what rows and columns count.
    row_names, column_names: numbers of the rows and columns; None: from 0.
    each: scale the colours of each map alone, instead of all together.
  """
  rows, columns, h, w = maps.shape
  if each:
    low = maps.min(axis=(2, 3), keepdims=True)
    span = maps.max(axis=(2, 3), keepdims=True) - low
    maps = (maps - low) / np.where(span > 0, span, 1)
  gap = max(1, min(h, w) // 6)
  tiled = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap), np.nan)
  for i in range(rows):
    for j in range(columns):
      y, x = i * (h + gap), j * (w + gap)
      tiled[y : y + h, x : x + w] = maps[i, j]

  def draw(axes):
    axes.imshow(tiled, cmap="viridis")
    axes.set_title(title, loc="left")
    axes.set_xlabel(column_label)
    axes.set_ylabel(row_label)
    for axis, names, count, size in (
      (axes.yaxis, row_names, rows, h),
      (axes.xaxis, column_names, columns, w),
    ):
      names = range(count) if names is None else names
      chosen = range(0, count, -(-count // 12))
      centres = [i * (size + gap) + (size - 1) / 2 for i in chosen]
      axis.set_ticks(centres, [str(names[i]) for i in chosen])
    for side in axes.spines.values():
      side.set_visible(False)
    axes.tick_params(length=0)

  ratio = tiled.shape[0] / tiled.shape[1]
  return Figure(title, draw, (4.8, min(1 + 4.2 * ratio, 12)))


def mosaic(
  title: str, images: Sequence[np.ndarray], captions: Sequence[str]
) -> Figure:
  """Images side by side, each with a caption of a few lines under it."""
  columns = min(len(images), 4)
  rows = -(-len(images) // columns)

  def draw(axes):
    axes.set_title(title, loc="left")
    axes.set_axis_off()
    for i, (image, caption) in enumerate(zip(images, captions)):
      x, y = i % columns, i // columns
      inset = axes.inset_axes(
        [x / columns, 1 - (y + 0.78) / rows, 0.92 / columns, 0.75 / rows]
      )
      inset.imshow(image)
      inset.set_axis_off()
      inset.text(
        0,
        -0.04,
        caption,
        transform=inset.transAxes,
        va="top",
        fontsize=7,
      )

  return Figure(title, draw, (2 * columns, 2.4 * rows + 0.3))
