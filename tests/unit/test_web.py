"""Web pages: their folders, what is refused, and their tokenizers."""

import dataclasses
import io
import json
import re
import shutil
import subprocess
import tarfile
import urllib.request

import numpy as np
import pytest

import vitjax
from tests import run_folders
from vitjax.data import tokenizers
from vitjax.demo import static
from vitjax.web import graphs, packages, site
from vitjax.weights import zoo

pytest.importorskip("onnx", reason="needs the package onnx")


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
  """A folder with packages whose files are empty."""
  folder = tmp_path_factory.mktemp("runtime")
  for package, names in packages._FILES.items():
    with tarfile.open(folder / package.name, "w:gz") as archive:
      for name in names:
        archive.addfile(tarfile.TarInfo(f"package/dist/{name}"), io.BytesIO())
  return folder


@pytest.fixture
def any_package(monkeypatch):
  """Packages with any checksum are taken."""
  files = {
    zoo.File(package.url): names for package, names in packages._FILES.items()
  }
  monkeypatch.setattr(packages, "_FILES", files)
  for name, package in zip(("_RUNTIME", "_TOKENIZERS"), files):
    monkeypatch.setattr(packages, name, package)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
  file = tmp_path_factory.mktemp("classifier") / "x.npz"
  return vitjax.load(run_folders.make_file(file))


@pytest.fixture(scope="module")
def two_towers(tmp_path_factory):
  file = tmp_path_factory.mktemp("two") / "x.npz"
  return vitjax.load(run_folders.make_two_towers(file))


def written(trained, folder, runtime, **options):
  out = folder / "site"
  lines = list(site.write(trained, out, title="X", runtime=runtime, **options))
  return out, lines


def read_pieces(out, pieces):
  return b"".join((out / name).read_bytes() for name, _ in pieces)


def run(content, inputs):
  import onnxruntime

  session = onnxruntime.InferenceSession(content)
  names = [x.name for x in session.get_outputs()]
  return dict(zip(names, session.run(None, inputs)))


@pytest.mark.slow
def test_a_classifier_is_written_whole(
  classifier, tmp_path, runtime, any_package, monkeypatch
):
  monkeypatch.setattr(site, "_PIECE_BYTES", 10_000)
  out, lines = written(classifier, tmp_path, runtime)
  about = json.loads((out / "site.json").read_text())
  assert about["kind"] == "classes" and about["title"] == "X"
  assert about["labels"] == list(run_folders.CLASSES)
  assert str(tmp_path) not in (out / "site.json").read_text()
  pieces = about["image"]["pieces"]
  assert len(pieces) > 1
  image = graphs.sample(classifier.image_size)
  found = run(read_pieces(out, pieces), {"image": image[None]})
  np.testing.assert_allclose(found["logits"][0], about["image"]["expected"])
  want = classifier.predict(classifier.prepare(image)[None])
  np.testing.assert_allclose(found["logits"], want, rtol=1e-3, atol=1e-3)
  batch = classifier.prepare(image)[None]
  _, rollout = vitjax.attention.maps_fn(classifier.model)(
    classifier.params, batch
  )
  np.testing.assert_allclose(found["attention"], rollout, atol=1e-3)
  text = (out / "files.js").read_text()
  listed = json.loads(re.fullmatch(r"self.FILES = (.*);\n", text, re.S)[1])
  files = {x.relative_to(out).as_posix() for x in out.rglob("*") if x.is_file()}
  assert {*listed, "files.js"} == files
  assert any("model/image-" in line for line in lines)


