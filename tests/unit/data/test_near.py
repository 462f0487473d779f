"""Images that look alike, against copies made to look alike."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

from vitjax.data.checking import near

PHOTOS = datasets.load_sample_images().images
TILES = [
  np.ascontiguousarray(photo[y : y + 200, x : x + 200])
  for photo in PHOTOS
  for y in (0, 110, 220)
  for x in (0, 140, 280, 420)
]


def saved(image, kind, quality):
  out = io.BytesIO()
  Image.fromarray(image).save(out, kind, quality=quality)
  return np.asarray(Image.open(out).convert("RGB"))


def resized(image, size):
  return np.asarray(Image.fromarray(image).resize(size))


def groups(images, most_bits=4):
  return near.groups([near.likeness(x) for x in images], most_bits)


@pytest.mark.parametrize(
  "change",
  [
    lambda x: saved(x, "JPEG", 30),
    lambda x: saved(x, "WEBP", 40),
    lambda x: resized(x, (90, 110)),
    lambda x: np.clip(x * 0.9 + 5, 0, 255).astype(np.uint8),
  ],
)
def test_copies_are_found_and_nothing_else(change):
  found = groups([*TILES, *map(change, TILES)])
  assert sorted(map(sorted, found)) == [
    [i, i + len(TILES)] for i in range(len(TILES))
  ]


def test_different_photographs_are_not_alike():
  assert not groups(TILES)
  assert not groups([TILES[0], TILES[0][:, ::-1]])


def test_flat_images_are_not_compared():
  assert not groups([np.full((40, 40, 3), i, np.uint8) for i in (0, 0, 9)])


def test_a_chain_is_one_group():
  image = TILES[0]
  chain = [image, saved(image, "JPEG", 60), resized(image, (100, 100))]
  assert groups([*chain, TILES[1]]) == [[0, 1, 2]]
  assert groups([]) == groups([image]) == []


@pytest.mark.parametrize("most_bits", range(near.MOST_BITS + 1))
def test_the_index_finds_what_all_pairs_find(most_bits):
  rng = np.random.default_rng(most_bits)
  codes = rng.integers(0, 2**64, 60, dtype=np.uint64)
  # Each has relatives that differ in 0 to 9 bits, and some bands are crowded.
  for i in range(60, 300):
    bits = rng.choice(64, i % 10, replace=False).astype(np.uint64)
    flips = np.bitwise_or.reduce(np.uint64(1) << bits, initial=np.uint64(0))
    codes = np.append(codes, codes[i % 60] ^ flips)
  want = {
    (i, j)
    for i, j in itertools.combinations(range(300), 2)
    if int(codes[i] ^ codes[j]).bit_count() <= most_bits
  }
  got = [
    (min(pair), max(pair))
    for first, second in near._candidates(codes, most_bits)
    for pair in zip(first.tolist(), second.tolist())
  ]
  assert len(got) == len({*got}) and {*got} == want
