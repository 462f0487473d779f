r"""Exports a run: its parameters, or the model as a graph, or to a hub.

  python -m vitjax.export --model=runs/quickstart --format=npz --out=digits.npz
  python -m vitjax.export --model=runs/quickstart --out=digits.safetensors
  python -m vitjax.export --model=runs/mine --input=pixels --out=mine.onnx
  python -m vitjax.export --model=runs/mine --out=mine.stablehlo
  python -m vitjax.export --model=runs/mine --format=web --out=site
  python -m vitjax.export --model=runs/mine --push=hf:ME/MODEL --license=mit

.npz and .safetensors hold the parameters, for other frameworks. A JSON file
with the same name says which model the arrays belong to, how images are
prepared, and the names of the classes. Without --layout, `.npz` has
big_vision's names and `.safetensors` has timm's.

.onnx (pip install "vitjax[onnx]") and .stablehlo hold a graph that runs
without vitjax, for every batch size: see docs/deploy.md. The graph is run on
photographs, and a file whose outputs are not those of the model is not left.

--format=web writes a folder for any static web server: a page on which the
model runs in the visitor's browser. See docs/browser.md.

--push uploads the model to the Hugging Face hub, with a model card, and in the
form that `timm.create_model("hf-hub:ME/MODEL", pretrained=True)` reads if timm
has the architecture. A new repository is private unless --noprivate is given.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from absl import app, flags, logging

import vitjax
from vitjax import weights
from vitjax.config import command_line
from vitjax.run_folder import history
from vitjax.weights.hub import card, pushing

FLAGS = flags.FLAGS
_GRAPHS = ("onnx", "stablehlo")
_WEB = "web"
# Flags that only other formats, or only a page, read.
_NOT_FOR_WEB = ("accuracy", "calibrate", "images", "layout")
_FOR_WEB = ("captions", "runtime", "title")


def define_flags() -> None:
  """Defines the flags of the command."""
  flags.DEFINE_string(
    "model",
    None,
    "Run folder, exported file, hf:OWNER/REPO or published name.",
    required=True,
  )
  flags.DEFINE_string("out", None, "File to write.")
  flags.DEFINE_string(
    "push", None, "Repository of the Hugging Face hub, as hf:ME/MODEL."
  )
  flags.DEFINE_string(
    "license",
    None,
    "Licence of a model that is pushed, such as apache-2.0; an unknown one "
    "lists them all.",
  )
  flags.DEFINE_bool(
    "private", True, "Whether a repository that --push creates is private."
  )
  flags.DEFINE_string(
    "message", "Upload a model of vitjax", "Message of the commit of --push."
  )
  flags.DEFINE_enum(
    "format",
    None,
    ["npz", "safetensors", *_GRAPHS, _WEB],
    "File format; --out must have this suffix. web: a folder.",
  )
  flags.DEFINE_string(
    "layout",
    None,
    "Layout of the names of the arrays; an unknown one lists them all.",
  )
  _define_graph_flags()
  _define_web_flags()
  command_line.define_checkpoint()
  command_line.define_allow_module()


def _define_graph_flags() -> None:
  """Defines the flags of .onnx and .stablehlo."""
  flags.DEFINE_enum(
    "input",
    "tensor",
    ["tensor", "pixels"],
    "Input of a graph: prepared images of the model's size, or uint8 pixels of "
    "any size, which the graph prepares.",
  )
  flags.DEFINE_enum(
    "tower", "img", ["img", "txt"], "Tower of a model that has two."
  )
  flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "float16", "int8"],
    "Numbers in an ONNX file; see --accuracy.",
  )
  flags.DEFINE_string(
    "calibrate",
    None,
    "Folder of images on which the ranges of int8 activations are measured; "
    "convolutions are then int8, too.",
  )
  flags.DEFINE_list(
    "images",
    [],
    "Images on which the graph is compared with the model, files or folders; "
    "by default photographs that are installed with scikit-learn.",
  )
  flags.DEFINE_float(
    "tolerance",
    None,
    "Largest difference of outputs, relative to the largest; by default 1e-5, "
    "0.01 in float16 and 0.5 in int8.",
  )
  flags.DEFINE_string(
    "accuracy",
    None,
    "Measure the accuracy of the file and of the model on these data, as "
    "DATA:SPLIT, such as folder:photos:val or fashion_mnist:test.",
  )


def _define_web_flags() -> None:
  """Defines the flags of --format=web."""
  flags.DEFINE_string(
    "title", None, "Headline of a web page; by default the name of the model."
  )
  flags.DEFINE_list(
    "captions",
    [],
    "Captions at the start on the web page of a model with two towers.",
  )
  flags.DEFINE_string(
    "runtime",
    None,
    "Folder with the JavaScript packages of a web page, for a machine without "
    "a network; by default they are downloaded once.",
  )


def export(
  model: str | os.PathLike,
  out: str | os.PathLike,
  *,
  layout: str | None = None,
  step: int | str = "latest",
  ema: bool = False,
  allow_module: str | None = None,
) -> None:
  """Loads, converts, writes; see `vitjax.load` and `vitjax.weights.save`.

  Raises:
    ValueError: if the JSON file of this name describes a file of the other
      format, among other reasons.
  """
  out = pathlib.Path(out)
  about = out.with_suffix(".json")
  for suffix in {".npz", ".safetensors"} - {out.suffix}:
    if about.exists() and out.with_suffix(suffix).exists():
      raise ValueError(
        f"{about} describes {out.with_suffix(suffix)}, and {out} would replace "
        f"it by its own. Give another name, such as --out={out.stem}_2"
        f"{out.suffix}."
      )
  run = vitjax.load(model, step=step, ema=ema, allow_module=allow_module)
  weights.save(out, run.params, run.model, layout=layout, metadata=run.metadata)


def push(
  model: str | os.PathLike,
  name: str,
  *,
  license: str | None,
  private: bool = True,
  message: str = "Upload a model of vitjax",
  step: int | str = "latest",
  ema: bool = False,
  allow_module: str | None = None,
) -> str:
  """Loads and uploads; see `vitjax.load` and `weights.hub.pushing.push`.

  Args:
    model: as for `export`, like `step`, `ema` and `allow_module`.
    name: "hf:OWNER/REPO".
    license: identifier of the licence under which others may use the model.
    private: whether a new repository is private.
    message: of the commit.

  Returns:
    The name of the repository with its new commit.
  """
  pushing.check_licence(license)
  run = vitjax.load(model, step=step, ema=ema, allow_module=allow_module)
  repo = pushing.push(
    name,
    run.params,
    run.model,
    run.metadata,
    licence=license,
    private=private,
    message=message,
    version=vitjax.__version__,
    metrics=_metrics(model, run.metadata),
  )
  return str(repo)


def _metrics(
  model: str | os.PathLike, metadata: Mapping[str, Any]
) -> list[card.Metric]:
  """The results of a run at the step of its weights, with their examples."""
  if metadata.get("ema") or not os.path.isdir(model):
    return []  # those of a run are of its last weights
  record = history.read([model])[0]
  sections = (record.config or {}).get("evals") or {}
  found = []
  for key, (steps, values) in sorted(record.metrics.items()):
    group = key.partition("/")[0]
    at = [
      value for step, value in zip(steps, values) if step == metadata["step"]
    ]
    if group in record.num_seen and at:
      section = sections.get(group, {})
      data = section.get("data") or record.data_name.partition(" ")[0]
      data = " ".join(filter(None, (data, section.get("split"))))
      found.append(
        card.Metric(key, float(at[-1]), record.num_seen[group], data)
      )
  return found


def main(argv: list[str]) -> None:
  """Reads the flags, and reports errors in one line."""
  if len(argv) > 1:
    raise app.UsageError(f"{argv[1]!r} is not a flag.")
  if (FLAGS.out is None) == (FLAGS.push is None):
    raise app.UsageError("give --out=FILE, or --push=hf:ME/MODEL.")
  is_web = FLAGS.format == _WEB
  if FLAGS.out and FLAGS.format and not is_web:
    if not FLAGS.out.endswith(f".{FLAGS.format}"):
      raise app.UsageError(f"--out={FLAGS.out} must end in .{FLAGS.format}.")
  if FLAGS.push and (FLAGS.layout or FLAGS.format):
    raise app.UsageError(
      "--layout and --format are for --out; --push chooses what timm reads."
    )
  for name in _NOT_FOR_WEB if is_web else _FOR_WEB:
    if FLAGS[name].value:
      what = "not for" if is_web else "only for"
      raise app.UsageError(f"--{name} is {what} --format=web.")
  source = {
    "step": FLAGS.step,
    "ema": FLAGS.ema,
    "allow_module": FLAGS.allow_module,
  }
  try:
    if FLAGS.push:
      pushed = push(
        FLAGS.model,
        FLAGS.push,
        license=FLAGS.license,
        private=FLAGS.private,
        message=FLAGS.message,
        **source,
      )
      logging.info("Pushed %s.", pushed)
      return
    out = pathlib.Path(FLAGS.out)
    if is_web or out.suffix[1:] in _GRAPHS:
      _export_graph(out)
    else:
      export(FLAGS.model, out, layout=FLAGS.layout, **source)
      logging.info("Wrote %s and %s.", out, out.with_suffix(".json"))
  except (ValueError, OSError, RuntimeError, ImportError) as e:
    raise SystemExit(f"vitjax.export: {e}") from None


def _export_graph(out: pathlib.Path) -> None:
  """Writes graphs as the flags say, and logs how they compare."""
  run = vitjax.load(
    FLAGS.model,
    step=FLAGS.step,
    ema=FLAGS.ema,
    allow_module=FLAGS.allow_module,
  )
  if FLAGS.format == _WEB:
    from vitjax.web import site

    lines = site.write(
      run,
      out,
      title=FLAGS.title or pathlib.Path(FLAGS.model).stem,
      precision=FLAGS.precision,
      captions=FLAGS.captions,
      runtime=FLAGS.runtime,
      tolerance=FLAGS.tolerance,
    )
  else:
    from vitjax.graphs import command

    lines = command.export(
      run,
      out,
      input=FLAGS.input,
      tower=FLAGS.tower,
      precision=FLAGS.precision,
      calibrate=FLAGS.calibrate,
      images=FLAGS.images,
      tolerance=FLAGS.tolerance,
      accuracy=FLAGS.accuracy,
    )
  for line in lines:
    logging.info("%s", line)


if __name__ == "__main__":
  command_line.set_up_logging()
  command_line.run(main, define_flags)
