"""Curves, bars and points of one or more runs."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from vitjax.plots.figures import (
  COLORS,
  Figure,
  plain_numbers,
  short,
  short_numbers,
)

_MOST_NAMES = 15  # of a group in a plot of points


def curves(
  title: str,
  series: Mapping[str, tuple[np.ndarray, np.ndarray]],
  x_label: str,
  *,
  names: Sequence[str] = (),
  log_scale: bool = True,
) -> Figure:
  """Several lines in one figure.

  Args:
    title: title of the figure.
    series: name -> (x, y). Values that are not finite leave a gap.
    x_label: label of the x axis.
    names: all series that have a colour, here or in other figures.
    log_scale: use a logarithmic axis for values of very different size.
  """

  def draw(axes):
    styles = ("-", "--", ":", "-.")
    order = list(dict.fromkeys([*names, *series]))
    for name, (x, y) in series.items():
      i = order.index(name)
      axes.plot(
        x,
        np.where(np.isfinite(y), y, np.nan),
        label=short(name),
        linewidth=1.3,
        color=COLORS[i % len(COLORS)],
        linestyle=styles[i // len(COLORS) % len(styles)],
        marker="o" if len(x) < 40 else None,
        markersize=3,
      )
    axes.set_title(title, loc="left")
    axes.set_xlabel(x_label)
    axes.grid(True)
    short_numbers(axes.xaxis)
    values = np.concatenate([y[np.isfinite(y)] for _, y in series.values()])
    if (
      log_scale
      and values.size
      and 0 < values.min()
      and values.max() > 50 * values.min()
    ):
      axes.set_yscale("log")
      plain_numbers(axes.yaxis)
    if len(order) > 1:
      axes.legend()

  return Figure(title, draw)


def settings(
  title: str,
  series: Mapping[str, tuple[np.ndarray, np.ndarray]],
  x_label: str,
  *,
  ticks: Sequence[str] | None = None,
) -> Figure:
  """A result over the values of a setting.

  Args:
    title: title of the figure.
    series: name -> (x, y). Values that are not finite leave a gap.
    x_label: label of the x axis; logarithmic for values of different size.
    ticks: names of the places 0, 1, ...; None if the values are numbers.
  """

  def draw(axes):
    for name, (x, y) in series.items():
      axes.plot(x, np.where(np.isfinite(y), y, np.nan), "o-", label=short(name))
    axes.set_title(title, loc="left")
    axes.set_xlabel(x_label)
    axes.grid(True)
    x = np.concatenate([x for x, _ in series.values()])
    if ticks is not None:
      axes.set_xticks(range(len(ticks)), ticks)
    elif 0 < x.min() and x.max() >= 5 * x.min():
      axes.set_xscale("log")
      axes.set_xticks(np.unique(x))
      plain_numbers(axes.xaxis)
    if len(series) > 1:
      axes.legend()

  return Figure(title, draw)


def trade_off(
  title: str,
  points: Mapping[str, Sequence[tuple[str, float, float, float, bool | None]]],
  labels: tuple[str, str, str],
) -> Figure:
  """A quality against two costs, side by side; the front is filled.

  Points are numbered from the largest first cost on, with their names below;
  of a group of many only those on the front.

  Args:
    title: title of the figure.
    points: group -> (name, first cost, second cost, quality, on the front).
    labels: labels of the costs and of the quality.
  """

  named = [
    (cost, name)
    for members in points.values()
    for name, cost, *_, on_front in members
    if on_front or len(members) <= _MOST_NAMES
  ]
  numbers = {x: i for i, x in enumerate(sorted(named, reverse=True), 1)}

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
            numbers.get((costs[0], name), ""),
            (costs[panel], quality),
            xytext=(4, 4),
            textcoords="offset points",
            fontsize=8,
          )
        if panel == 0:
          front = sorted((m[1], m[3]) for m in members if m[4])
          axes.plot(
            *zip(*front), color=color, alpha=0.6, label=short(group, 60)
          )
      axes.set_xscale("log")
      plain_numbers(axes.xaxis)
      axes.set_xlabel(label)
      axes.grid(True)
    panels[0].set_ylabel(labels[2])
    panels[0].set_title(title, loc="left")
    for (_, name), i in numbers.items():
      last = name.rstrip("/").rpartition("/")[2]
      panels[0].plot([], [], " ", label=f"{i}  {short(last, 60)}")
    panels[0].figure.legend(loc="outside lower center", ncols=2)

  return Figure(title, draw, (9, 5), panels=2)


def shares(
  title: str, rows: Mapping[str, Mapping[str, float]], x_label: str
) -> Figure:
  """A bar for each row, made of its parts."""
  parts = list(dict.fromkeys(part for row in rows.values() for part in row))
  names = [short(name) for name in rows]

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
