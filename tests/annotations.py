"""The type checker of annotations while the tests run."""

import beartype

# An int is a float too, as static checkers have it.
check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
