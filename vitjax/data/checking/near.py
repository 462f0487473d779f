"""Near-duplicates: images that look alike, found by a perceptual hash.

The hash has a bit for each of the 64 lowest frequencies of the grey image in
32x32 pixels (pHash, https://www.phash.org). It stays nearly the same when an
image is saved again, resized, or made a little brighter. Images whose hashes
differ in few bits are then compared as small pictures.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

_SIDE, _LOWEST = 32, 8
BITS = _LOWEST**2
MOST_BITS = 8  # With more, comparing 100,000 images takes minutes.
_PICTURE = 16
# Least correlation of the small pictures of near-duplicates.
_CORRELATION = 0.99
# Pictures with a smaller deviation, in levels of 255, have nothing to compare.
_FLAT = 2.0
_CHUNK = 1_000_000  # pairs that are compared at once


@dataclasses.dataclass(frozen=True)
class Likeness:
  """What is compared of an image.

  Attributes:
    bits: the hash.
    picture: the small grey picture, normalised to length 1; zeros if it is
      flat.
  """

  bits: int
  picture: np.ndarray


def likeness(image: np.ndarray) -> Likeness:
  """The likeness of an image, uint8 [h, w, c]."""
  if image.shape[2] == 3:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
  else:
    grey = image.mean(axis=-1, dtype=np.float32)
  grey = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
  grey = grey.astype(np.float32)
  lowest = cv2.dct(grey)[:_LOWEST, :_LOWEST].ravel()
  # The first is the mean of the image, far above all others.
  bits = np.packbits(lowest > np.median(lowest[1:]))
  picture = cv2.resize(grey, (_PICTURE,) * 2, interpolation=cv2.INTER_AREA)
  picture -= picture.mean()
  norm = np.linalg.norm(picture)
  if norm < _FLAT * _PICTURE:
    picture[:] = 0
  else:
    picture /= norm
  return Likeness(
    int.from_bytes(bits.tobytes()), picture.ravel().astype(np.float16)
  )


def groups(found: Sequence[Likeness], most_bits: int) -> list[list[int]]:
  """Numbers of the images that look alike, in groups of two or more.

  Args:
    found: images that are all different files.
    most_bits: number of bits, of 64, in which the hashes may differ.
  """
  if len(found) < 2:
    return []
  pictures = np.stack([x.picture for x in found])
  codes = np.array([x.bits for x in found], np.uint64)
  parent = np.arange(len(found))

  def root(i: int) -> int:
    while parent[i] != i:
      parent[i] = parent[parent[i]]
      i = parent[i]
    return i

  for first, second in _candidates(codes, most_bits):
    alike = np.einsum(
      "nd,nd->n", pictures[first], pictures[second], dtype=np.float32
    )
    for i, j in zip(
      first[alike >= _CORRELATION], second[alike >= _CORRELATION]
    ):
      parent[root(i)] = root(j)
  members: dict[int, list[int]] = {}
  for i in range(len(found)):
    members.setdefault(root(i), []).append(i)
  return [x for x in members.values() if len(x) > 1]


def _candidates(
  codes: np.ndarray, most_bits: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Pairs of images whose hashes differ in at most `most_bits` bits.

  Hashes are cut into one band more than that. At least one band of such a pair
  is equal, so only images that share a band are compared. Each pair is given in
  the first band that it shares.
  """
  edges = np.linspace(0, BITS, most_bits + 2).astype(int)
  bands = [
    (codes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
    for low, high in itertools.pairwise(edges)
  ]
  for number, band in enumerate(bands):
    order = np.argsort(band, kind="stable")
    cuts = np.flatnonzero(np.diff(band[order])) + 1
    starts = np.concatenate([[0], cuts, [len(order)]])
    # The places after each one in its bucket.
    after = np.repeat(starts[1:], np.diff(starts)) - np.arange(len(order)) - 1
    ends = np.cumsum(after)
    for low in range(0, int(ends[-1]), _CHUNK):
      pair = np.arange(low, min(low + _CHUNK, int(ends[-1])))
      place = np.searchsorted(ends, pair, side="right")
      other = place + 1 + pair - (ends[place] - after[place])
      first, second = order[place], order[other]
      near = np.bitwise_count(codes[first] ^ codes[second]) <= most_bits
      first, second = first[near], second[near]
      for earlier in bands[:number]:
        new = earlier[first] != earlier[second]
        first, second = first[new], second[new]
      if len(first):
        yield first, second
