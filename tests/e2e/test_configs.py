"""Every config file, every option that it documents."""

import dataclasses
import functools
import importlib
import json
import pathlib
import re
import signal
from collections.abc import Sequence

import jax
import numpy as np
import pytest

from tests.e2e import launch
from vitjax import checks, losses, models, optim, trees
from vitjax.config import common, plain, resolving, schema, shipped
from vitjax.data import pipeline, sources
from vitjax.data.pp import builder

FOLDER = shipped.folder()
AUGREG = "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0"

# Options of each file, each at least once.
OPTIONS = {
  "quickstart": ("", "epochs=3", "smoke"),
  "fashion_mnist": ("", "epochs=3", "smoke"),
  "fashion_best": (
    "",
    "model=vit,epochs=3,seed=1",
    "vit,teacher=runs/a",
    "smoke",
    "vit,smoke",
  ),
  "fashion_baselines": (
    *("", "no_aug", "learned", "tok", "linear", "original"),
    "row=no_aug,seed=1,epochs=1.5,optim=sam",
    "smoke",
    "original,smoke",
  ),
  "scaling_law": (
    *(f"{family},size={n}" for family in ("vit", "convnext") for n in "1234"),
    "family=vit,size=2,seed=1,lr=0.001",
    "smoke",
    "convnext,smoke",
  ),
  "plain_vit": (
    "",
    "b16,res=256,data=folder:/a/b,batch=64,accumulate=4",
    "variant=h14,epochs=5,data=cifar10,train=train[:90%],val=train[90%:]",
    "ti16,smoke",
  ),
  "flexivit": (
    "",
    "variant=S",
    "L,i21k,data=folder:/a/b,batch=64,epochs=5",
    "on=fashion_mnist",
    "on=fashion_mnist,teacher=runs/a",
    "B,i21k,smoke",
    "on=fashion_mnist,smoke",
    "smoke",
  ),
  "small_vit": (
    "",
    "folder:/a/b,res=64,epochs=5,batch=32,flip,train=train[:90%]",
    "data=cifar10,model=resnet,val=train[90%:]",
    "model=resnet,smoke",
    "smoke",
  ),
  "vit_s16_i1k": (
    "",
    "epochs=150",
    "epochs=300",
    "aug=none",
    "posemb=learn",
    "batch=4096",
    "pool=tok",
    "head=linear",
    "original",
    "original,aug=randaug2_10+mixup",
    "original,head=linear,data=imagenet2012",
    "smoke",
    "original,smoke",
  ),
  "augreg": (
    *(f"pretrain,{m},i21k" for m in ("ti16", "s32", "s16", "b32")),
    "pretrain,b16,i21k,aug=strong2,wd=3e-5,dropout=0.1,drop_path=0.1",
    "pretrain,model=l16,on=i1k,epochs=30,data=folder:/a",
    *(f"pretrain,b16,i1k,aug={a}" for a in ("none", "light1", "light2")),
    *(f"pretrain,b16,i1k,aug={a}" for a in ("medium1", "medium2", "strong1")),
    "",
    "R_Ti_16",
    "checkpoint=R50_L_32,dataset=cifar100,res=224",
    f"{AUGREG},imagenet2012,steps=20000,lr=0.01,accumulate=8",
    "pretrain,ti16,i1k,smoke",
    "smoke",
    "R26_S_32,smoke",
  ),
  "vit": (
    "",
    "b16,cifar10",
    "model=b32,dataset=folder:/a/b,steps=100,lr=0.01,res=224,accumulate=4",
    "l16,imagenet2012",
    "l32",
    "h14,oxford_iiit_pet",
    "r50+b16",
    "smoke",
  ),
  "mixer_base16_cifar10": (
    "",
    "dataset=cifar100,steps=100,lr=0.01,accumulate=8",
    "smoke",
  ),
  "mixer": (
    "",
    *("s32", "s16", "b32", "l32", "l16"),
    "variant=h14,epochs=5,batch=64,data=folder:/a",
    "smoke",
  ),
  "convnext": (
    "",
    *("T", "S", "B", "L", "iso-S", "iso-B", "iso-L"),
    *("B,1k_384", "L,1k_384"),
    *("B,22k", "L,22k", "XL,22k"),
    *("B,22k_1k", "L,22k_1k,res=384", "XL,22k_1k"),
    "variant=T,stage=22k,drop_path=0.1,epochs=3,data=folder:/a",
    "S,22k_1k,drop_path=0.1,weights=runs/mine",
    "smoke",
    "iso-S,smoke",
    "B,22k_1k,smoke",
  ),
  "efficientnet": (
    "",
    *(f"b{n}" for n in range(8)),
    *(f"lite{n}" for n in range(5)),
    "variant=b2,epochs=3,batch=64,data=folder:/a",
    "smoke",
  ),
  "solar_cells": (
    *("", "probe", "scratch"),
    "row=finetune,labels=grade,balance=sampling,seed=1,lr=0.01",
    "labels=grade,balance=weights,epochs=1.5,data=/a",
    "smoke",
  ),
  "deit3": (
    "",
    *("S", "B", "L", "H"),
    *(f"{v},1k_224,weights=runs/mine" for v in "BLH"),
    *(f"{v},1k_384" for v in "SBL"),
    *(f"{v},21k" for v in "SBLH"),
    *(f"{v},21k_1k,weights=runs/mine" for v in "SBLH"),
    "variant=S,stage=1k,epochs=400,data=folder:/a",
    "smoke",
    "B,1k_224,smoke",
    "S,21k,smoke",
  ),
  "deit": (
    *("", "Ti", "S,distilled"),
    "variant=B,epochs=3,data=folder:/a",
    "smoke",
  ),
  "distill": (
    *("", "flowers,fast", "pet,long", "sun", "epochs=9600"),
    "on=food,length=medium,teacher=runs/a",
    "smoke,teacher=runs/a",  # see test_distillation_runs.py
  ),
  "ssl": (
    "",
    "images:/a/b,variant=L/16,epochs=800,batch=512,res=192,accumulate=4",
    "data=images:/a/b,labelled=folder:/c",
    "fashion",
    "fashion,seed=1",
    "smoke",
  ),
  "ssl_labels": (
    *(
      "",
      "weights=runs/mine,percent=10,seed=1,lr=1e-3",
      "percent=100,epochs=2",
    ),
    "smoke",
  ),
  "sbb": (
    "",
    *("wee_reg1", "pwee_reg1", "dwee_reg1", "dpwee_reg1", "little_reg4"),
    *("dlittle_reg1", "medium_reg1", "medium_reg4", "betwixt_reg4"),
    *("base_reg4", "so150m_reg4", "so150m2_reg1", "mediumd_rope_reg1"),
    *("betwixt_rope_reg4", "base_rope_reg1", "medium_rope_reg1"),
    "mediumd_reg4,in12k",
    "mediumd_reg4,in12k_1k",
    "model=little_reg1,stage=in12k_1k,weights=a.npz,batch=64,epochs=3,"
    "data=folder:/a",
    "smoke",
    "mediumd_reg4,in12k,smoke",
    "betwixt_rope_reg4,in12k_1k,smoke",
    "dpwee_reg1,smoke",
  ),
  "nfnet": (
    *("", "F0", "F1", "F2", "F3", "F4", "F5", "F6,rho=0.05", "F7", "F3+"),
    "F3,finetune,data=cifar100",
    "variant=F0,stage=finetune,weights=runs/mine,batch=64,epochs=3",
    "smoke",
    "F1,finetune,smoke",
  ),
  "sam": (
    "",
    "b16,family=mixer,rho=0.5",
    "variant=s32,epochs=3,batch=64,data=folder:/a",
    "smoke",
    "b16,family=mixer,smoke",
  ),
  "gsam": (
    *("", "b32", "b16", "s32", "s16"),
    "variant=s16,rho=0.3,rho_min=0.1,alpha=0.2,epochs=3,batch=64,data=folder:/a",
    "smoke",
  ),
  "resnet50": (
    *("", "R101", "R152", "norm=group", "R50x2,norm=group"),
    "variant=R50,norm=batch,epochs=3,batch=64,data=folder:/a",
    "smoke",
    "norm=group,smoke",
  ),
  "regnet": (
    *("", "040", "320"),
    "variant=160,epochs=3,batch=64,data=folder:/a",
    "smoke",
  ),
  "metaformer": (
    "",
    *(f"{mixer}-{size}" for mixer in ("CA", "Conv") for size in ("S36", "B36")),
    "CA-M36,1k_384",
    "variant=Conv-S18,stage=1k_384,weights=a.npz,epochs=3,data=folder:/a",
    "smoke",
    "Conv-M36,1k_384,smoke",
  ),
  "swin": (
    "",
    *("S", "B", "v2-T", "v2-B,1k,window=16"),
    *("L,22k", "v2-L,22k", "B,22k_1k,res=384", "v2-L,22k_1k,res=384"),
    "variant=S,stage=22k_1k,weights=a.npz,epochs=3,data=folder:/a",
    "smoke",
    "v2-B,22k_1k,smoke",
  ),
  "transfer": (
    "",
    "imagenet21k/ViT-B_16,oxford_iiit_pet",
    "vit_small_patch16_224.augreg_in21k_ft_in1k,folder:/a/b",
    "convnext_tiny_22k_224,cifar100,layer_decay=0.8,epochs=3",
    "augreg:R_Ti_16,folder:/a/b,batch=32,accumulate=4",
    f"{AUGREG},oxford_flowers102,steps=100,lr=0.01,wd=1e-4,res=224",
    "weights=/a/B_16.npz,dataset=folder:/a/b,model=ViT-B_16,probe",
    "gs://a/b.npz,food101,model=ViT-B_16,norm=clip,optim=adamw",
    "NFNet-F0,cifar10,train=train[:90%],val=train[90%:]",
    "BiT-M-R50x1,imagenet2012,flip=false",
    "sam/Mixer-B_16,cifar10",
    "deit_tiny_patch16_224,cifar10,optim=sgd",
    "smoke",
    "sam/Mixer-B_16,cifar10,smoke",
    "convnext_tiny_22k_224,cifar100,layer_decay=0.8,accumulate=4,smoke",
    "deit_tiny_patch16_224,cifar10,layer_decay=0.75,probe,smoke",
    "BiT-M-R50x1,cifar10,smoke",
    "NFNet-F0,cifar10,smoke",
  ),
}
# These have another kind of model, and tests of their own.
TWO_TOWERS = {"lit", "siglip"}
CAPTIONERS = {"cap"}
# The smoke variant of these needs a run, and has a test of its own.
NEED_A_RUN = {"distill"}
ALL = [(name, arg) for name, args in OPTIONS.items() for arg in args]
SMOKE = [(name, arg) for name, arg in ALL if arg.endswith("smoke")]
FIRST = list({name: (name, arg) for name, arg in reversed(SMOKE)}.values())


