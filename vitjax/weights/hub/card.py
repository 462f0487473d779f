"""The model card of a repository: README.md with a header for the hub."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# Identifiers that the hub knows; `other` needs a text of your own beside it.
LICENCES = (
  "afl-3.0",
  "agpl-3.0",
  "apache-2.0",
  "artistic-2.0",
  "bsd-2-clause",
  "bsd-3-clause",
  "bsl-1.0",
  "cc-by-4.0",
  "cc-by-nc-4.0",
  "cc-by-nc-nd-4.0",
  "cc-by-nc-sa-4.0",
  "cc-by-nd-4.0",
  "cc-by-sa-4.0",
  "cc0-1.0",
  "ecl-2.0",
  "epl-2.0",
  "eupl-1.1",
  "gpl-3.0",
  "isc",
  "lgpl-3.0",
  "mit",
  "mpl-2.0",
  "openrail",
  "other",
  "unlicense",
)


class Metric(NamedTuple):
  """A row of the table of results.

  Attributes:
    name: such as "val/acc@1".
    value: its value.
    examples: number of examples that it was measured on; None if unknown.
    data: the examples, such as "cifar10 test".
  """

  name: str
  value: float
  examples: int | None
  data: str


def write(
  repo: str,
  metadata: Mapping[str, Any],
  *,
  family: str,
  parameters: int,
  licence: str,
  version: str,
  metrics: Sequence[Metric] = (),
  is_timm: bool = False,
  remark: str = "",
) -> str:
  """The text of a model card.

  Args:
    repo: "OWNER/REPO".
    metadata: content of `model.json`.
    family: family of the model.
    parameters: number of its parameters.
    licence: one of `LICENCES`.
    version: version of vitjax.
    metrics: results of the weights.
    is_timm: whether timm can load the repository.
    remark: what a user of timm must know.
  """
  has_classes = bool(metadata.get("class_names"))
  task = "image-classification" if has_classes else "image-feature-extraction"
  header = [
    "---",
    f"license: {licence}",
    f"library_name: {'timm' if is_timm else 'vitjax'}",
    f"pipeline_tag: {task}",
    "tags:",
    f"- {task}",
    *(["- timm"] if is_timm else []),
    "- vitjax",
    "---",
  ]
  size = "x".join(map(str, metadata["image_size"]))
  model = metadata["model"]
  name = " ".join(model[k] for k in ("name", "variant") if k in model)
  facts = [
    f"- Model: `{name}` of family `{family}`, {parameters:,} parameters",
    f"- Images: {size} pixels, {metadata['channels']} channels",
  ]
  if names := metadata.get("class_names"):
    shown = ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")
    facts.append(f"- Classes: {len(names):,}: {shown}")
  if metadata.get("data"):
    facts.append(f"- Training data: {metadata['data']}")
  for source in {
    *metadata.get("init", {}).values(),
    *filter(None, [metadata.get("origin")]),
  }:
    facts.append(f"- Weights before training: `{source}`")
  if metadata.get("step") is not None:
    facts.append(f"- Step of training: {metadata['step']:,}")
  facts.append(f"- Trained with vitjax {version}")
  return "\n".join(
    [
      *header,
      f"# {repo.partition('/')[2]}",
      "",
      *facts,
      "",
      "## Results",
      "",
      *_table(metrics),
      "",
      "## Images",
      "",
      "Images are prepared as in the evaluation of training:",
      "",
      f"    {metadata['preprocess']}",
      "",
      "## Use",
      "",
      "```python",
      "import vitjax",
      "",
      f'model = vitjax.load("hf:{repo}")',
      'model.classify("photo.jpg")'
      if has_classes
      else 'model.features([model.prepare("photo.jpg")])',
      "```",
      "",
      *_in_timm(repo, is_timm, remark),
      "",
      "## Licence",
      "",
      f"{licence}, as its uploader states. The licence of the data and of "
      "weights that training began with may say more.",
      "",
    ]
  )


def _table(metrics: Sequence[Metric]) -> list[str]:
  if not metrics:
    return ["No metrics are recorded beside these weights."]
  rows = [
    f"| {x.name} | {x.value:.4g} | {'' if x.examples is None else x.examples} "
    f"| {x.data} |"
    for x in metrics
  ]
  return ["| metric | value | n | data |", "| --- | --- | --- | --- |", *rows]


def _in_timm(repo: str, is_timm: bool, remark: str) -> list[str]:
  if not is_timm:
    return [f"{remark} It is loaded by vitjax only."]
  return [
    "```python",
    "import timm",
    "",
    f'model = timm.create_model("hf-hub:{repo}", pretrained=True).eval()',
    "data = timm.data.resolve_model_data_config(model)",
    "transform = timm.data.create_transform(**data, is_training=False)",
    "```",
    *(["", remark] if remark else []),
  ]
