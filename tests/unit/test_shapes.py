"""The shapes that signatures declare hold while the tests run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from vitjax import losses, mixing, models, optim
from vitjax import step as step_lib
from vitjax.losses import pairs
from vitjax.models import common


@pytest.mark.parametrize(
  "module", [losses, mixing, models, common, optim, step_lib]
)
def test_the_module_is_checked(module):
  assert "jaxtyping" in module.__loader__.__class__.__name__.lower()


@pytest.mark.parametrize(
  "call",
  [
    lambda: losses.softmax_xent(jnp.ones((3, 7)), jnp.ones((2, 7))),
    lambda: losses.softmax_xent(jnp.ones((3, 7)), jnp.ones((3, 7), int)),
    lambda: pairs.sigmoid(
      jnp.ones((3, 7)), jnp.ones((2, 7)), jnp.ones(()), jnp.ones(())
    ),
    lambda: mixing.smooth_labels(jnp.ones(7), 0.1),
    lambda: models.create("vit", variant="mu/16").init(
      jax.random.key(0), np.ones((32, 32, 3), np.float32)
    ),
  ],
  ids=["another batch", "integers", "no pairs", "no batch", "one image"],
)
def test_a_wrong_shape_or_type_fails(call):
  with pytest.raises(TypeCheckError):
    call()
