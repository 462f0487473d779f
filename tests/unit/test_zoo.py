"""The registry agrees with the models, and AugReg's names are read right."""

import re
import subprocess
import sys

import pytest

from vitjax import models
from vitjax.weights import augreg, zoo

BEST = "R_Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0"
OTHER = "R_Ti_16-i21k-300ep-lr_0.001-aug_light1-wd_0.1-do_0.0-sd_0.0"
FINETUNED = "--imagenet2012-steps_20k-lr_0.03-res_384"

# The columns that matter, in another order and with others between them.
INDEX = f"""name,desc,ds,final_val,wd,filename,adapt_filename
R_Ti_16,x,i21k,0.30,0.1,{OTHER},{OTHER}{FINETUNED}
R_Ti_16,"x, y",i21k,0.41,0.03,{BEST},{BEST}{FINETUNED}
R_Ti_16,x,i1k,0.75,0.1,R_Ti_16-i1k-best,x
R_Ti_16,x,i21k_30,0.60,0.1,R_Ti_16-i21k_30-best,x
R_Ti_16,x,i21k,,0.1,unfinished,x
B_16,x,i21k,0.50,0.1,B_16-best,x
"""


@pytest.fixture
def index(tmp_path):
  path = tmp_path / "index.csv"
  path.write_text(INDEX)
  return path


@pytest.mark.parametrize("name", ["R_Ti_16", "R+ViT-Ti_16"])
def test_recommended_is_the_best_of_its_pre_training(index, name):
  assert augreg.recommended(name, index) == BEST
  assert augreg.recommended(name, index, dataset="i1k") == "R_Ti_16-i1k-best"


def test_recommended_says_what_there_is(index, tmp_path):
  with pytest.raises(
    ValueError, match=r"no model 'L_16' .*'i21k'. Known: B_16"
  ):
    augreg.recommended("L_16", index)
  page = tmp_path / "page.csv"
  page.write_text("<html>\nAccess denied\n")
  with pytest.raises(ValueError, match=r"is not AugReg's index\.csv"):
    augreg.recommended("R_Ti_16", page)


def test_a_file_name_says_how_it_was_trained():
  facts = augreg.parse(f"{BEST}{FINETUNED}.npz")
  assert facts == augreg.Checkpoint(
    model="R+ViT-Ti_16",
    dataset="i21k",
    epochs=300,
    learning_rate=0.001,
    augmentation="none",
    weight_decay=0.03,
    dropout_rate=0.0,
    drop_path_rate=0.0,
    finetune_dataset="imagenet2012",
    finetune_steps=20_000,
    finetune_learning_rate=0.03,
    image_size=384,
    num_classes=1000,
  )
  facts = augreg.parse(BEST.replace("i21k-300ep", "i21k_30-30ep"))
  assert (facts.dataset, facts.epochs) == ("i21k_30", 30)
  assert (facts.image_size, facts.num_classes) == (224, 21_843)
  assert facts.finetune_steps is None


@pytest.mark.parametrize(
  "name",
  [
    "B_16",
    "X_16" + BEST.removeprefix("R_Ti_16"),
    f"{BEST}-extra",
    f"{BEST}--imagenet2012",
  ],
)
def test_other_names_are_not_of_augreg(name):
  with pytest.raises(ValueError, match="is not the name of an AugReg"):
    augreg.parse(name)
  with pytest.raises(KeyError, match="entries"):
    zoo.find(name)


def test_a_checkpoint_of_the_grid_needs_no_table():
  entry = zoo.find(f"{OTHER}.npz")
  assert [file.url for file in entry.files] == [
    f"gs://vit_models/augreg/{OTHER}.npz"
  ]
  assert (entry.model, entry.image_size) == ("R+ViT-Ti_16", 224)
  assert entry.options == {"num_classes": 21_843}