def get_config(name: str, arg: str):
  return importlib.import_module(f"configs.{name}").get_config(arg or None)


def resolve(name: str, arg: str = "") -> schema.RunConfig:
  return resolving.resolve(get_config(name, arg))


def test_no_file_is_forgotten():
  files = {path.stem for path in FOLDER.glob("*.py")}
  assert files - {"__init__"} - TWO_TOWERS - CAPTIONERS == set(OPTIONS)
  assert {name for name, _ in SMOKE} == set(OPTIONS) - NEED_A_RUN


@pytest.mark.parametrize("name", OPTIONS)
def test_no_option_is_forgotten(name, monkeypatch):
  known = {}
  parse_arg = common.parse_arg

  def spy(arg, **options):
    known.update({k: v for k, v in options.items() if k != "positional"})
    return parse_arg(arg, **options)

  monkeypatch.setattr(common, "parse_arg", spy)
  for arg in OPTIONS[name]:
    get_config(name, arg)
  module = importlib.import_module(f"configs.{name}")
  documentation = f"{module.__doc__} {module.get_config.__doc__}"
  used = ",".join(OPTIONS[name])
  for option in known:
    assert re.search(rf"\b{option}\b", documentation), option
    assert re.search(rf"\b{option}\b", used), option


@pytest.mark.parametrize("name, arg", ALL)
def test_it_resolves_and_survives_the_round_trip(name, arg):
  run = resolve(name, arg)
  checks.check(run)
  again = resolving.resolve(json.loads(plain.to_json(run)))
  assert plain.to_json(again) == plain.to_json(run)


