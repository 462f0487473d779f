"""A model and its train step without a config, input or TensorFlow."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

SGD = {
  "name": "sgd",
  "learning_rate": 0.01,
  "weight_decay": 1e-4,
  "decay_scale": "gradient",
}
ADAM = {"name": "adam", "learning_rate": 1e-3, "weight_decay": 1e-4}


@dataclasses.dataclass(frozen=True)
class Network:
  """Jitted functions of a model on one device.

  Attributes:
    init: key -> state.
    train: (state, batch) -> (state, metrics); the state is donated.
    predict: (weights, batch) -> (logits, out), of a classifier.
  """

  init: Any
  train: Any
  predict: Any


def make(
  name: str,
  optim: dict,
  *,
  image_size: int = 224,
  tokens: int | None = None,
  device: jax.Device | None = None,
  **options,
) -> Network:
  """The network of `models.create(name, **options)`.

  Args:
    name: the model.
    optim: keywords of `optim.make_optimizer`.
    image_size: side of the images in pixels.
    tokens: number of tokens of a text. None: a classifier of 1000 classes.
    device: where it computes.
    **options: of the model.
  """
  from vitjax import losses, models, objectives
  from vitjax import optim as optimizers
  from vitjax import step as step_lib
  from vitjax.parallel import sharding

  inputs = [jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)]
  if tokens is None:
    model = models.create(name, num_classes=1000, **options)
    objective = objectives.classification(
      model, loss_fn=losses.softmax_xent, num_classes=1000
    )
  else:
    model = models.create(name, **options)
    objective = objectives.contrastive(
      model, loss_fn=losses.CONTRASTIVE["siglip"]
    )
    inputs.append(jax.ShapeDtypeStruct((1, tokens), jnp.int32))
  tx = optimizers.make_optimizer(**optim, schedule=lambda _: 1.0)
  init = step_lib.make_init_fn(model, *inputs)
  mesh = sharding.make_mesh(1, 1, 1, devices=[device or jax.devices()[0]])
  place = sharding.replicated(mesh)

  def on_mesh(fn):
    def call(*args):
      # Fused attention needs the mesh.
      with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return fn(*args)

    return call

  def normalise(batch):
    return {**batch, "image": batch["image"].astype("float32") / 127.5 - 1}

  step = step_lib.make_train_step(
    objective, tx, normalise=normalise, seed=0, schedule=lambda _: 1.0
  )
  return Network(
    init=jax.jit(
      lambda key: step_lib.make_state(init(key), tx), out_shardings=place
    ),
    train=jax.jit(
      on_mesh(step),
      donate_argnums=0,
      in_shardings=place,
      out_shardings=place,
    ),
    predict=tokens is None
    and jax.jit(on_mesh(step_lib.make_predict_fn(model, normalise))),
  )
