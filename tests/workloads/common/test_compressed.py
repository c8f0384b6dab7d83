"""Gzipped files of anyone: damage is a line, and nothing unpacks to more than it may."""

import gzip

import pytest

from lumos.errors import DataError
from lumos.workloads.common import compressed


def test_a_file_that_unpacks_to_more_than_it_may(tmp_path):
    file = tmp_path / "zeros.gz"
    file.write_bytes(gzip.compress(bytes(3 << 20)))
    assert len(compressed.unpacked(file)) == 3 << 20
    with pytest.raises(DataError, match=r"zeros\.gz: unpacks to more than 2 MB; expected a file of a data set"):
        compressed.unpacked(file, limit=2 << 20)
    with pytest.raises(DataError, match=r"zeros\.gz: a line of more than 1 MB"):
        list(compressed.lines_of(file))


@pytest.mark.parametrize("place", [3, 12, 40, -6])
def test_damage_anywhere(tmp_path, place):
    """In the header, in the tables of the code, in the data and in the checksum."""
    file = tmp_path / "a.csv.gz"
    content = bytearray(gzip.compress(b"".join(b"%d,%d\n" % (i, i * i) for i in range(200))))
    content[place] ^= 0xFF
    file.write_bytes(content)
    for read in (compressed.unpacked, lambda path: list(compressed.lines_of(path))):
        with pytest.raises(DataError, match=r"a\.csv\.gz: cannot be read \(.*\); it is damaged, fetch it again"):
            read(file)
