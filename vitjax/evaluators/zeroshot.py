"""Zero-shot classification: the class whose description is most similar.

CLIP, https://arxiv.org/abs/2103.00020, sec. 3.1: each class name is put into
every template; the embeddings are averaged and normalised to length 1.
"""

from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vitjax.data import tokenizers
from vitjax.evaluators import base
from vitjax.evaluators.classification import correct_at_k
from vitjax.parallel import sharding

# Our choice: CLIP's published list of 80 would be long for a default.
TEMPLATES = (
  "{}",
  "a photo of a {}.",
  "a picture of a {}.",
  "a close-up of a {}.",
  "a photo of one {} on a plain background.",
  "a small photo of the {}.",
  "a black and white photo of a {}.",
)


class Evaluator:
  """Zero-shot accuracy on a labelled data set, from the names of its classes.

  Metrics: `acc@1`, `acc@5` and `n_seen`, the number of images.

  Attributes:
    metrics: names of all metrics, in the order of `run`.
  """

  two_towers = True

  def __init__(
    self,
    predict_fn: Callable,
    data: base.EvalData,
    *,
    tokenizer: tokenizers.Tokenizer,
    class_names: str | Sequence[str] | None = None,
    templates: str | Sequence[str] = TEMPLATES,
  ):
    """See `evaluators`.

    Args:
      predict_fn: of a model with two towers, see `step.make_predict_fn`.
      data: examples with an int `label`.
      tokenizer: tokenizer of training.
      class_names: names of the classes, in the order of their ids, or a text
        file with one name on each line. None: the names that the data set has.
      templates: texts with one {} for the name of the class, or a text file
        with one template on each line.

    Raises:
      ValueError: if there is not one name for each class, a template has no
        place for it, or a file cannot be read.
    """
    names = base.lines(class_names) or data.source.class_names or ()
    templates = base.lines(templates)
    classes = data.source.num_classes
    if classes is not None:
      base.number_of_classes(data.source)
    if not names or len(names) != (classes or len(names)):
      raise ValueError(
        f"zero-shot on {data.source.data!r} needs the names of its "
        f"{classes or ''} classes, and has {len(names)}: set class_names of "
        "the eval."
      )
    if bad := [t for t in templates if t.count("{}") != 1] or not templates:
      raise ValueError(f"each template needs one {{}}, not {bad}.")
    tops = (1, 5) if len(names) > 5 else (1,)
    self.metrics = (*(f"acc@{k}" for k in tops), "n_seen")
    texts = [t.format(name) for name in names for t in templates]
    # In chunks, so that memory does not grow with the number of classes.
    size = data.batch_size
    text = tokenizer(texts)
    text = np.pad(text, [[0, -len(text) % size], [0, 0]])
    text = text.reshape(-1, size, text.shape[-1])

    def class_embeddings(params):
      def embed(text):
        _, embedding, _ = predict_fn(params, {"text": text})
        return embedding

      z = jax.lax.map(embed, text)
      z = z.reshape(-1, z.shape[-1])[: len(texts)]
      z = z.reshape(len(names), len(templates), -1).mean(axis=1)
      return z / jnp.linalg.norm(z, axis=-1, keepdims=True)

    def sums(given, batch):
      params, classes = given["params"], given["classes"]
      image, _, _ = predict_fn(params, {"image": batch["image"]})
      similarity = jnp.matmul(
        image, classes.T, precision=jax.lax.Precision.HIGHEST
      )
      label, mask = batch["label"], batch["mask"]
      return {
        f"acc@{k}": (mask & correct_at_k(similarity, label, k)).sum()
        for k in tops
      }

    self._classes = jax.jit(
      class_embeddings, out_shardings=sharding.replicated(data.mesh)
    )
    self._sums = base.MaskedSums(sums, data)

  def trace(self, params) -> None:
    """See `evaluators`."""
    classes = jax.eval_shape(self._classes, params)
    self._sums.trace({"params": params, "classes": classes})

  def run(self, params) -> Iterator[tuple[str, float]]:
    """Yields each metric with its name."""
    sums = self._sums({"params": params, "classes": self._classes(params)})
    n_seen = sums.pop("n_seen")
    for name, value in sums.items():
      yield name, float(value / n_seen)
    yield "n_seen", int(n_seen)
