"""Random numbers as functions of (seed, number), for many examples at once.

TensorFlow's stateless generators take one seed per call; these take one per
example. All are SplitMix64 (https://doi.org/10.1145/2714064.2660195): a
counter whose bits are mixed, so neighbouring numbers, or neighbouring seeds,
give unrelated results.
"""

from vitjax.data.tf import tf

# Uses of a seed, which must not share random numbers.
PERMUTATION, EXAMPLE, PLACES = 1, 2, 3

_GOLDEN = 0x9E3779B97F4A7C15
_FACTORS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31
# Odd and unrelated to the golden ratio, to separate the draws of an op.
_DRAW = 0xD1342543DE82EF95


def example_seeds(seed: int, numbers: tf.Tensor, use: int) -> tf.Tensor:
  """Hashes (seed, number, use).

  Args:
    seed: any Python integer.
    numbers: int64 [n].
    use: 0..3, such as `EXAMPLE`; different uses of one seed are unrelated.

  Returns:
    int32 [n, 2], the form in which examples carry seeds.
  """
  start = _mix_int((seed * 4 + use) % 2**64)
  words = tf.cast(numbers, tf.uint64) * _word(_GOLDEN) + _word(start)
  return tf.bitcast(_mix(words), tf.int32)


def of_part(seed: int, number: int) -> int:
  """The seed of part `number` of something that has `seed`."""
  return _mix_int((_mix_int(seed % 2**64) + number) % 2**64)


def fold_in(seed: tf.Tensor, number: int) -> tf.Tensor:
  """The `number`-th seed that derives from each seed.

  Args:
    seed: int32 [..., 2] from `example_seeds`. It is hashed already, so an
      addition keeps it apart from the others.
    number: not negative.

  Returns:
    int32 [..., 2].
  """
  words = tf.bitcast(seed, tf.uint64) + _word(number * _GOLDEN % 2**64)
  return tf.bitcast(words, tf.int32)


def uniform(seed: tf.Tensor, draw: int = 0) -> tf.Tensor:
  """float32 [...] in [0, 1) from seeds int32 [..., 2]; draws are unrelated."""
  return tf.cast(_bits(seed, draw, 24), tf.float32) * 2.0**-24


def integers(
  seed: tf.Tensor, limit: tf.Tensor | int, draw: int = 0
) -> tf.Tensor:
  """int32 [...] in [0, limit) from seeds int32 [..., 2]."""
  bits = tf.cast(_bits(seed, draw, 32), tf.int64)
  # Lemire's multiplication instead of a division; the bias is limit / 2**32.
  product = bits * tf.cast(limit, tf.int64)
  return tf.cast(tf.bitwise.right_shift(product, 32), tf.int32)


def _bits(seed: tf.Tensor, draw: int, count: int) -> tf.Tensor:
  words = tf.bitcast(seed, tf.uint64) + _word((draw + 1) * _DRAW % 2**64)
  return tf.bitwise.right_shift(_mix(words), _word(64 - count))


def _mix(words: tf.Tensor) -> tf.Tensor:
  for shift, factor in _FACTORS:
    words = _xor_shift(words, shift) * _word(factor)
  return _xor_shift(words, _LAST_SHIFT)


def _xor_shift(words: tf.Tensor, shift: int) -> tf.Tensor:
  shifted = tf.bitwise.right_shift(words, _word(shift))
  return tf.bitwise.bitwise_xor(words, shifted)


def _mix_int(word: int) -> int:
  word = (word + _GOLDEN) % 2**64
  for shift, factor in _FACTORS:
    word = (word ^ (word >> shift)) * factor % 2**64
  return word ^ (word >> _LAST_SHIFT)


def _word(value: int) -> tf.Tensor:
  return tf.constant(value, tf.uint64)
