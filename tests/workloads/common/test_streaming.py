"""Samples read when they are needed."""

import pytest
import torch

from lumos.errors import DataError
from lumos.workloads.common.streaming import sample_loader


class Squares:
    def __init__(self, damaged=()):
        self.damaged = damaged

    def __len__(self):
        return 10

    def read(self, index, epoch):
        if index in self.damaged:
            raise DataError(f"file {index}: truncated")
        return torch.tensor([index**2, epoch])


def test_in_order_all_of_them_come():
    batches = list(sample_loader(Squares(), batch_size=4))
    assert [len(b) for b in batches] == [4, 4, 2]
    assert torch.cat(batches)[:, 0].tolist() == [i**2 for i in range(10)]


@pytest.mark.parametrize("workers", [0, 1])
def test_order_and_samples_follow_seed_and_epoch(workers):
    loader = sample_loader(Squares(), batch_size=4, seed=3, workers=workers)
    orders = []
    for epoch in (0, 1, 0):
        loader.sampler.set_epoch(epoch)
        rows = torch.cat(list(loader))
        assert rows[:, 1].eq(epoch).all()
        orders.append(rows[:, 0].tolist())
    assert orders[0] == orders[2] != orders[1]
    assert len(orders[0]) == 8


def test_a_damaged_sample_ends_the_run_or_is_left_out(caplog):
    with pytest.raises(DataError, match="file 5: truncated"):
        list(sample_loader(Squares({5}), batch_size=4))
    rows = torch.cat(list(sample_loader(Squares({5}), batch_size=4, on_error="skip")))
    assert rows[:, 0].tolist() == [i**2 for i in range(10) if i != 5]
    with pytest.raises(DataError, match="every sample"):
        list(sample_loader(Squares(set(range(4))), batch_size=4, on_error="skip"))


def test_looking_at_the_data_leaves_torchs_own_numbers_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    list(sample_loader(Squares(), batch_size=4, seed=3))
    assert torch.equal(torch.rand(3), expected)