@pytest.mark.slow
def test_grey_images_of_another_size_are_squeezed(
  classifier, tmp_path, runtime, any_package
):
  model = vitjax.models.create(**run_folders.VIT, num_classes=3)
  grey = dataclasses.replace(
    classifier,
    model=model,
    channels=1,
    preprocess="value_range(-1, 1)",
    params=_first_channel(classifier.params),
  )
  out, _ = written(grey, tmp_path, runtime)
  about = json.loads((out / "site.json").read_text())
  image = np.random.default_rng(0).integers(0, 256, (31, 50, 3), np.uint8)
  found = run(
    read_pieces(out, about["image"]["pieces"]), {"image": image[None]}
  )
  want = grey.predict(grey.prepare(image, resize=True)[None])
  np.testing.assert_allclose(found["logits"], want, rtol=1e-2, atol=1e-2)


def _first_channel(params):
  kernel = params["embedding"]["kernel"]
  embedding = {**params["embedding"], "kernel": kernel[:, :, :1]}
  return {**params, "embedding": embedding}


@pytest.mark.slow
def test_two_towers_bring_their_tokenizer(
  two_towers, tmp_path, runtime, any_package
):
  out, _ = written(two_towers, tmp_path, runtime, captions=["a cat"])
  about = json.loads((out / "site.json").read_text())
  assert about["kind"] == "texts" and about["captions"] == ["a cat"]
  assert (out / about["tokenizer"]["vocab"]).is_file()
  assert (out / "runtime" / "tokenizers.min.mjs").is_file()
  ids = two_towers.tokenizer(["a cat", "a dog"])
  found = run(read_pieces(out, about["text"]["pieces"]), {"text": ids})
  want = two_towers.text_features(["a cat", "a dog"])
  np.testing.assert_allclose(found["embedding"], want, atol=1e-5)


def test_what_cannot_be_shown_is_refused(
  classifier, two_towers, tmp_path, runtime, any_package
):
  six = dataclasses.replace(classifier, channels=6)
  with pytest.raises(ValueError, match="6 channels"):
    written(six, tmp_path, runtime)
  with pytest.raises(ValueError, match="--captions: this model does not"):
    written(classifier, tmp_path, runtime, captions=["x"])
  (tmp_path / "site").mkdir()
  (tmp_path / "site" / "mine.txt").touch()
  with pytest.raises(ValueError, match=r"--out=site_2"):
    written(classifier, tmp_path, runtime)
  assert (tmp_path / "site" / "mine.txt").exists()


@pytest.mark.slow
def test_a_page_is_replaced_and_others_are_kept_after_a_failure(
  classifier, tmp_path, runtime, any_package
):
  out = tmp_path / "site"
  out.mkdir()
  (out / "site.json").write_text("{}")
  (out / "old.bin").touch()
  with pytest.raises(ValueError, match="0e\\+00 is allowed"):
    written(classifier, tmp_path, runtime, tolerance=0.0)
  assert (out / "old.bin").exists()
  written(classifier, tmp_path, runtime)
  assert not (out / "old.bin").exists()
  assert [x.name for x in tmp_path.iterdir()] == ["site"]


def test_a_package_with_another_checksum_is_refused(tmp_path, runtime):
  with pytest.raises(OSError, match=r"onnxruntime-web-.*sha256"):
    packages.copy(tmp_path, tokenizers=False, folder=runtime)


def test_types_of_files_and_no_page(tmp_path):
  with pytest.raises(ValueError, match=r"no index\.html"):
    with static.serve(tmp_path, host="127.0.0.1", port=None):
      pass
  for name in ("index.html", "x.mjs", "x.wasm"):
    (tmp_path / name).touch()
  want = {
    "": "text/html; charset=utf-8",
    "x.mjs": "text/javascript",
    "x.wasm": "application/wasm",
  }
  with static.serve(tmp_path, host="127.0.0.1", port=None) as address:
    for name, kind in want.items():
      with urllib.request.urlopen(address + name) as response:
        assert response.headers["Content-Type"] == kind


