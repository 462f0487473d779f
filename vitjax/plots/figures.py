"""Figures of reports, in matplotlib: for a page as SVG, and as PNG files.

Lines and letters of an SVG have the colour of the text around it, so that a
page can be light or dark. No figure is registered anywhere, and no name in it
is taken for a formula.
"""

import base64
import io
import itertools
from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np

from vitjax.config import extras

with extras.needed("plots", "plots"):
  import matplotlib
  from matplotlib import figure, ticker

# Told apart by most kinds of colour vision, on white and on black: Okabe and
# Ito, https://jfly.uni-koeln.de/color/, without their black and yellow.
COLORS = (
  "#0072b2",
  "#d55e00",
  "#009e73",
  "#cc79a7",
  "#56b4e9",
  "#e69f00",
)
_INK = "#32363c"  # nothing else has this colour
_STYLE = {
  "axes.edgecolor": _INK,
  "axes.formatter.useoffset": False,
  "axes.labelcolor": _INK,
  "axes.prop_cycle": matplotlib.cycler(color=COLORS),
  "axes.spines.right": False,
  "axes.spines.top": False,
  "axes.titlesize": "medium",
  "figure.facecolor": "none",
  "axes.facecolor": "none",
  "font.size": 10,
  "grid.alpha": 0.25,
  "grid.color": _INK,
  "image.interpolation": "nearest",
  "legend.facecolor": "none",
  "legend.fontsize": "small",
  "legend.frameon": False,
  "savefig.dpi": 150,
  "svg.fonttype": "none",
  "svg.hashsalt": "vitjax",
  "text.color": _INK,
  "text.parse_math": False,
  "xtick.color": _INK,
  "ytick.color": _INK,
}
_SMALL = 30  # classes whose names fit beside a matrix