@functools.cache
def image_shape(pp: str) -> tuple[int, ...]:
  source = sources.open_source("fake:40,72x96x3,10", "train")
  batch = pipeline.example_spec(source, builder.build(pp), 1)
  return batch["image"].shape


@functools.cache
def parameters(model, shape):
  image = jax.ShapeDtypeStruct(shape, "float32")
  return jax.eval_shape(model.init, jax.random.key(0), image)["params"]


@pytest.mark.parametrize("name", OPTIONS)
def test_every_rule_is_of_a_parameter_of_the_model(name):
  check_rules(name, [a for i, a in enumerate(OPTIONS[name]) if is_quick(i, a)])


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_every_rule_is_of_a_parameter_of_every_model(name):
  check_rules(name, OPTIONS[name])


def is_quick(i: int, arg: str) -> bool:
  return i == 0 or arg.endswith("smoke")


def check_rules(name: str, args: Sequence[str]) -> None:
  for arg in args:
    run = resolve(name, arg)
    model_name, section = schema.split_name(run.model)
    classes = 10 if losses.needs_labels(run.loss) else None
    fields = {"num_classes": classes, **section}
    model = models.create(model_name, **fields)
    params = parameters(model, image_shape(run.input.pp))
    # The optimizer's own check, and one of ours.
    optim.describe(params, **run.optim, model=model)
    rules = [
      *run.optim.get("freeze", ()),
      *run.optim.get("decay_params", (".*/kernel",)),
      *run.optim.get("agc_exclude", ()),
      *(regex for regex, _ in run.optim.get("learning_rate_multipliers", ())),
    ]
    if not isinstance(run.sharding, str):
      rules += [regex for regex, _ in run.sharding]
    for regex in rules:
      matches = [n for n in trees.names(params) if re.fullmatch(regex, n)]
      assert matches, (arg, regex)
    for pattern in run.init.reinit:
      assert any(n.startswith(f"{pattern}/") for n in trees.names(params))