TEXTS = (
  "",
  "a photo of a cat",
  "A Photo of TWO Dogs!",
  "  leading and   many spaces  ",
  "don't, it's we'll I'M you've he'd they're",
  "3.14159 and 1,000,000 €",
  "Größe Straße café naïve Übung",
  "cafe\u0301 nai\u0308ve e\u0301\u0301",
  "日本語のテキスト 東京 tower 東",
  "Ελληνικά ΣΑΣ привет",
  "İstanbul I",
  "שלום مرحبا हिन्दी ไทย 한국어",
  "ﬁne ﬂow ½ ① ™ ŉ ǆ",
  "１２３ ＡＢＣ",
  "emoji 😀 👩‍👩‍👧 🇩🇪 𝒳",
  "tab\tand\nnewline\r\nend",
  "\u00a0non\u2003breaking\u3000space",
  "zero\u200bwidth\u200djoiner\ufeff",
  "control \x00 \x07 char",
  "[CLS] </s> <pad> <turn> <|endoftext|>",
  "<turn>user\n\nhello   world",
  "a" * 120,
  "word " * 90,
  "x=y+z; if (a<b) { return !c; } http://example.com/?a=1#f",
  "‘quoted’ “text” – dash — … &amp; &#39;",
  "\u2581under\u2581score _ __",
  "\ud55c\u1100\u1161\u11a8",
)

NODE = """
import fs from "node:fs";
import {createTokenizer} from "./tokenizers.js";
const {facts, file, texts} = JSON.parse(fs.readFileSync(0));
const vocabulary = new Uint8Array(fs.readFileSync(file));
const tokenize = await createTokenizer(facts, vocabulary);
console.log(JSON.stringify(texts.map((text) => tokenize(text))));
"""


def ids_of_the_page(folder, name, file, length):
  """The ids of TEXTS by the JavaScript of a page."""
  (folder / "package.json").write_text('{"type": "module"}')
  (folder / "run.mjs").write_text(NODE)
  facts = {"name": name, "max_len": length}
  asked = {"facts": facts, "file": str(file), "texts": TEXTS}
  done = subprocess.run(
    ["node", str(folder / "run.mjs")],
    input=json.dumps(asked),
    capture_output=True,
    text=True,
  )
  assert not done.returncode, done.stderr
  return json.loads(done.stdout)


@pytest.fixture
def page(tmp_path):
  """The page's JavaScript, without the package of tokenizers."""
  if not shutil.which("node"):
    pytest.skip("needs the program node")
  folder = tmp_path / "page"
  shutil.copytree(site.PAGE, folder)
  (folder / "runtime").mkdir()
  library = folder / "runtime" / "tokenizers.min.mjs"
  library.write_text("export class Tokenizer {}\n")
  return folder


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory):
  """SentencePiece models of both kinds, trained on a few lines."""
  spm = pytest.importorskip("sentencepiece")
  folder = tmp_path_factory.mktemp("vocabularies")
  (folder / "lines.txt").write_text("\n".join(x for x in TEXTS[:15] if x) * 40)
  options = {"input": str(folder / "lines.txt"), "minloglevel": 2}
  ids = {"pad_id": 0, "eos_id": 1, "bos_id": -1, "unk_id": 2}
  spm.SentencePieceTrainer.train(
    model_prefix=str(folder / "unigram"),
    vocab_size=150,
    hard_vocab_limit=False,
    normalization_rule_name="nmt_nfkc",
    **options,
    **ids,
  )
  spm.SentencePieceTrainer.train(
    model_prefix=str(folder / "bpe"),
    model_type="bpe",
    vocab_size=450,
    byte_fallback=True,
    normalization_rule_name="identity",
    add_dummy_prefix=False,
    remove_extra_whitespaces=False,
    user_defined_symbols=["<turn>", "\n\n", "\u2581\u2581"],
    **options,
    **ids,
  )
  return folder