class Figure:
  """A finished figure and what it shows, in words."""

  def __init__(
    self,
    title: str,
    draw: Callable[..., None],
    size: tuple[float, float] = (4.8, 3),
    panels: int = 1,
  ):
    """Calls `draw(axes, ...)` with the panels of a figure of `size` inches."""
    self.title = title
    with matplotlib.rc_context(_STYLE):
      self._figure = figure.Figure(figsize=size, layout="constrained")
      draw(*self._figure.subplots(1, panels, sharey=True, squeeze=False)[0])

  def svg(self) -> str:
    """The SVG element, without the declarations of a file."""
    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
      self._figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(_INK, "currentColor")

  def png(self) -> bytes:
    """The PNG file, on white."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
      self._figure.savefig(buffer, format="png", facecolor="white")
    return buffer.getvalue()


def curves(
  title: str,
  series: Mapping[str, tuple[np.ndarray, np.ndarray]],
  x_label: str,
  *,
  names: Sequence[str] = (),
  log_scale: bool = True,
) -> Figure:
  """Lines over each other.

  Args:
    title: of the figure.
    series: name -> (x, y). Values that are not finite leave a gap.
    x_label: of the x axis.
    names: of all series that have a colour, here or in other figures.
    log_scale: whether values may get one, if they span more than a decade.
  """

  def draw(axes):
    styles = ("-", "--", ":", "-.")
    order = list(dict.fromkeys([*names, *series]))
    for name, (x, y) in series.items():
      i = order.index(name)
      axes.plot(
        x,
        np.where(np.isfinite(y), y, np.nan),
        label=_short(name),
        linewidth=1.3,
        color=COLORS[i % len(COLORS)],
        linestyle=styles[i // len(COLORS) % len(styles)],
        marker="o" if len(x) < 40 else None,
        markersize=3,
      )
    axes.set_title(title, loc="left")
    axes.set_xlabel(x_label)
    axes.grid(True)
    axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5))
    values = np.concatenate([y[np.isfinite(y)] for _, y in series.values()])
    if (
      log_scale
      and values.size
      and 0 < values.min()
      and values.max() > 50 * values.min()
    ):
      axes.set_yscale("log")
      _plain_numbers(axes.yaxis)
    if len(order) > 1:
      axes.legend()

  return Figure(title, draw)


def trade_off(
  title: str,
  points: Mapping[str, Sequence[tuple[str, float, float, float, bool | None]]],
  labels: tuple[str, str, str],
) -> Figure:
  """A quality against two costs, side by side; the front is filled.

  Args:
    title: of the figure.
    points: group -> (name, first cost, second cost, quality, on the front).
    labels: of the costs and of the quality.
  """

  def draw(*panels):
    for panel, (axes, label) in enumerate(zip(panels, labels)):
      for color, (group, members) in zip(
        itertools.cycle(COLORS), points.items()
      ):
        for name, *costs, quality, on_front in members:
          axes.plot(
            costs[panel],
            quality,
            "o",
            color=color,
            fillstyle="full" if on_front else "none",
          )
          axes.annotate(
            name.rstrip("/").rpartition("/")[2][:24],
            (costs[panel], quality),
            xytext=(5, 4),
            textcoords="offset points",
            fontsize=7,
          )
        if panel == 0:
          front = sorted((m[1], m[3]) for m in members if m[4])
          axes.plot(
            *zip(*front), color=color, alpha=0.6, label=_short(group, 60)
          )
      axes.set_xscale("log")
      _plain_numbers(axes.xaxis)
      axes.set_xlabel(label)
      axes.margins(x=0.25, y=0.15)
      axes.grid(True)
    panels[0].set_ylabel(labels[2])
    panels[0].set_title(title, loc="left")
    panels[0].figure.legend(loc="outside lower center")

  return Figure(title, draw, (9, 4), panels=2)


def shares(
  title: str, rows: Mapping[str, Mapping[str, float]], x_label: str
) -> Figure:
  """A bar for each row, of its parts one behind the other."""
  parts = list(dict.fromkeys(part for row in rows.values() for part in row))
  names = [_short(name) for name in rows]

  def draw(axes):
    places = np.arange(len(rows))
    left = np.zeros(len(rows))
    for i, part in enumerate(parts):
      values = np.array([row.get(part, 0.0) for row in rows.values()])
      color = COLORS[i % len(COLORS)]
      axes.barh(places, values, left=left, label=part, color=color)
      left += values
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_title(title, loc="left")
    axes.set_xlabel(x_label)
    axes.figure.legend(ncols=4, loc="outside lower center")

  return Figure(title, draw, (4.8, 1.6 + 0.4 * len(rows)))


def confusion(
  title: str, matrix: np.ndarray, names: Sequence[str], *, others: bool
) -> Figure:
  """A confusion matrix, coloured by the share of each row.

  Args:
    title: of the figure.
    matrix: (m, m + 1) counts; the last column is of other classes.
    names: of the m classes.
    others: whether to show the last column.
  """
  shown = matrix if others else matrix[:, :-1]
  rate = shown / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
  names = [_short(name, 18) for name in names]
  few = len(names) <= 12

  def draw(axes):
    axes.imshow(rate, cmap="viridis", vmin=0, vmax=1)
    axes.set_title(title, loc="left")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(names) <= _SMALL:
      columns = [*names, "others"] if others else names
      size = 10 if few else 7
      axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=size)
      axes.set_yticks(range(len(names)), names, fontsize=size)
      for (row, column), count in np.ndenumerate(shown):
        if count:
          dark = rate[row, column] < 0.6
          axes.text(
            column,
            row,
            str(count),
            ha="center",
            va="center",
            color="white" if dark else "black",
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
    title: of the figure.
    maps: (rows, columns, h, w).
    row_label, column_label: what they count.
    row_names, column_names: their numbers; None to count from 0.
    each: whether colours span the values of each map, in place of all.
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


def overlay(
  image: np.ndarray, heat: np.ndarray, least: int = 160
) -> np.ndarray:
  """An image in grey with a map over it in colours.

  Args:
    image: uint8 (h, w, c), with 1 or 3 channels.
    heat: (grid_h, grid_w), of any range; its largest value is the brightest.
    least: see `rgb`.

  Returns:
    uint8 (h, w, 3).
  """
  image = rgb(image, least)
  h, w, _ = image.shape
  heat = cv2.resize(
    np.asarray(heat, np.float32), (w, h), interpolation=cv2.INTER_LINEAR
  )
  low, high = heat.min(), heat.max()
  heat = (heat - low) / (high - low if high > low else 1)
  colors = matplotlib.colormaps["inferno"](heat)[..., :3] * 255
  grey = image.mean(axis=-1, keepdims=True)
  return np.rint(0.45 * grey + 0.55 * colors).astype(np.uint8)


def rgb(image: np.ndarray, least: int = 160) -> np.ndarray:
  """A uint8 image with three channels, at least so many pixels wide."""
  if image.shape[2] not in (1, 3):
    image = image[..., :1]
  image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
  times = -(-least // image.shape[1])
  return image.repeat(times, axis=0).repeat(times, axis=1)


def png(image: np.ndarray) -> bytes:
  """The PNG file of a uint8 image, (h, w, 3)."""
  _, data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
  return data.tobytes()


def data_uri(png: bytes) -> str:
  """A PNG file as an address that holds it."""
  return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _plain_numbers(axis) -> None:
  """Of a logarithmic axis, whose own labels are formulas."""
  axis.set_major_formatter(lambda value, _: f"{value:g}")
  axis.set_minor_formatter(ticker.NullFormatter())


def _short(name: str, most: int = 28) -> str:
  """The end of a name that is too long, where names of runs differ."""
  return name if len(name) <= most else f"…{name[1 - most :]}"