def settings(run: schema.RunConfig) -> dict:
  """What a paper's table has, by short names."""
  flat = {
    "total": str(run.total),
    "batch": run.input.batch_size,
    "loss": run.loss,
    "warmup": run.schedule.warmup and str(run.schedule.warmup),
    "decay": run.schedule.decay,
    "end": run.schedule.end_value * run.optim["learning_rate"],
    "repeats": run.input.repeats,
    **dataclasses.asdict(run.mixing),
    **run.optim,
    "pp": run.input.pp,
    "eval": run.evals["val"].pp,
    "ema": run.ema.decay,
    "patch_sizes": run.flexible.patch_sizes,
    "distill": (run.distill.teacher, run.distill.temperature),
    "label_weight": run.distill.label_weight,
    "model": dict(run.model),
  }
  return flat


# The papers' tables, literally; what is left out is not of the table.
GOLDEN = {
  ("augreg", "pretrain,l16,i21k"): {
    "total": "300 epochs",
    "batch": 4096,
    "loss": "sigmoid_xent",
    "warmup": "10000 steps",
    "decay": "cosine",
    "end": 0.0,
    "name": "adam",
    "mu_dtype": "bfloat16",
    "learning_rate": 1e-3,
    "weight_decay": 1e-4,
    "decay_scale": "schedule",
    "grad_clip_norm": 1.0,
    "mixup_alpha": 0.5,
    "pp": "decode_jpeg_and_inception_crop(224)|flip_lr|randaug(2, 15)"
    "|value_range(-1, 1)",
    "model": {
      "name": "vit",
      "variant": "L/16",
      "posemb": "learn",
      "pool_type": "gap",
      "head_bias_init": -10.0,
      "dropout_rate": 0.0,
      "drop_path_rate": 0.0,
    },
  },
  ("augreg", "pretrain,ti16,i1k"): {
    "mixup_alpha": 0.0,
    "pp": "decode_jpeg_and_inception_crop(224)|flip_lr|randaug(2, 0)"
    "|value_range(-1, 1)",
    "model": {
      "name": "vit",
      "variant": "Ti/16",
      "posemb": "learn",
      "pool_type": "tok",
      "rep_size": True,
      "head_bias_init": -6.9,
      "dropout_rate": 0.0,
      "drop_path_rate": 0.0,
    },
  },
  ("flexivit", "B,i21k"): {
    "total": "90 epochs",
    "batch": 4096,
    "loss": "sigmoid_xent",
    "warmup": "10000 steps",
    "decay": "cosine",
    "mu_dtype": "bfloat16",
    "learning_rate": 1e-3,
    "weight_decay": 1e-4,
    "decay_scale": "schedule",
    "grad_clip_norm": 1.0,
    "mixup_alpha": 0.2,
    "patch_sizes": (8, 10, 12, 15, 16, 20, 24, 30, 40, 48),
    "pp": "decode_jpeg_and_inception_crop(240)|flip_lr|randaug(2, 10)"
    "|value_range(-1, 1)",
    "eval": "decode|resize_small(272)|central_crop(240)|value_range(-1, 1)",
    "model": {
      "name": "vit",
      "variant": "B/16",
      "pool_type": "tok",
      "posemb": "learn",
      "patch_kernel": 8,
      "posemb_grid": 7,
      "posemb_resize": "linear",
      "head_bias_init": -10.0,
    },
  },
  ("flexivit", "variant=S"): {
    "total": "90 epochs",
    "batch": 1024,
    "warmup": "5000 steps",
    "learning_rate": 1e-4,
    "weight_decay": 1e-5,
    "grad_clip_norm": 1.0,
    "mixup_alpha": 1.0,
    "distill": ("deit3_S_384_1k", 1.0),
    "label_weight": 0.0,
    "patch_sizes": (8, 10, 12, 15, 16, 20, 24, 30, 40, 48),
    "pp": "decode_jpeg_and_inception_crop(240)|flip_lr|value_range(-1, 1)",
    "eval": "decode|resize(272)|central_crop(240)|value_range(-1, 1)",
    "model": {
      "name": "vit",
      "variant": "S/16",
      "pool_type": "tok",
      "posemb": "learn",
      "patch_kernel": 16,
      "posemb_grid": 7,
      "posemb_resize": "linear",
    },
  },
  ("distill", ""): {
    "total": "1200 epochs",
    "batch": 4096,
    "warmup": "5000 steps",
    "decay": "cosine",
    "mu_dtype": "bfloat16",
    "learning_rate": 0.03,
    "weight_decay": 3e-4,
    "decay_scale": "schedule",
    "grad_clip_norm": 1.0,
    "mixup_alpha": 1.0,
    "distill": ("R152x2_T_224", 1.0),
    "label_weight": 0.0,
    "pp": "decode_jpeg_and_inception_crop(224)|flip_lr|value_range(-1, 1)",
    "eval": "decode|resize_small(256)|central_crop(224)|value_range(-1, 1)",
  },
  ("distill", "pet,long"): {
    "total": "30000 epochs",
    "batch": 512,
    "warmup": "1500 steps",
    "learning_rate": 0.003,
    "weight_decay": 1e-5,
    "distill": ("R152x2_T_pet128", 2.0),
    "pp": "decode|inception_crop(128)|flip_lr|value_range(-1, 1)",
    "eval": "decode|resize_small(160)|central_crop(128)|value_range(-1, 1)",
  },
  ("augreg", "R_Ti_16"): {
    "total": "500 steps",
    "batch": 512,
    "warmup": "100 steps",
    "name": "sgd",
    "momentum": 0.9,
    "accumulator_dtype": "bfloat16",
    "learning_rate": 0.03,
    "grad_clip_norm": 1.0,
    "model": {"name": "R+ViT-Ti_16", "dropout_rate": 0.0},
  },
  ("vit", "b16,imagenet2012"): {
    "total": "20000 steps",
    "batch": 512,
    "loss": "softmax_xent",
    "warmup": "500 steps",
    "decay": "cosine",
    "learning_rate": 0.03,
    "pp": "decode_jpeg_and_inception_crop(384)|flip_lr|value_range(-1, 1)",
    "eval": "decode|resize(384)|value_range(-1, 1)",
    "model": {"name": "ViT-B_16"},
  },
  ("mixer", ""): {
    "total": "300 epochs",
    "batch": 4096,
    "loss": "sigmoid_xent",
    "warmup": "10000 steps",
    "decay": "linear",
    "end": pytest.approx(1e-5 * 1e-3),
    "learning_rate": 1e-3,
    "weight_decay": 1e-4,
    "decay_scale": "schedule",
    "mixup_alpha": 0.5,
    "pp": "decode_jpeg_and_inception_crop(224)|flip_lr|randaug(2, 15)"
    "|value_range(-1, 1)",
    "model": {
      "name": "mixer",
      "variant": "B/16",
      "drop_path_rate": 0.1,
      "head_bias_init": -6.9,
    },
  },
  ("convnext", "T"): {
    "total": "300 epochs",
    "batch": 4096,
    "loss": "softmax_xent",
    "warmup": "20 epochs",
    "decay": "cosine",
    "end": pytest.approx(1e-6),
    "name": "adam",
    "learning_rate": 4e-3,
    "weight_decay": 0.05,
    "mixup_alpha": 0.8,
    "cutmix_alpha": 1.0,
    "switch_prob": 0.5,
    "prob": 1.0,
    "mode": "batch",
    "partner": "flip",
    "label_smoothing": 0.1,
    "erase_prob": 0.25,
    "ema": 0.9999,
    "pp": 'decode_jpeg_and_inception_crop(224, area_min=8, method="bicubic")'
    '|flip_lr|timm_randaug("rand-m9-mstd0.5-inc1", method="bicubic")|normalize',
    "eval": 'decode|resize_small(256, "bicubic", antialias=True)'
    "|central_crop(224)|normalize",
    "model": {"name": "convnext", "variant": "T", "drop_path_rate": 0.1},
  },
  ("convnext", "L,22k_1k,res=384"): {
    "total": "30 epochs",
    "batch": 512,
    "warmup": None,
    "learning_rate": 5e-5,
    "weight_decay": 1e-8,
    "layer_decay": 0.8,
    "mixup_alpha": 0.0,
    "cutmix_alpha": 0.0,
    "label_smoothing": 0.1,
    "ema": None,
    "eval": 'decode|resize(384, "bicubic", antialias=True)|normalize',
    "model": {
      "name": "convnext",
      "variant": "L",
      "drop_path_rate": 0.3,
      "head_init_scale": 0.001,
    },
  },
  ("deit3", "B"): {
    "total": "800 epochs",
    "batch": 2048,
    "loss": "sigmoid_xent_mean",
    "warmup": "5 epochs",
    "decay": "cosine",
    "end": pytest.approx(1e-5),
    "name": "lamb",
    "learning_rate": 3e-3,
    "weight_decay": 0.05,
    "grad_clip_norm": 1.0,
    "repeats": 3,
    "mixup_alpha": 0.8,
    "cutmix_alpha": 1.0,
    "label_smoothing": 0.0,
    "erase_prob": 0.0,
    "pp": 'decode_jpeg_and_inception_crop(192, area_min=8, method="bicubic")'
    "|flip_lr|three_augment(color_jitter=0.3)|normalize",
    "eval": 'decode|resize_small(192, "bicubic", antialias=True)'
    "|central_crop(192)|normalize",
    "model": {
      "name": "vit",
      "variant": "B/16",
      "pool_type": "tok",
      "gelu": "erf",
      "layer_scale_init": 1e-4,
      "drop_path_rate": 0.2,
      "drop_path_schedule": "constant",
      "head_zero_init": False,
    },
  },
  ("deit3", "S,1k_384"): {
    "total": "20 epochs",
    "batch": 512,
    "loss": "softmax_xent",
    "end": pytest.approx(1e-5),
    "name": "adam",
    "learning_rate": 1e-5,
    "weight_decay": 0.1,
    "repeats": 1,
    "mixup_alpha": 0.8,
    "cutmix_alpha": 1.0,
    "label_smoothing": 0.1,
    "pp": 'decode_jpeg_and_inception_crop(384, area_min=8, method="bicubic")'
    '|flip_lr|timm_randaug("rand-m9-mstd0.5-inc1", method="bicubic")|normalize',
  },
  ("deit3", "H,21k"): {
    "total": "90 epochs",
    "batch": 2048,
    "name": "lamb",
    "learning_rate": 1e-3,
    "weight_decay": 0.02,
    "repeats": 1,
    "mixup_alpha": 0.0,
    "cutmix_alpha": 1.0,
    "label_smoothing": 0.1,
    "pp": "decode|simple_random_crop(128)|flip_lr"
    "|three_augment(color_jitter=0.3)|normalize",
  },
  ("deit", "S"): {
    "total": "300 epochs",
    "batch": 1024,
    "learning_rate": 1e-3,
    "weight_decay": 0.05,
    "end": pytest.approx(1e-5),
    "repeats": 3,
    "erase_prob": 0.25,
    "label_smoothing": 0.1,
  },
  ("sbb", "mediumd_reg4,in12k_1k"): {
    "total": "60 epochs",
    "learning_rate": 1e-4,
    "layer_decay": 0.75,
    "grad_clip_norm": 5.0,
    "cutmix_alpha": 0.8,
    "model": {
      "name": "vit_mediumd_patch16_reg4_gap_256",
      "drop_path_rate": 0.2,
    },
  },
  ("nfnet", "F1"): {
    "total": "360 epochs",
    "batch": 4096,
    "loss": "softmax_xent",
    "warmup": "5 epochs",
    "decay": "cosine",
    "end": 0.0,
    "name": "sgd",
    "momentum": 0.9,
    "nesterov": True,
    "learning_rate": pytest.approx(1.6),
    "weight_decay": 2e-5,
    "decay_scale": "gradient",
    "agc_clip": 0.01,
    "agc_exclude": ("head/kernel",),
    "mixup_alpha": 0.2,
    "cutmix_alpha": 1.0,
    "label_smoothing": 0.1,
    "ema": 0.99999,
    "pp": 'decode_jpeg_and_inception_crop(224, area_min=8, method="bicubic")'
    "|flip_lr|randaug(4, 10)|normalize",
    "eval": 'decode|resize(352, "bicubic", antialias=True)|central_crop(320)'
    "|normalize",
    "model": {"name": "nfnet", "variant": "F1", "drop_path_rate": 0.25},
  },
}


