"""The schema of a run: frozen dataclasses, one for each section of a config.

An annotation is all that declares a key: its type, its range (see `ranges`)
and its choices. `resolving` checks a config against them and fills them. The
open sections (`model`, `optim`, the options of each eval) belong to the
packages that read them: there the signature of the callee is the schema.

A duration is written with its unit as the suffix, for example
`total_epochs=90` or `every_steps=1000`; `to_steps` is the only converter.
"""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from vitjax.config.ranges import (
  Count,
  Index,
  NonNegative,
  Positive,
  Probability,
  Range,
  Rate,
)

UNITS = ("steps", "epochs", "examples", "percent")


class ConfigError(ValueError):
  """A config that cannot be run, with every reason in its message."""


@dataclasses.dataclass(frozen=True)
class Duration:
  """A length of training: `value` times `unit`, see `UNITS`."""

  value: float
  unit: str

  def __str__(self):
    return f"{self.value:g} {self.unit}"


def is_duration(kind: Any) -> bool:
  """Whether an annotation is `Duration` or `Duration | None`."""
  return kind is Duration or Duration in typing.get_args(kind)


def to_steps(
  duration: Duration,
  *,
  batch_size: int,
  num_examples: int,
  total_steps: int | None = None,
) -> int:
  """Number of training steps, at least 1, that last as long as `duration`.

  Args:
    duration: what the config says.
    batch_size: global examples per step.
    num_examples: examples in one epoch.
    total_steps: length of the run, needed for "percent" only.
  """
  if duration.unit == "percent":
    if total_steps is None:
      raise ConfigError(
        f"config.total_percent={duration.value:g}: the length of a run cannot "
        "be a share of itself. Give total_steps, total_epochs or "
        "total_examples."
      )
    steps = duration.value / 100 * total_steps
  else:
    examples = {"steps": batch_size, "epochs": num_examples, "examples": 1}
    steps = duration.value * examples[duration.unit] / batch_size
  return max(1, int(steps))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Input:
  """Training data.

  Attributes:
    data: data set: a TFDS name, "folder:/path", "labels:/path/file.csv",
      "wds:/path/{000..099}.tar", "parquet:/path", "captions:/path/file.jsonl",
      "images:/path" (without labels), "digits", or several as in
      "mixture:0.7*folder:/path+0.3*wds:/path"; see docs/data.md.
    split: part of the data set to train on, in TFDS notation, such as "train",
      "train[:90%]" or "train+val".
    data_dir: folder in which TFDS looks for prepared data sets. None: TFDS's
      default.
    batch_size: images per step, over all devices and processes; a multiple of
      the number of devices times `accumulation_steps`.
    sampling: how often the classes of the images are shown. "balanced": all
      alike; "sqrt": in proportion to the square root of their images. An epoch
      stays as many images as there are. None: each image once in each epoch.
    repeats: repeated augmentation: how often an image appears in a batch, each
      time with other random ops.
    views: number of different views of an image. The random ops of its visit n,
      an epoch or one of its `repeats` in an epoch, are those of visit n mod
      `views`. None: each visit has its own.
    prefetch: batches buffered ahead, on each host and on its devices. Changes
      no result.
    cache: keep decoded images of training and evals in memory, if all have one
      size. Changes no result.
    pp: preprocessing ops, separated by "|"; docs/reference/ops.md lists them.
  """

  data: str
  split: str = "train"
  data_dir: str | None = None
  batch_size: Count
  sampling: Literal["balanced", "sqrt"] | None = None
  repeats: Count = 1
  views: Count | None = None
  prefetch: Count = 2
  cache: bool = False
  pp: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flexible:
  """Patch and image sizes that change from step to step; see docs/flexible.md.

  Attributes:
    patch_sizes: patch sizes of a ViT in pixels, such as (8, 12, 16): each step
      draws one, all equally often (FlexiViT). (): the model's own.
    image_sizes: sides of the training images in pixels, such as (96, 128, 160),
      used one after the other (progressive resizing). The images of `input.pp`
      are resized on the device; the largest size is theirs. (): that size.
    image_shares: how long each of `image_sizes` is used, relative to the
      others, such as (2, 1, 1). (): all equally long.
  """

  patch_sizes: Sequence[Count] = ()
  image_sizes: Sequence[Count] = ()
  image_shares: Sequence[Positive] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Init:
  """Weights to start from; a resumed run loads its own checkpoint instead.

  Position tables are resized to the images of the run.

  Attributes:
    weights: weights to load: a path, a URL, a published name or a run folder;
      for a model with two towers also {"img": ..., "txt": ...}, with weights of
      one tower each. None: random parameters.
    channels: how the first kernels of a model for other channels, such as RGB,
      are adapted to the images. "sum": each channel gets the sum of the old
      channels divided by the number of new ones; "repeat": the old channels
      are repeated, times old / new number; "first": the first old channels, and
      zeros for further ones. None: such weights are refused.
    reinit: parameters to initialise at random instead of loading them: names,
      names of modules or regexes, such as ("head",).
    ignore: arrays of the file that are not loaded, such as ("pre_logits",),
      written likewise.
  """

  weights: str | Mapping[str, str] | None = None
  channels: Literal["sum", "repeat", "first"] | None = None
  reinit: Sequence[str] = ()
  ignore: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixing:
  """Mixing and erasing of images on the device, over the global batch.

  Attributes:
    mixup_alpha: parameter of mixup's Beta distribution. 0: no mixup.
    cutmix_alpha: parameter of CutMix's Beta distribution. 0: no CutMix.
    prob: probability of mixing a batch, or with mode="elem" an example.
    switch_prob: probability of CutMix rather than mixup, where both are on.
    mode: whether the random numbers are drawn once for the batch ("batch") or
      for each example ("elem").
    partner: which example an example is mixed with: the one before it ("roll",
      as in big_vision), or the one at the mirrored place in the batch ("flip",
      as in timm).
    erase_prob: probability of replacing a box of an image by noise.
    label_smoothing: share of the target that is spread over all classes;
      where images have several classes, halfway between 0 and 1 for each.
  """

  mixup_alpha: NonNegative = 0.0
  cutmix_alpha: NonNegative = 0.0
  prob: Probability = 1.0
  switch_prob: Probability = 0.5
  mode: Literal["batch", "elem"] = "batch"
  partner: Literal["roll", "flip"] = "roll"
  erase_prob: Probability = 0.0
  label_smoothing: Rate = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ema:
  """Average of the parameters, updated at each step: exponential or uniform.

  Attributes:
    decay: weight of an exponential average so far at each step, such as 0.9999.
      None: no exponential average.
    warmup: use min(decay, (1 + step) / (10 + step)) as the weight, which is
      smaller at the start.
    uniform_from: stochastic weight averaging: the uniform average of the
      parameters after each step that follows this point of the run; before,
      the latest parameters. None: no uniform average.
  """

  decay: Rate | None = None
  warmup: bool = False
  uniform_from: Duration | None = None

  @property
  def is_on(self) -> bool:
    """Whether the run keeps an average."""
    return self.decay is not None or self.uniform_from is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statistics:
  """Running statistics of batch normalisation; no effect on other models.

  Attributes:
    freeze: norms whose scale `optim.freeze` names normalise with their running
      statistics and do not update them, as PyTorch's do after `.eval()`. False:
      they train like the other norms, as PyTorch's do with
      `requires_grad=False` alone.
    ema: the average of the parameters comes with the average of the statistics
      ("average", as timm has it) or with the latest statistics ("latest").
  """

  freeze: bool = True
  ema: Literal["average", "latest"] = "average"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sam:
  """Sharpness-aware minimisation (SAM, GSAM): two gradients a step.

  Attributes:
    rho: radius of the neighbourhood in parameter space. 0: no SAM.
    rho_min: radius at learning rate 0; the radius then follows the learning
      rate, from `rho` at its peak. None: the radius is constant.
    alpha: weight of GSAM's surrogate gap. 0: plain SAM.
  """

  rho: NonNegative = 0.0
  rho_min: NonNegative | None = None
  alpha: NonNegative = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
  """Learning rate over time, as a factor of `optim.learning_rate`.

  Attributes:
    decay: shape of the schedule after the warm-up.
    warmup: duration of the linear rise from 0. None: no warm-up.
    end_value: factor at the end of the run, for "cosine" and "linear".
    timescale: duration from the end of the warm-up until the factor is
      sqrt(1/2), for "rsqrt", or 1/2, for "exponential". None: 10,000 steps.
    cooldown: duration of the linear fall to 0 at the end of the run, for
      "constant", "exponential" and "rsqrt". None: no cool-down.
  """

  decay: Literal["constant", "cosine", "exponential", "linear", "rsqrt"] = (
    "cosine"
  )
  warmup: Duration | None = None
  end_value: Probability = 0.0
  timescale: Duration | None = None
  cooldown: Duration | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distill:
  """Learning from a trained model, the teacher, which does not change.

  The teacher sees the images that the model sees, after mixing and erasing,
  with its own normalisation; resized (bilinear, antialiased) if it was trained
  at another size.

  Attributes:
    teacher: trained model: a run folder, an exported file, a published name or
      a repository "hf:OWNER/REPO". It must be a classifier of the same classes,
      or with loss="features" any model of images; of two towers, the image
      tower teaches. None: no teacher.
    loss: distance from the teacher's outputs: "kl" (Kullback-Leibler divergence
      from its probabilities, times the square of the temperature; one for each
      class, added up, if `config.loss` is a sigmoid's), "hard" (cross-entropy
      with the class that it predicts) or "features" (1 - cosine of the
      features before both heads, or of the image embedding; a learned linear
      projection maps the model's features if their number differs).
    temperature: number by which "kl" divides the logits of both.
    label_weight: share of `config.loss`, the loss on the labels; the distance
      from the teacher has the rest.
    dtype: type of the teacher's parameters and activations.
    cache: folder in which the teacher's outputs for each view of each image are
      kept, to be read instead of computed when the view returns. Needs
      `input.views` and images that are not mixed, erased or resized by
      `flexible.image_sizes`. Changes no result.
      None: the teacher runs in each step.
  """

  teacher: str | None = None
  loss: Literal["kl", "hard", "features"] = "kl"
  temperature: Positive = 1.0
  label_weight: Probability = 0.0
  dtype: Literal["bfloat16", "float32"] = "bfloat16"
  cache: str | None = None


