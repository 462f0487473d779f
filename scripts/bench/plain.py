"""The baseline: a ViT and a train step as flax.linen and optax suggest them.

It is what a user would write in an afternoon, with the mathematics of
`configs/vit_s16_i1k.py`: Linen's own attention, a jitted step with donated
state, optax's chain. It uses no code of vitjax.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training import train_state


class Block(nn.Module):
  num_heads: int

  @nn.compact
  def __call__(self, x):
    y = nn.LayerNorm()(x)
    x = x + nn.MultiHeadDotProductAttention(self.num_heads)(y)
    y = nn.LayerNorm()(x)
    y = nn.gelu(nn.Dense(4 * x.shape[-1])(y))
    return x + nn.Dense(x.shape[-1])(y)


class ViT(nn.Module):
  num_classes: int = 1000
  patch_size: int = 16
  width: int = 384
  depth: int = 12
  num_heads: int = 6

  @nn.compact
  def __call__(self, image):
    p = self.patch_size
    x = nn.Conv(self.width, (p, p), (p, p), padding="VALID")(image)
    x = x.reshape(x.shape[0], -1, self.width)
    shape = (1, *x.shape[1:])
    x = x + self.param("posemb", nn.initializers.normal(0.02), shape)
    for _ in range(self.depth):
      x = Block(self.num_heads)(x)
    x = nn.LayerNorm()(x).mean(axis=1)
    x = nn.tanh(nn.Dense(self.width)(x))
    return nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros)(x)


def make(image_shape: tuple[int, ...], num_classes: int) -> tuple[Any, Any]:
  """A state, and the jitted (state, batch, key) -> (state, loss)."""
  model = ViT(num_classes)
  variables = model.init(jax.random.key(0), jnp.zeros(image_shape))
  tx = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.scale_by_adam(mu_dtype="bfloat16"),
    optax.add_decayed_weights(
      1e-4, mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params)
    ),
    optax.scale_by_learning_rate(
      optax.warmup_cosine_decay_schedule(0, 1e-3, 10_000, 100_000)
    ),
  )
  state = train_state.TrainState.create(
    apply_fn=model.apply, params=variables["params"], tx=tx
  )

  def step(state, batch, key):
    image = batch["image"].astype(jnp.float32) / 127.5 - 1
    label = jax.nn.one_hot(batch["label"], num_classes)
    part = jax.random.beta(key, 0.2, 0.2)
    part = jnp.maximum(part, 1 - part)
    image = part * image + (1 - part) * jnp.roll(image, 1, axis=0)
    label = part * label + (1 - part) * jnp.roll(label, 1, axis=0)

    def loss_fn(params):
      logits = state.apply_fn({"params": params}, image)
      return optax.softmax_cross_entropy(logits, label).mean()

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    return state.apply_gradients(grads=grads), loss

  return state, jax.jit(step, donate_argnums=0)
