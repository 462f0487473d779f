r"""timm's searched ViT baselines (SBB), of sizes between Google's.

There is no paper; what is known is in excerpts of the author's hyper-parameters
at https://gist.github.com/rwightman/fb37c339efd2334177ff99a8083ebbc4 and in
the model cards. Not trained here. Published top-1 on ImageNet-1k at 256 pixels:

  sbb.py:MODEL,in1k       betwixt_reg4 83.706, betwixt_reg1 83.628, medium_reg4
                          83.470, medium_reg1 83.462, little_reg4 82.514,
                          wee_reg1 80.256, pwee_reg1 80.072;
                          mediumd_rope_reg1 84.322, betwixt_rope_reg4 83.906,
                          base_rope_reg1 83.866, medium_rope_reg1 83.810
  sbb.py:MODEL,in12k      (to be fine-tuned)
  sbb.py:MODEL,in12k_1k   mediumd_reg4 86.202, betwixt_reg4 85.418, medium_reg4
                          84.930, little_reg1 83.774

  python -m vitjax.main --config=configs/sbb.py:betwixt_reg1
  python -m vitjax.main --config=configs/sbb.py:mediumd_reg4,in12k_1k

Known, of betwixt_reg1 (in1k), mediumd_reg4 (in12k) and both (in12k_1k): epochs,
learning rate, augmentation, loss, stochastic depth, clipping, layer decay. Not
known, and chosen here: AdamW (some runs were made with NAdamW), weight decay
0.1, warm-up of 5 % of the run, global batch 4096, no random erasing, no label
smoothing. Whether other models share these settings is not known, nor anything
about the runs called sbb2, e200 and e250. The ten epochs at the smallest rate
that timm adds at the end are omitted.

Options: model=betwixt_reg1 (as above, and dwee_reg1, dpwee_reg1, dlittle_reg1,
base_reg4, so150m_reg4, so150m2_reg1), stage (in1k, in12k, in12k_1k), batch,
weights (to fine-tune from), epochs, data (in12k has 11,821 classes of
ImageNet-21k: folder:/path), smoke.
"""

import ml_collections

from vitjax.config import common
from vitjax.weights import zoo

RANDAUG = 'timm_randaug("rand-m7-mstd1.0-inc1-n3")'
COLOUR = (
  "|color_jitter(0.4, 0.4, 0.4, prob=0.2)|gaussian_blur(prob=0.05)"
  "|grayscale(prob=0.1)"
)
# Epochs and batch.
STAGES = {"in1k": (600, 4096), "in12k": (150, 4096), "in12k_1k": (60, 512)}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg,
    positional=2,
    model="betwixt_reg1",
    stage="in1k",
    batch=int,
    weights=str,
    epochs=int,
    data=str,
    smoke=False,
  )
  epochs, batch = common.pick(STAGES, arg.stage, "stage")
  batch = arg.batch or batch
  size, _, registers = arg.model.partition("_")
  name = f"vit_{size}_patch16_{registers}_gap_256"
  data = arg.data or ("imagenet12k" if arg.stage == "in12k" else "imagenet2012")
  published = zoo.of_model(name)
  normalize = published.normalise if published else "value_range(-1, 1)"
  colour = COLOUR if arg.stage == "in12k" else ""

  config = ml_collections.ConfigDict()
  config.seed = 0
  config.total_epochs = arg.epochs or epochs
  config.loss = "softmax_xent"

  config.input = {
    "data": data,
    "split": common.all_of_train(data),
    "batch_size": batch,
    "pp": f"{common.bicubic_crop(256)}|{RANDAUG}{colour}|{normalize}",
  }
  config.model = {"name": name, "drop_path_rate": 0.2}
  config.optim = {
    "name": "adam",
    "weight_decay": 0.1,
    "grad_clip_norm": 5.0,
  }
  config.schedule = {"decay": "cosine", "warmup_percent": 5}
  # timm scales Adam's rate by the square root of the batch over 512.
  scale = (batch / 512) ** 0.5
  if arg.stage == "in1k":
    config.input.repeats = 3
    config.optim.learning_rate = 8e-4 * scale
    config.mixing = {"cutmix_alpha": 1.0, "partner": "flip"}
  elif arg.stage == "in12k":
    config.loss = "sigmoid_xent"
    config.target_threshold = 0.2
    config.optim.learning_rate = 1e-4 * scale
    config.schedule.end_value = 5e-7 / config.optim.learning_rate
    config.mixing = {
      "mixup_alpha": 0.2,
      "cutmix_alpha": 1.0,
      "partner": "flip",
    }
  else:
    config.init = {
      "weights": arg.weights or f"{name}.sbb_in12k",
      "reinit": ("head",),
    }
    config.optim.learning_rate = 1e-4
    config.optim.layer_decay = 0.75
    config.mixing = {"cutmix_alpha": 0.8, "partner": "flip"}

  pp_eval = f"{common.bicubic_eval(256, 0.95)}|{normalize}"
  split = common.splits(data)[1]
  config.evals = {"val": {"split": split, "pp": pp_eval, "every_epochs": 5}}
  if arg.smoke:
    common.make_smoke(config, "vit")
  return config