@pytest.mark.parametrize("name, arg", GOLDEN)
def test_published_recipes_to_the_letter(name, arg):
  expected = GOLDEN[name, arg]
  found = settings(resolve(name, arg))
  assert {key: found[key] for key in expected} == expected


def test_weights_to_begin_with():
  def init(name, arg):
    init = resolve(name, arg).init
    return init.weights, *init.reinit

  assert init("augreg", "R_Ti_16") == ("augreg:R_Ti_16", "head")
  assert init("augreg", AUGREG) == (AUGREG, "head")
  assert init("vit", "l16") == ("imagenet21k/ViT-L_16", "head")
  assert init("convnext", "L,1k_384") == ("convnext_large_1k_224",)
  assert init("convnext", "B,22k_1k") == ("convnext_base_22k_224", "head")
  assert init("deit3", "B,1k_384") == ("deit_3_base_224_1k",)
  assert init("nfnet", "F6,finetune") == ("NFNet-F6", "head")
  with pytest.raises(ValueError, match="that were not published: give weights"):
    get_config("deit3", "B,1k_224")


@pytest.mark.parametrize(
  "name, arg, part",
  [
    ("vit", "b61", "model 'b61' is not in the recipe. Did you mean 'b16'?"),
    ("convnext", "T,22k", "without drop_path=, stage 22k of 'T' is not in"),
    ("deit3", "M", "variant 'M' is not in the recipe. Known: S, B, L, H."),
    ("augreg", "pretrain,b16,i21k,aug=medium3", "Did you mean 'medium"),
    ("transfer", "/a/b.npz,cifar10", "add model=, such as model=ViT-B_16"),
    ("vit", "b16,cifar10,stepz=3", "Did you mean 'steps'?"),
  ],
)
def test_errors_say_what_there_is(name, arg, part):
  with pytest.raises(ValueError, match=re.escape(part)):
    get_config(name, arg)


