"""Where samples come from, as the configuration says it."""

import pytest

from lumos.errors import DataError
from lumos.workloads.common.base import as_source


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (None, "workload.data=None: expected the keys of data; set data.root"),
        ({"root": ""}, "data.root=: expected a path"),
        ({"cache": " "}, "data.cache= : expected a path"),
        ({"folder": "a"}, "data.folder: no such key; expected one of source, "),
    ],
)
def test_what_is_no_place_is_said(data, line):
    with pytest.raises(DataError, match=line):
        as_source(data)