def test_the_hub_comes_before_the_bucket():
  entry = zoo.find(f"{BEST}{FINETUNED}")
  assert [file.url for file in entry.files] == [
    "https://huggingface.co/timm/vit_tiny_r_s16_p8_384.augreg_in21k_ft_in1k"
    "/resolve/main/model.safetensors",
    f"gs://vit_models/augreg/{BEST}{FINETUNED}.npz",
  ]
  assert [file.name for file in entry.files] == [
    "vit_tiny_r_s16_p8_384.augreg_in21k_ft_in1k.safetensors",
    f"{BEST}{FINETUNED}.npz",
  ]
  timm = zoo.find("timm/vit_tiny_r_s16_p8_384.augreg_in21k_ft_in1k")
  assert timm.files == entry.files
  gelu = [models.create(e.model, **e.options).gelu for e in (entry, timm)]
  assert gelu == ["tanh", "erf"]


def test_every_entry_is_a_model_and_has_a_place():
  for name, entry in zoo.entries().items():
    models.create(entry.model, **entry.options)
    urls = [file.url for file in (*entry.files, *entry.vocab)]
    assert urls and len(set(urls)) == len(urls), name
    for url in urls:
      assert re.fullmatch(r"(gs://|https://|package:)[^ ]+/[^/ ]+\.\w+", url), (
        url
      )
    sizes = re.findall(r"[_ ](224|256|384|448|512)(?!\d)", name)
    assert not sizes or sizes[-1] == str(entry.image_size), name


def test_every_published_two_tower_model_has_a_file():
  names = {
    n for n, facts in models.list().items() if facts["model"] == "two_tower"
  }
  found = {e.model: e for e in zoo.entries().values() if e.tokenizer}
  assert names == found.keys()
  for name, entry in found.items():
    assert entry.image_size == models.list()[name]["image_size"]


@pytest.mark.parametrize(
  "name, model, url",
  [
    (
      "imagenet21k+imagenet2012/ViT-B_16",
      "ViT-B_16",
      "gs://vit_models/imagenet21k+imagenet2012/ViT-B_16.npz",
    ),
    ("sam/ViT-B_32", "ViT-B_32", "gs://vit_models/sam/ViT-B_32.npz"),
    (
      "imagenet1k/Mixer-L_16",
      "Mixer-L_16",
      "gs://mixer_models/imagenet1k/Mixer-L_16.npz",
    ),
    ("LiT-L16Ti", "LiT-L16Ti", "gs://vit_models/lit/LiT-L16Ti.npz"),
    ("i1k-s16-90ep", "vit", "gs://big_vision/vit_s16_i1k_90ep.npz"),
    (
      "deit3_L_384_21k",
      "vit",
      "gs://big_vision/zoo/deit3/bv_deit_3_large_384_21k.npz",
    ),
    (
      "deit_3_huge_224_21k",
      "deit3_huge_patch14_224",
      "https://dl.fbaipublicfiles.com/deit/deit_3_huge_224_21k_v1.pth",
    ),
    (
      "deit_3_huge_224_1k",
      "deit3_huge_patch14_224",
      "https://dl.fbaipublicfiles.com/deit/deit_3_huge_224_1k.pth",
    ),
    (
      "convnext_tiny_1k_224",
      "convnext_tiny_1k_224",
      "https://dl.fbaipublicfiles.com/convnext/convnext_tiny_1k_224_ema.pth",
    ),
    (
      "convnext_xlarge_22k_1k_384",
      "convnext_xlarge_22k_1k_384",
      "https://dl.fbaipublicfiles.com/convnext/"
      "convnext_xlarge_22k_1k_384_ema.pth",
    ),
    (
      "convnext_base_22k_1k_224",
      "convnext_base_22k_1k_224",
      "https://dl.fbaipublicfiles.com/convnext/convnext_base_22k_1k_224.pth",
    ),
    (
      "NFNet-F6",
      "NFNet-F6",
      "https://storage.googleapis.com/dm-nfnets/F6_haiku.npz",
    ),
  ],
)
def test_places_that_were_published(name, model, url):
  entry = zoo.find(name)
  assert entry.model == model
  assert entry.files[-1].url == url


def test_a_near_name_is_offered():
  with pytest.raises(KeyError) as e:
    zoo.find("LiT-B16C")
  assert "did you mean 'LiT-B16B'" in e.value.args[0]


def test_reading_the_records_needs_the_standard_library_alone():
  code = (
    "import sys; from vitjax.weights import augreg, zoo;"
    "zoo.entries(); print({'jax', 'numpy', 'tensorflow'} & {*sys.modules})"
  )
  out = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert out.stdout == "set()\n"