# Number of devices on an axis of the mesh; -1: all remaining devices.
_Axis = Annotated[int, Range(ge=-1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mesh:
  """Devices on each axis of the mesh; their product is all devices.

  Each axis is 1 or more; one of them may be -1, which takes all devices that
  the others leave.

  Attributes:
    data: devices that split the batch; each holds all parameters.
    fsdp: devices that split the batch and, with sharding="fsdp" or "tensor",
      also the parameters and the optimizer state.
    model: devices that work on the same part of the batch and, with
      sharding="tensor", split each layer.
  """

  data: _Axis = -1
  fsdp: _Axis = 1
  model: _Axis = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Eval:
  """One evaluation, a section of `config.evals`.

  Attributes:
    type: evaluator: "classification", "multi_label", "regression", "fewshot",
      "knn", "linear_probe", "perplexity", "retrieval", "zeroshot", or the
      dotted path of a module with a class `Evaluator`.
    data: data set, as in `input`. None: the training data.
    split: part of the data set to evaluate, in which each image occurs once.
    data_dir: folder in which TFDS looks for prepared data sets. None: as in
      `input`.
    batch_size: images per step, over all devices; rounded up to a multiple of
      the number of devices. Changes no metric. None: as in `input`.
    pp: preprocessing ops; they must normalise images as in training.
    every: interval during training; the end is always evaluated. None: the
      end only.
    patch_sizes: patch sizes to evaluate a ViT at, such as (8, 16); the names of
      its metrics then begin with the size: NAME/patch8/acc@1. (): the model's
      own.
    optional: skip the eval with a warning if its data are absent.
    options: all other keys of the section: arguments of the evaluator.
  """

  type: str = "classification"
  data: str | None = None
  split: str
  data_dir: str | None = None
  batch_size: Count | None = None
  pp: str
  every: Duration | None = None
  patch_sizes: Sequence[Count] = ()
  optional: bool = False
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
  """When to save, and what to keep besides the latest checkpoints.

  Attributes:
    every: interval between checkpoints; the end is always saved.
    keep_every: interval between checkpoints that are never deleted. None: all
      but the latest are deleted.
    best_metric: metric whose best checkpoint is kept too: EVAL/METRIC, such as
      "val/acc@1", or "val_ema/acc@1" for the averaged parameters. The run then
      also saves at each eval. None: keep no best checkpoint.
    best_mode: whether the largest ("max") or the smallest ("min") value is the
      best. None: "min" for losses and errors, "max" for accuracies; required
      for metrics with other names.
    patience: early stopping: end the run after this number of evals in a row
      that have not improved `best_metric`. None: train to the end.
    max_failures: number of failed saves in a row after which the run stops.
  """

  every: Duration = Duration(1000, "steps")
  keep_every: Duration | None = None
  best_metric: str | None = None
  best_mode: Literal["max", "min"] | None = None
  patience: Count | None = None
  max_failures: Count = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
  """Metrics and profiles of the training steps.

  Attributes:
    every: interval between two records of the training loss.
    trackers: where metrics go besides metrics.jsonl: names, such as
      ("tensorboard", "csv", "wandb", "mlflow"), or names with their options,
      such as {"wandb": {"project": "birds"}}. Changes no result.
    profile_first_step: number of steps before the profile for TensorBoard
      starts; 10 leaves compilation out. None: no profile.
    profile_num_steps: number of steps to profile.
  """

  every: Duration = Duration(50, "steps")
  trackers: Sequence[str] | Mapping[str, Any] = ("tensorboard",)
  profile_first_step: Index | None = None
  profile_num_steps: Count = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
  """Everything that decides what a run does.

  Attributes:
    seed: seed of all random numbers: parameters, order of images, ops, dropout.
    total: length of the run.
    num_classes: outputs of the head; at least the number of classes of the
      data. None: that number.
    loss: training loss: "softmax_xent", "focal", "sigmoid_xent",
      "sigmoid_xent_mean" or "sigmoid_focal"; for numbers "mse" or "huber"; for
      a model with two towers "contrastive" or "siglip"; for a masked
      autoencoder, "mae", "normalised_pixel_mse" or "pixel_mse"; for a
      "captioner" "caption_xent".
    target_threshold: mixed targets above this value become 1, all others 0;
      DeiT III uses 0. None: mixed targets are not changed.
    class_weights: weight of each class in the loss, in order of class ids,
      such as (1, 5, 2), or "balanced": n / (classes * images of the class).
      Where images have several classes, the weight of its positive images;
      "balanced": negative / positive. None: all images weigh the same.
    accumulation_steps: parts into which a batch is split to save memory; must
      divide `input.batch_size`. Changes no result but those of dropout and
      batch normalisation. The losses of two towers then cost one more forward
      pass.
    input: training data.
    flexible: patch and image sizes that change from step to step.
    pretrained_dir: folder, or gs:// or https:// address, from which published
      names in `init.weights` and `distill.teacher` are loaded. None: download
      the published files.
    init: weights to start from.
    model: `name` and the options of the model.
    optim: `name` and the options of the optimizer.
    schedule: learning rate over time.
    mixing: mixing and erasing of images.
    ema: average of the parameters.
    statistics: running statistics of batch normalisation.
    sam: sharpness-aware minimisation.
    distill: learning from a teacher.
    sharding: how parameters are split over the mesh: "replicated", "fsdp" or
      "tensor", or a list of rules (regex of parameter names, for each dimension
      a mesh axis or None).
    mesh: number of devices on each axis of the mesh.
    evals: evaluations, a section for each by its name, which has no slash; None
      as a section removes the eval.
    checkpoint: what to save.
    report: what to record.
    export_npz: write params.npz into the run folder at the end.
  """

  seed: Annotated[int, Range(ge=0, lt=2**32)] = 0
  total: Duration
  num_classes: Count | None = None
  loss: str = "softmax_xent"
  target_threshold: Rate | None = None
  class_weights: Literal["balanced"] | Sequence[Positive] | None = None
  accumulation_steps: Count = 1
  input: Input
  flexible: Flexible = Flexible()
  pretrained_dir: str | None = None
  init: Init = Init()
  model: Mapping[str, Any]
  optim: Mapping[str, Any]
  schedule: Schedule = Schedule()
  mixing: Mixing = Mixing()
  ema: Ema = Ema()
  statistics: Statistics = Statistics()
  sam: Sam = Sam()
  distill: Distill = Distill()
  sharding: str | Sequence[tuple[str, Any]] = "replicated"
  mesh: Mesh = Mesh()
  evals: Mapping[str, Eval] = dataclasses.field(default_factory=dict)
  checkpoint: Checkpoint = Checkpoint()
  report: Report = Report()
  export_npz: bool = False


OPEN = ("model", "optim")  # sections read by their own package


def split_name(section: Any) -> tuple[str, dict[str, Any]]:
  """The `name` of an open section, and the rest of it."""
  rest = dict(section)
  return rest.pop("name"), rest
