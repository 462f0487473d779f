import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vitjax import trees


def _params():
  return {
    "head": {"kernel": np.zeros((4, 2), np.float32), "bias": np.zeros(2)},
    "pos_embedding": np.zeros((1, 9, 4), np.float32),
  }


def test_names_follow_the_order_of_the_leaves():
  assert trees.names(_params()) == [
    "head/bias",
    "head/kernel",
    "pos_embedding",
  ]


def test_flatten_names_optax_states_and_skips_none():
  state = optax.adam(1e-3).init({"w": jnp.zeros(2), "frozen": None})
  assert list(trees.flatten(state)) == ["0/count", "0/mu/w", "0/nu/w"]


def test_unflatten_undoes_flatten():
  params = _params()
  again = trees.unflatten(trees.flatten(params))
  assert jax.tree.structure(again) == jax.tree.structure(params)
  assert again["head"]["kernel"] is params["head"]["kernel"]


def test_flatten_refuses_a_key_with_a_slash_that_collides():
  with pytest.raises(ValueError, match=r"two leaves are called 'a/b'"):
    trees.flatten({"a": {"b": 1}, "a/b": 2})


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a"), ("",)])
def test_unflatten_refuses_names_that_cannot_be_a_tree(names):
  with pytest.raises(ValueError, match=r"leaf"):
    trees.unflatten(dict.fromkeys(names, 1))


def test_unflatten_keeps_leaves_that_are_dicts_apart():
  with pytest.raises(ValueError, match="parent of"):
    trees.unflatten({"a": {}, "a/b": 1})


def test_map_with_names_takes_several_trees():
  out = trees.map_with_names(lambda n, a, b: f"{n}:{a}{b}", {"x": 1}, {"x": 2})
  assert out == {"x": "x:12"}


def test_mask_matches_whole_names_only():
  tree = {"head": 1, "forehead": 2, "a": {"head": 3}}
  assert trees.mask(tree, "head") == {
    "head": True,
    "forehead": False,
    "a": {"head": False},
  }
  assert trees.mask(tree, [".*head", "nothing"])["a"] == {"head": True}


def test_what_is_no_regular_expression_is_named():
  for fn in (
    lambda: trees.mask({"a": 0}, ["a", "("]),
    lambda: trees.match_rules({"a": 0}, [("(", 1)]),
  ):
    with pytest.raises(ValueError, match=r"'\(' is not a regular expression"):
      fn()


def test_match_rules_takes_the_first_match():
  rules = [(".*/kernel", "decay"), (".*", "none")]
  assert trees.match_rules(_params(), rules) == {
    "head": {"kernel": "decay", "bias": "none"},
    "pos_embedding": "none",
  }


def test_match_rules_allows_a_rule_that_is_wholly_shadowed():
  assert trees.match_rules({"a": 0}, [("a", 1), (".*", 2)]) == {"a": 1}


def test_match_rules_lists_leaves_and_rules_at_fault_at_once():
  with pytest.raises(ValueError) as error:
    trees.match_rules(
      _params(), [("head/.*", 1), ("hed/.*", 2)], what="config.sharding"
    )
  assert str(error.value) == (
    "config.sharding do not fit the tree. No rule matches: pos_embedding; end "
    "with a rule '.*'. No leaf matches: 'hed/.*' (nearest name: head/bias); a "
    "regex must match the whole name."
  )
  loose = trees.match_rules(
    _params(), [("hed/.*", 2)], every_leaf=False, every_rule=False
  )
  assert loose["pos_embedding"] is None


def test_compare_reports_every_kind_of_difference():
  expected = {
    "head": {"bias": np.zeros(2, np.float32)},
    "pos_embedding": jax.ShapeDtypeStruct((1, 196, 768), jnp.float32),
    "scale": np.zeros(3, np.float32),
  }
  given = {
    "pre_logits": {"kernel": np.zeros(2)},
    "pos_embedding": np.zeros((1, 576, 768), np.float32),
    "scale": np.zeros(3, jnp.bfloat16),
  }
  difference = trees.compare(expected, given)
  assert difference
  assert difference.message() == (
    "Missing: head/bias. Extra: pre_logits/kernel. "
    "Shape: pos_embedding (1, 196, 768) vs (1, 576, 768). "
    "Dtype: scale float32 vs bfloat16."
  )


def test_compare_of_equal_trees_is_false():
  given = {"a": np.float32(1), "n": np.int32(3)}
  difference = trees.compare({"a": 1.0, "n": 3}, given)
  assert not difference
  assert difference.message() == "No difference."


def test_a_long_difference_is_cut():
  difference = trees.compare({f"w{i:03d}": 0 for i in range(100)}, {})
  assert difference.message(2) == "Missing: w000, w001 and 98 more."
