"""Retrieval of texts by images and of images by texts: R@1, R@5 and R@10.

As in LiT, https://arxiv.org/abs/2111.07991, table 6: R@K is the share of
queries with a match among the K most similar keys. An image may have several
texts.
"""

from collections.abc import Callable, Iterator

import numpy as np

from vitjax.evaluators import base

KS = (1, 5, 10)
# Largest number of similarities in memory at a time.
_MOST = 2**24


def ranks(
  queries: np.ndarray,
  keys: np.ndarray,
  query_ids: np.ndarray,
  key_ids: np.ndarray,
) -> np.ndarray:
  """Rank of the best matching key of each query, from 0.

  Other keys that tie with it, and NaN, count as more similar: a model that
  gives everything the same embedding finds nothing.

  Args:
    queries: (q, d) embeddings.
    keys: (n, d) embeddings.
    query_ids: (q,) ids; a key matches a query with the same id.
    key_ids: (n,) ids.

  Returns:
    (q,) int64.
  """
  result = []
  rows = max(1, _MOST // len(keys))
  for start in range(0, len(queries), rows):
    similarity = queries[start : start + rows] @ keys.T
    own = query_ids[start : start + rows, None] == key_ids
    best = np.where(own, similarity, -np.inf).max(axis=1, keepdims=True)
    result.append((~(similarity < best) & ~own).sum(axis=1))
  return np.concatenate(result)


class Evaluator:
  """Recall of texts by images, and of images by texts.

  Metrics: `image_to_text_R@K` and `text_to_image_R@K` for K = 1, 5 and 10;
  `n_texts` and `n_seen`, the numbers of texts and images.
  """

  two_towers = True
  metrics = (
    *(f"image_to_text_R@{k}" for k in KS),
    *(f"text_to_image_R@{k}" for k in KS),
    "n_texts",
    "n_seen",
  )

  def __init__(self, predict_fn: Callable, data: base.EvalData):
    """See `evaluators`.

    Args:
      predict_fn: of a model with two towers, see `step.make_predict_fn`.
      data: examples with `text` (t,), or (k, t) and `text_mask` (k,).
    """

    def embed(params, batch):
      if "text" not in batch:
        raise ValueError(
          "retrieval needs texts: end the eval's pp with an op such as "
          "tokenize(..., inkey='captions', num_texts=5)."
        )
      text = batch["text"]
      several = text.ndim == 3
      mask = batch["text_mask"] if several else batch["mask"][:, None]
      flat = {"image": batch["image"], "text": text.reshape(-1, text.shape[-1])}
      image, embedding, _ = predict_fn(params, flat)
      embedding = embedding.reshape(*mask.shape, -1)
      return {"image": image, "text": embedding, "text_mask": mask}

    self._collect = base.Collected(embed, data)

  def trace(self, params) -> None:
    """See `evaluators`."""
    self._collect.trace(params)

  def run(self, params) -> Iterator[tuple[str, float]]:
    """Yields each metric with its name."""
    rows = self._collect(params)
    image, mask = rows["image"], rows["text_mask"]
    text = rows["text"][mask]
    image_ids = np.arange(len(image))
    text_ids = np.nonzero(mask)[0]
    if missing := len(image) - len(np.unique(text_ids)):
      raise RuntimeError(f"retrieval: {missing} image(s) have no text.")
    pairs = {
      "image_to_text": ranks(image, text, image_ids, text_ids),
      "text_to_image": ranks(text, image, text_ids, image_ids),
    }
    for name, rank in pairs.items():
      for k in KS:
        yield f"{name}_R@{k}", float((rank < k).mean())
    yield "n_texts", len(text)
    yield "n_seen", len(image)