@pytest.mark.parametrize(
  "name, file",
  [
    ("sentencepiece", "unigram"),
    ("siglip", "unigram"),
    ("hf_siglip", "unigram"),
    ("gemma", "bpe"),
  ],
)
def test_sentencepiece_in_the_page_gives_the_same_ids(
  page, vocabularies, name, file
):
  file = vocabularies / f"{file}.model"
  want = tokenizers.create(name, file, max_len=64)(TEXTS)
  got = ids_of_the_page(page, name, file, 64)
  for text, x, y in zip(TEXTS, want.tolist(), got, strict=True):
    assert x == y, repr(text)


def bert_file(folder):
  """WordPiece's letters, and a few words."""
  letters = sorted({x for text in TEXTS for x in text.lower()} - {" ", "\n"})
  words = ("[PAD]", "[UNK]", "[CLS]", "a", "photo", "##s", "dog", "cafe")
  lines = dict.fromkeys((*words, *letters, *(f"##{x}" for x in letters)))
  file = folder / "vocab.txt"
  file.write_text("\n".join(lines) + "\n")
  return file


def clip_file(folder, i):
  """One of the published forms of a small vocabulary of CLIP's kind."""
  from tests.unit.test_tokenizers import REFERENCE, clip_files

  case = json.loads((REFERENCE / "clip_tokens.json").read_text())
  return clip_files(case, folder)[i]


def siglip_file(folder):
  """`tokenizer.json` of the kind of SigLIP's: unigram."""
  library = pytest.importorskip("tokenizers")
  tokenizer = library.Tokenizer(library.models.Unigram())
  tokenizer.pre_tokenizer = library.pre_tokenizers.Metaspace()
  trainer = library.trainers.UnigramTrainer(
    vocab_size=200,
    special_tokens=["</s>", "<unk>"],
    unk_token="<unk>",
    show_progress=False,
  )
  return trained_file(folder, tokenizer, trainer)


def gemma_file(folder):
  """`tokenizer.json` of the kind of SigLIP 2's: pairs, else bytes."""
  library = pytest.importorskip("tokenizers")
  tokenizer = library.Tokenizer(
    library.models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True)
  )
  tokenizer.normalizer = library.normalizers.Replace(" ", "\u2581")
  tokenizer.pre_tokenizer = library.pre_tokenizers.Split(
    " ", "merged_with_previous"
  )
  special = ["<pad>", "<eos>", "<bos>", "<unk>"]
  trainer = library.trainers.BpeTrainer(
    vocab_size=600,
    limit_alphabet=40,
    special_tokens=[*special, *(f"<0x{i:02X}>" for i in range(256))],
    show_progress=False,
  )
  return trained_file(folder, tokenizer, trainer, special)


def trained_file(folder, tokenizer, trainer, special=("</s>", "<unk>")):
  lines = [text.lower() for text in TEXTS[:15] if text]
  tokenizer.train_from_iterator(lines * 10, trainer)
  content = json.loads(tokenizer.to_str())
  # The bytes are pieces like others.
  content["added_tokens"] = [
    x for x in content["added_tokens"] if x["content"] in special
  ]
  file = folder / "tokenizer.json"
  file.write_text(json.dumps(content))
  return file


@pytest.mark.network  # for the package of the page
@pytest.mark.parametrize(
  "name, make, length",
  [
    pytest.param("bert", bert_file, 32, id="bert"),
    *(
      pytest.param(
        "clip", lambda x, i=i: clip_file(x, i), 77, id=f"clip {form}"
      )
      for i, form in enumerate(("merges", "gzip", "json", "old json"))
    ),
    pytest.param("hf_siglip", siglip_file, 64, id="hf_siglip"),
    pytest.param("gemma", gemma_file, 64, id="gemma"),
  ],
)
def test_the_library_in_the_page_gives_the_same_ids(
  page, tmp_path, name, make, length
):
  packages.copy(page / "runtime", tokenizers=True, folder=None)
  file = make(tmp_path)
  want = tokenizers.create(name, file, max_len=length)(TEXTS)
  got = ids_of_the_page(page, name, file, length)
  for text, x, y in zip(TEXTS, want.tolist(), got, strict=True):
    assert x == y, repr(text)
