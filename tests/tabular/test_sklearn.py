"""LUMOS where scikit-learn's users look for it: in pipelines, searches and data frames."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from lumos.errors import ConfigError, StructureError
from lumos.sklearn import LumosClassifier, LumosRegressor
from lumos.tabular.categories import codes

QUICK = {"hidden": (8,), "max_iter": 10, "batch_size": 64, "bins": 0, "learning_rate": 3e-2, "strength": 1e-4}
RIGHT = {"hidden": (32,), "max_iter": 30, "batch_size": 64, "learning_rate": 2e-2, "random_state": 0}
STOCHASTIC = {"check_sample_weight_equivalence_on_dense_data": "rows are drawn into batches and held out by chance"}


CHECKED = QUICK | {"max_iter": 12, "batch_size": 32}


@pytest.mark.slow
@parametrize_with_checks([LumosRegressor(**CHECKED)], expected_failed_checks=lambda _estimator: STOCHASTIC)
def test_scikit_learn_finds_nothing_wrong_with_the_regressor(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([LumosClassifier(**CHECKED)], expected_failed_checks=lambda _estimator: STOCHASTIC)
def test_scikit_learn_finds_nothing_wrong_with_the_classifier(estimator, check):
    check(estimator)


def frame(rows=400, seed=0):
    """Six columns; the output depends on a number with gaps, on another number and on a category."""
    rng = np.random.default_rng(seed)
    x = pd.DataFrame(rng.normal(5, 3, (rows, 4)), columns=["T", "p", "rho", "noise"])
    x["metal"] = rng.choice(["Al", "Cu", "Fe"], rows)
    x["batch"] = pd.Categorical(rng.choice(list("abcd"), rows))
    y = x["T"] - 2 * x["p"] + x["metal"].map({"Al": -6.0, "Cu": 0.0, "Fe": 6.0})
    x.loc[rng.random(rows) < 0.1, "rho"] = np.nan
    x.loc[rng.random(rows) < 0.05, "metal"] = None
    y[x["metal"].isna()] = 20.0
    return x, y.to_numpy()


@pytest.fixture(scope="module")
def fitted():
    return LumosRegressor(features=3, **RIGHT).fit(*frame())


def test_columns_of_a_frame_are_selected_by_name(fitted):
    x, y = frame(200, seed=1)
    assert fitted.score(x, y) > 0.97
    assert list(fitted.get_feature_names_out()) == ["T", "p", "metal"]
    assert fitted.ranking_[fitted.support_].tolist() == [1, 1, 1]
    assert fitted.ranking_[~fitted.support_].min() == 2
    assert fitted.feature_importances_.sum() == pytest.approx(1)
    assert set(np.flatnonzero(fitted.feature_importances_)) == {0, 1, 4}
    assert fitted.model_(torch.zeros(2, 6)).shape == (2, 1)
    assert fitted.n_parameters_[1] < fitted.n_parameters_[0]


def test_a_frame_comes_out_where_one_is_asked_for(fitted):
    x, _ = frame(20, seed=1)
    out = clone(fitted).set_output(transform="pandas").fit(*frame(60)).transform(x)
    assert isinstance(out, pd.DataFrame)
    assert fitted.transform(x).shape == (20, 3)


def test_missing_and_unknown_values_are_predicted(fitted):
    x, _ = frame(4, seed=2)
    x = x.assign(rho=np.nan, noise=np.nan, batch="z")
    other = x.assign(rho=0.0, noise=1e6, batch="a")
    assert np.array_equal(fitted.predict(x), fitted.predict(other))
    assert np.isfinite(fitted.predict(x.assign(T=np.nan, metal="unobtainium"))).all()
    # a missing category was one of its own
    assert fitted.predict(x.assign(metal=None)) == pytest.approx(20, abs=2.5)


@pytest.mark.slow
def test_categories_of_an_array_are_named_by_place():
    x, y = frame()
    coded = x.assign(metal=x["metal"].map({"Al": 7, "Cu": 3, "Fe": 11}), batch=x["batch"].cat.codes).to_numpy(float)
    model = LumosRegressor(features=3, categorical_features=[4, 5], **RIGHT).fit(coded, y)
    assert model.get_support(indices=True).tolist() == [0, 1, 4]
    assert model.categories_[4] == [3, 7, 11, None]
    with pytest.raises(ValueError, match=r"categorical_features=\['colour'\]: .* expected columns of X"):
        LumosRegressor(categorical_features=["colour"]).fit(x, y)


@pytest.mark.slow
def test_it_works_in_pipelines_and_searches():
    x, y = frame(300)
    x, y = x[["T", "p", "noise"]], (x["T"] - 2 * x["p"]).to_numpy()
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LumosRegressor(**QUICK, random_state=0)),
        {"lumosregressor__strength": [1e-3, 1.0]}, cv=2,
    ).fit(x, y)  # fmt: skip
    assert search.best_params_ == {"lumosregressor__strength": 1e-3}
    selector = make_pipeline(LumosRegressor(features=2, **RIGHT), LinearRegression()).fit(x, y)
    assert selector[-1].n_features_in_ == 2
    assert cross_val_score(LumosRegressor(**QUICK, random_state=0), x, y, cv=2).min() > 0
    scaled = TransformedTargetRegressor(LumosRegressor(**QUICK, random_state=0), transformer=StandardScaler())
    assert scaled.fit(x, y).score(x, y) > 0
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    assert np.array_equal(again.predict(x), search.predict(x))


@pytest.mark.slow
def test_a_tolerance_goes_with_a_search_weights_gaps_categories_an_early_end_and_onnx(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    x, y = frame(400)
    weight = np.linspace(0.5, 1.5, len(x))
    quick = {"hidden": (16,), "max_iter": 40, "batch_size": 64, "learning_rate": 2e-2}
    estimator = LumosRegressor(**quick, early_stopping=True, n_iter_no_change=8, random_state=0)
    search = GridSearchCV(estimator, {"tolerance": [0.05, 0.9]}, cv=2).fit(x, y, sample_weight=weight)
    best = search.best_estimator_
    assert best.tolerance == search.best_params_["tolerance"]
    assert min(search.cv_results_["mean_test_score"]) > 0.85
    assert {"T", "p", "metal"} <= set(best.get_feature_names_out())
    held, truth = frame(200, seed=1)
    assert best.score(held, truth) > 0.9
    best.export(tmp_path / "model.onnx")
    coded = held.copy()
    for k, categories in best.categories_.items():
        coded.isetitem(k, codes(held.iloc[:, k], categories))
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    (out,) = session.run(None, {session.get_inputs()[0].name: coded.to_numpy(np.float32)})
    assert out[:, 0] == pytest.approx(best.predict(held), rel=1e-4, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("fold", [True, False])
def test_of_copies_one_stays(fold, tmp_path):
    x = np.random.default_rng(0).random((120, 4))
    x[:, 2], x[:, 3] = 10 * x[:, 0] - 5, 4.0
    model = LumosRegressor(hidden=(8,), strength=0.0, max_iter=3, fold_inputs=fold, random_state=0).fit(x, x[:, 0])
    assert model.get_support().sum() == (2 if fold else 4)
    assert len(model.relations_) == (2 if fold else 0)
    assert model.predict(x).shape == (120,)
    model.export(tmp_path / "net.onnx", reduced=True)


@pytest.mark.slow
def test_columns_stay_and_go_together_as_asked():
    x = pd.DataFrame(np.random.default_rng(0).random((160, 5)), columns=list("abcde"))
    x["b"], y = 2 * x["a"], x["a"] - x["c"]
    model = LumosRegressor(hidden=(8,), strength=0.05, max_iter=60, encoding="plain", random_state=0, keep=["b"],
                           groups={"pair": ["c", "d"]})  # fmt: skip
    assert set(model.fit(x, y).get_feature_names_out()) >= {"b", "c", "d"}
    assert "e" not in model.get_feature_names_out()
    with pytest.raises(StructureError, match="keep: 'z' is no input feature or module of this model; "):
        model.set_params(keep=["z"]).fit(x, y)


@pytest.mark.parametrize("encoding", ["plain", "periodic"])
def test_numbers_are_encoded_as_asked_for(encoding):
    x = np.random.default_rng(0).random((120, 3))
    model = LumosRegressor(hidden=(8,), encoding=encoding, bins=2, strength=0.0, max_iter=2, random_state=0)
    model.fit(x, x[:, 0])
    width = {"plain": 3, "periodic": 15}[encoding]
    assert next(w for n, w in model.model_.state_dict().items() if n.endswith("layers.0.weight")).shape[1] == width


@pytest.mark.slow
def test_several_outputs_in_units_far_apart_are_predicted():
    x, y = frame()
    both = np.stack([1e-27 * y, 1e12 * y], 1)
    model = LumosRegressor(features=3, **RIGHT).fit(x, both)
    assert model.predict(x).shape == both.shape
    assert model.score(x, both) > 0.97


def test_classes_have_probabilities_and_names():
    x, y = load_iris(return_X_y=True, as_frame=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    model = LumosClassifier(tolerance=0.2, **RIGHT).fit(x, names)
    assert model.score(x, names) > 0.93
    assert model.predict_proba(x).sum(1) == pytest.approx(1)
    assert set(model.get_feature_names_out()) <= set(x.columns)
    assert model.validation_score_ <= 1


def test_rows_without_weight_are_not_there():
    x, y = frame(300)
    weight = np.ones(300)
    weight[200:] = 0
    some = LumosRegressor(**QUICK, random_state=0).fit(x, np.where(weight > 0, y, 1e9), sample_weight=weight)
    assert np.array_equal(
        some.predict(x), LumosRegressor(**QUICK, random_state=0).fit(x[:200], y[:200]).predict(x)
    )  # fmt: skip


def test_validation_rows_can_be_given_and_end_the_training():
    x, y = frame(300)
    model = LumosRegressor(**QUICK | {"max_iter": 60}, early_stopping=True, n_iter_no_change=5, random_state=0)
    model.fit(x, y, X_val=x[:50], y_val=np.random.default_rng(0).normal(size=50))
    assert model.n_iter_ < 60
    assert model.n_iter_ == len(model.history_)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "reduced"), [("classifier", True), ("regressor", False)])
def test_a_file_takes_raw_columns(fitted, tmp_path, kind, reduced):
    runtime = pytest.importorskip("onnxruntime")
    x, _ = frame(30, seed=3)
    if kind == "classifier":
        data, y = frame(300)
        fitted = LumosClassifier(**QUICK | {"strength": 0.05}, random_state=0).fit(data, y > 0)
    exported = fitted.export(tmp_path / "model.onnx", reduced=reduced)
    coded = x.copy()
    for k, categories in fitted.categories_.items():
        coded.isetitem(k, codes(x.iloc[:, k], categories))
    if reduced:
        coded = coded.iloc[:, fitted.get_support(indices=True)]
    assert list(exported.features) == list(coded.columns)
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    (out,) = session.run(None, {session.get_inputs()[0].name: coded.to_numpy(np.float32)})
    want = fitted.predict_proba(x) if kind == "classifier" else fitted.predict(x)[:, None]
    assert out == pytest.approx(want, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"latency": 0.5, "params": 0.2}, "params and latency are given: expected one of"),
        ({"latency": 1.5}, "lumos.target.latency=1.5: expected a share between 0 and 1"),
        ({"tolerance": 0.1, "features": 2}, "tolerance and features are given: expected one of"),
        ({"params": 1.5}, "params=1.5: expected a share between 0 and 1"),
        ({"activation": "sigmoid"}, "activation=sigmoid: expected one of relu, silu, tanh"),
    ],
)
def test_a_wrong_setting_is_said_in_a_line(settings, said):
    with pytest.raises(ConfigError, match=said):
        LumosRegressor(**settings).fit(*frame(50))