class TestTransfer:
  @pytest.mark.parametrize(
    "weights, model",
    [
      ("imagenet21k/ViT-B_16", {"name": "ViT-B_16"}),  # no tanh layer
      ("imagenet21k+imagenet2012/ViT-L_16-224", {"name": "ViT-L_16"}),
      ("BiT-M-R50x1-ILSVRC2012", {"name": "BiT-M-R50x1"}),
      ("gsam/ViT-S_32-gap-norep", {"name": "ViT-S_32-gap-norep"}),
      ("timm/mixer_b16_224.goog_in21k", {"name": "mixer_b16_224"}),
      ("convnext_large_22k_224", {"name": "convnext_large_22k_224"}),
      ("augreg:R50_L_32", {"name": "R50+ViT-L_32"}),
      (AUGREG, {"name": "ViT-B_16"}),
      ("deit_3_small_224_1k", {"name": "deit3_small_patch16_224"}),
      (
        "i1k-s16-90ep",
        {"name": "vit", "variant": "S/16", "posemb": "sincos2d"},
      ),
    ],
  )
  def test_model_of_a_published_name(self, weights, model):
    assert resolve("transfer", f"{weights},cifar10").model == model

  @pytest.mark.parametrize(
    "weights, ending, optimizer",
    [
      ("/a/b.npz,cifar10,model=NFNet-F0", "|normalize", "adam"),
      ("/a/b.npz,cifar10,model=convnext_tiny", "|normalize", "adam"),
      ("/a/b.npz,cifar10,model=ViT-B_16", "|value_range(-1, 1)", "sgd"),
      ("/a/b.npz,cifar10,model=mixer", "|value_range(-1, 1)", "adam"),
    ],
  )
  def test_a_file_has_the_settings_of_its_model(
    self, weights, ending, optimizer
  ):
    run = resolve("transfer", weights)
    assert run.input.pp.endswith(ending)
    assert run.optim["name"] == optimizer

  def test_a_run_folder_says_what_it_has(self, tmp_path):
    about = {
      "model": {"name": "vit", "variant": "mu/7", "num_classes": 5},
      "image_size": [28, 28],
      "channels": 1,
      "preprocess": "decode(channels=1)|normalize((0.3,), (0.4,))",
    }
    (tmp_path / "model.json").write_text(json.dumps(about))
    run = resolve("transfer", f"{tmp_path},folder:/a")
    assert run.init.weights == str(tmp_path)
    assert run.model == {"name": "vit", "variant": "mu/7"}
    assert run.input.pp == (
      "decode(channels=1)|inception_crop(28)|flip_lr|normalize((0.3,), (0.4,))"
    )
    assert run.evals["val"].pp == (
      "decode(channels=1)|resize(28)|normalize((0.3,), (0.4,))"
    )

  @pytest.mark.parametrize(
    ("options", "total", "batch"),
    [
      ("cifar10", "10000 steps", 512),
      ("folder:/a", "10 epochs", 64),
      ("folder:/a,epochs=2.5,batch=8", "2.5 epochs", 8),
      ("cifar10,epochs=3", "3 epochs", 512),
      ("folder:/a,steps=30", "30 steps", 64),
    ],
  )
  def test_length_and_batch(self, options, total, batch):
    """In epochs where the number of images is unknown, in small batches."""
    run = resolve("transfer", f"imagenet21k/ViT-B_16,{options}")
    assert (str(run.total), run.input.batch_size) == (total, batch)

  def test_a_run_folder_cannot_name_a_module(self, tmp_path):
    about = {
      "model": {"name": "their.code"},
      "image_size": [28, 28],
      "channels": 1,
      "preprocess": "decode(channels=1)",
    }
    (tmp_path / "model.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"add model=their\.code"):
      get_config("transfer", f"{tmp_path},folder:/a")
    config = get_config("transfer", f"{tmp_path},folder:/a,model=their.code")
    assert config.model.name == "their.code"
    assert config.evals.val.pp == "decode(channels=1)|resize(28)"

  @pytest.mark.parametrize("text", ["", "[]", '{"model": 3}', '{"model": {}}'])
  def test_a_damaged_run_folder_is_named(self, tmp_path, text):
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ValueError, match=r"model\.json does not describe"):
      get_config("transfer", f"{tmp_path},folder:/a")

  @pytest.mark.slow
  def test_it_goes_on_from_a_run(self, tmp_path, cache, straight):
    options = "steps=4,batch=16,probe"
    arguments = [
      "vitjax.main",
      f"--config=configs/transfer.py:{straight},digits,{options}",
      f"--workdir={tmp_path}",
      "--config.export_npz=True",
    ]
    launch.run(*arguments, cache=cache).assert_done()
    with (
      np.load(straight / "params.npz") as before,
      np.load(tmp_path / "params.npz") as after,
    ):
      assert sorted(before) == sorted(after)
      for name in before:
        same = before[name].tobytes() == after[name].tobytes()
        assert same == ("/head/" not in name), name

  def test_linear_probe_and_steps(self):
    run = resolve("transfer", "imagenet21k/ViT-B_16,cifar10,probe,steps=100")
    assert str(run.total) == "100 steps"
    assert str(run.schedule.warmup) == "5 percent"
    assert run.input.pp == "decode|resize(384)|flip_lr|value_range(-1, 1)"
    assert run.optim["learning_rate"] == pytest.approx(0.3)
    (regex,) = run.optim["freeze"]
    names = ("head/kernel", "head/bias", "cls", "Transformer/head/kernel")
    frozen = [n for n in names if re.fullmatch(regex, n)]
    assert frozen == ["cls", "Transformer/head/kernel"]


