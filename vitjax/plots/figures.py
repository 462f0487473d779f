"""Figures in matplotlib, as SVG for a page and as PNG files.

Lines and letters of an SVG have the colour of the text around it, so that a
page can be light or dark. Figures are not registered with pyplot, and names are
never read as formulas.
"""

import io
from collections.abc import Callable

import numpy as np

from vitjax.config import extras

with extras.needed("plots", "plots"):
  import matplotlib
  from matplotlib import figure, rcsetup, ticker

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
  "axes.prop_cycle": rcsetup.cycler(color=COLORS),
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


def short_numbers(axis) -> None:
  """Labels an axis with a few numbers such as 10k."""
  axis.set_major_formatter(ticker.EngFormatter(sep=""))
  axis.set_major_locator(ticker.MaxNLocator(5))


def plain_numbers(axis) -> None:
  """Labels a logarithmic axis with numbers instead of formulas."""
  axis.set_major_formatter(lambda value, _: f"{value:g}")
  axis.set_minor_formatter(ticker.NullFormatter())


def short(name: str, most: int = 28) -> str:
  """The end of a name that is too long; names of runs differ there."""
  return name if len(name) <= most else f"…{name[1 - most :]}"


def colors_of(values: np.ndarray) -> np.ndarray:
  """Colours of numbers in [0, 1], from dark to bright: floats (..., 3)."""
  return matplotlib.colormaps["inferno"](values)[..., :3]
