"""The folders that the tests of whole runs share."""

from tests.e2e.conftest import cache as cache
from tests.e2e.conftest import packed as packed
from tests.e2e.conftest import pictures as pictures
from tests.e2e.conftest import shared_folder as shared_folder
