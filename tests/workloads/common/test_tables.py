import pytest
import torch
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score as reference_r2

from lumos.errors import DataError
from lumos.workloads.common.tables import (
    Splits,
    Table,
    linear_r2,
    r2_score,
    standardised_mse,
    table_baselines,
)


def table(rows: int = 1000, seed: int = 0, offset: float = 0.0) -> Table:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 4, generator=generator)
    y = torch.stack([x[:, 0] + 0.1 * x[:, 1] ** 2, 100 * x[:, 2] * x[:, 3] + x[:, 0]], dim=1) + offset
    return Table(x, y)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_r2_is_that_of_all_rows_whatever_the_batches(offset: float) -> None:
    data = table(offset=offset)
    guess = data.outputs + torch.randn(1000, 2, generator=torch.Generator().manual_seed(1))
    expected = reference_r2(data.outputs.double(), guess.double())
    for size in (1000, 77):
        batches = zip(guess.split(size), data.outputs.split(size), strict=True)
        assert r2_score(torch.nn.Identity(), batches) == pytest.approx(expected, abs=1e-9)


def test_r2_leaves_out_constant_outputs() -> None:
    y = torch.stack([torch.arange(10.0), torch.full((10,), 0.1)], dim=1)
    assert r2_score(torch.nn.Identity(), [(y + torch.tensor([0.0, 1.0]), y)]) == 1
    with pytest.raises(DataError, match="every output is constant"):
        r2_score(torch.nn.Identity(), [(y[:, 1:], y[:, 1:])])
    with pytest.raises(DataError, match="no samples"):
        r2_score(torch.nn.Identity(), [])


def test_baselines_are_the_ordinary_ones() -> None:
    train, test = table(), table(seed=1)
    scores = table_baselines(train, test)
    fit = LinearRegression().fit(train.inputs, train.outputs)
    assert scores["linear"] == pytest.approx(reference_r2(test.outputs, fit.predict(test.inputs)), abs=1e-5)
    mean = train.outputs.mean(0).expand_as(test.outputs)
    assert scores["mean"] == pytest.approx(reference_r2(test.outputs, mean), abs=1e-5)


def test_linear_fit_bears_repeated_and_constant_columns() -> None:
    train, test = table(), table(seed=1)

    def doubled(data: Table) -> Table:
        return Table(torch.cat([data.inputs, 3 * data.inputs, torch.ones(len(data), 1)], 1), data.outputs)

    assert linear_r2(doubled(train), doubled(test)) == pytest.approx(linear_r2(train, test), abs=1e-6)
    assert linear_r2(train, test, [0]) < linear_r2(train, test)


def test_loss_is_one_for_the_mean_predictor() -> None:
    data = table()

    class Mean(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return data.outputs.mean(0).expand(len(x), 2)

    loss = standardised_mse(Mean(), (data.inputs, data.outputs), data.output_std())
    assert float(loss) == pytest.approx(1, abs=1e-4)


def test_a_table_refuses_what_cannot_be_learned_from() -> None:
    with pytest.raises(DataError, match="3 rows of inputs, but 2 of outputs"):
        Table(torch.zeros(3, 1), torch.zeros(2, 1))
    with pytest.raises(DataError, match="outputs hold 1 values that are not finite, the first nan in row 0, column 0"):
        Table(torch.zeros(1, 1), torch.full((1, 1), torch.nan))


def test_loaders_know_the_samples() -> None:
    splits = Splits(table(), table(100, 1), table(50, 2))
    loaders = splits.loaders(64, seed=0, source="generated")
    assert (loaders.n_train, loaders.n_valid, loaders.n_test) == (1000, 100, 50)
    assert sum(len(x) for x, _ in loaders.test) == 50
    assert sum(len(x) for x, _ in loaders.train) == 960
    assert splits.loaders(32, seed=1, source="generated").sha256 == loaders.sha256
