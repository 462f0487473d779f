r"""A BiT ResNet-152x2 teaches a ResNet-50, with patience.

Knowledge distillation: a good teacher is patient and consistent,
https://arxiv.org/abs/2106.05237, with the settings of big_vision's
`configs/proj/distill`. Not trained here. Published top-1 on ImageNet-1k: 82.8 %
with a second teacher of 384 pixels; with this one alone the result is not known
here. Published time: 300 epochs take 15 hours on 32 cores of TPU v3.

  python -m vitjax.main --config=configs/distill.py
  python -m vitjax.main --config=configs/distill.py:flowers,fast

The student learns from the teacher alone. Other teachers and students, such as
a run folder, are overrides: `--config.distill.teacher=runs/large`.

Different here: the published configs also evaluate the teacher and its distance
from the student.

Options: on (i1k, flowers, pet, food, sun), length (fast, medium, long; not of
i1k), epochs=1200 (of i1k alone), teacher (default: the published one), smoke.
The smoke variant needs a teacher of its made-up data:

  python -m vitjax.main --config=configs/resnet50.py:norm=group,smoke \
    --workdir=/tmp/teacher
  python -m vitjax.main --config=configs/distill.py:smoke,teacher=/tmp/teacher
"""

import ml_collections

from vitjax.config import common

# Data set: name in TFDS, splits of training, validation and test; and for each
# length epochs, temperature, learning rate, weight decay.
SMALL = {
  "flowers": (
    ("oxford_flowers102", "train", "validation", "test"),
    {
      "fast": (10_000, 10.0, 0.003, 3e-4),
      "medium": (100_000, 1.0, 0.001, 1e-4),
      "long": (1_000_000, 1.0, 0.0003, 1e-5),
    },
  ),
  "pet": (
    ("oxford_iiit_pet", "train[:90%]", "train[90%:]", "test"),
    {
      "fast": (1000, 5.0, 0.01, 1e-3),
      "medium": (3000, 10.0, 0.003, 3e-4),
      "long": (30_000, 2.0, 0.003, 1e-5),
    },
  ),
  "food": (
    ("food101", "train[:90%]", "train[90%:]", "validation"),
    {
      "fast": (100, 10.0, 0.01, 1e-3),
      "medium": (1000, 10.0, 0.001, 3e-4),
      "long": (3000, 5.0, 0.01, 1e-4),
    },
  ),
  "sun": (
    ("sun397", "train", "validation", "test"),
    {
      "fast": (100, 10.0, 0.01, 1e-3),
      "medium": (1000, 10.0, 0.001, 1e-4),
      "long": (3000, 10.0, 0.01, 3e-5),
    },
  ),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg,
    positional=2,
    on="i1k",
    length="medium",
    epochs=1200,
    teacher="",
    smoke=False,
  )
  if arg.on == "i1k":
    data = "imagenet2012"
    splits = ("train[:98%]", "train[99%:]", "validation")
    epochs, temperature, learning_rate, decay = arg.epochs, 1.0, 0.03, 3e-4
    size, batch_size, warmup_steps = 224, 4096, 5000
    teacher = "R152x2_T_224"
    crop = "decode_jpeg_and_inception_crop(224)"
  else:
    (data, *splits), lengths = common.pick(SMALL, arg.on, "on")
    epochs, temperature, learning_rate, decay = common.pick(
      lengths, arg.length, "length"
    )
    size, batch_size, warmup_steps = 128, 512, 1500
    teacher = f"R152x2_T_{arg.on}128"
    crop = "decode|inception_crop(128)"

  config = ml_collections.ConfigDict()
  config.seed = 0
  config.total_epochs = epochs
  config.loss = "softmax_xent"

  config.input = {
    "data": data,
    "split": splits[0],
    "batch_size": batch_size,
    "pp": f"{crop}|flip_lr|value_range(-1, 1)",
  }
  config.model = {"name": "resnet", "variant": "BiT-R50x1"}
  config.optim = common.big_vision_adam(learning_rate, decay)
  config.schedule = {"decay": "cosine", "warmup_steps": warmup_steps}
  config.mixing = {"mixup_alpha": 1.0}
  config.distill = {
    "teacher": arg.teacher or teacher,
    "loss": "kl",
    "temperature": temperature,
  }

  pp_eval = (
    f"decode|resize_small({size + 32})|central_crop({size})|value_range(-1, 1)"
  )
  config.evals = {
    name: {"split": split, "pp": pp_eval, "every_steps": 1000}
    for name, split in zip(("minival", "val"), splits[1:])
  }
  config.checkpoint = {"every_steps": 1000}
  if arg.smoke:
    common.make_smoke(config)
  return config