def smoke(name: str, arg: str, workdir: pathlib.Path) -> list[str]:
  return [
    "vitjax.main",
    f"--config=configs/{name}.py:{arg}",
    f"--workdir={workdir}",
    "--config.export_npz=True",
  ]


def check_smoke(workdir: pathlib.Path) -> None:
  rows = [json.loads(line) for line in launch.record(workdir).splitlines()]
  assert [r["step"] for r in rows if "train/loss" in r] == [1, 2, 3, 4]
  made = json.loads((workdir / "config.json").read_text())
  for name in made["evals"]:
    seen = [r[f"{name}/n_seen"] for r in rows if f"{name}/n_seen" in r]
    assert seen == [40, 40]
  averaged = any("_ema/" in name for row in rows for name in row)
  assert averaged == (made["ema"]["decay"] is not None)
  assert launch.saved_steps(workdir)[-1] == 4


@pytest.mark.slow
@pytest.mark.parametrize("name, arg", [x for x in SMOKE if x not in FIRST])
def test_smoke(tmp_path, cache, name, arg):
  launch.run(*smoke(name, arg, tmp_path), cache=cache).assert_done()
  check_smoke(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name, arg", FIRST)
def test_smoke_stopped_and_resumed(tmp_path, cache, name, arg):
  stopped, straight = tmp_path / "stopped", tmp_path / "straight"
  arguments = smoke(name, arg, stopped)
  with launch.Process(*arguments, cache=cache) as process:
    process.wait_for_step(stopped, 1)
    process.send(signal.SIGTERM)
    finished = process.finish()
  assert finished.code == launch.PREEMPTED, finished.text
  end = launch.run(*arguments, cache=cache).assert_done()
  assert "Resuming after step" in end.text
  check_smoke(stopped)
  launch.run(*smoke(name, arg, straight), cache=cache).assert_done()
  launch.assert_same_run(stopped, straight)
