# ruff: noqa: E501 - a table reads line by line
# mypy: disable-error-code="import-untyped,misc"
"""Which scikit-learn models convert to the same answers, and what is said of those that do not.

``docs/export.md`` lists the outcome.
"""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.decomposition import PCA, FastICA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_selection import SelectKBest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.impute import SimpleImputer
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    SGDClassifier,
)
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import BernoulliNB, GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsRegressor, LocalOutlierFactor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    PolynomialFeatures,
    QuantileTransformer,
    SplineTransformer,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from slipway_operator.exporter.answers import Original
from slipway_operator.exporter.failure import Failure
from slipway_operator.exporter.request import ExportRequest, Places
from slipway_operator.exporter.rows import MatrixRows
from slipway_operator.exporter.worker import Worker

pytestmark = pytest.mark.filterwarnings("ignore")  # scikit-learn's and skl2onnx's own deprecations


@cache
def data(name: str):
    load = {"iris": load_iris, "cancer": load_breast_cancer, "diabetes": load_diabetes}[name]
    features, target = load(return_X_y=True)
    return features, target


def fitted(estimator, name: str):
    features, target = data(name)
    if name == "diabetes":
        target = target / 100
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(features, target)


def exported(model, name: str, tmp_path, *, limit: float = 1e-5):
    request = ExportRequest("model.joblib", False, "sample.csv", limit, 0, 900)
    worker = Worker(request, Places(tmp_path, tmp_path, tmp_path), tmp_path / "model.joblib", tmp_path)
    rows = MatrixRows(data(name)[0][:150], None, framed=False)
    return worker._best(Original(model), rows)


def forest() -> RandomForestClassifier:
    return RandomForestClassifier(20, random_state=0)


CONVERT = {
    "logistic-regression": (LogisticRegression(max_iter=3000), "cancer", "float32"),
    "scaled-logistic-regression": (make_pipeline(StandardScaler(), LogisticRegression()), "cancer", "float32"),
    "stochastic-gradient-descent": (make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)), "iris", None),
    "svc": (make_pipeline(StandardScaler(), SVC()), "iris", None),
    "svc-with-probabilities": (CalibratedClassifierCV(SVC(), ensemble=False), "iris", None),
    "gaussian-naive-bayes": (GaussianNB(), "iris", None),
    "bernoulli-naive-bayes": (BernoulliNB(), "iris", None),
    "multinomial-naive-bayes": (MultinomialNB(), "iris", None),
    "linear-discriminant": (LinearDiscriminantAnalysis(), "iris", None),
    "neural-network": (make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=50, random_state=0)), "iris", None),
    "decision-tree": (DecisionTreeClassifier(random_state=0), "cancer", "float32"),
    "random-forest": (forest(), "cancer", "float32"),
    "extra-trees": (ExtraTreesClassifier(20, random_state=0), "cancer", "float32"),
    "gradient-boosting": (GradientBoostingClassifier(n_estimators=20, random_state=0), "cancer", "float32"),
    "hist-gradient-boosting": (HistGradientBoostingClassifier(random_state=0), "cancer", "float64"),
    "hist-gradient-boosting-many-classes": (HistGradientBoostingClassifier(max_iter=20, random_state=0), "iris", "float64"),
    "ada-boost": (AdaBoostClassifier(n_estimators=10, random_state=0), "iris", None),
    "bagging": (BaggingClassifier(random_state=0), "iris", None),
    "voting": (VotingClassifier([("a", GaussianNB()), ("b", forest())], voting="soft", flatten_transform=False), "iris", None),
    "stacking": (StackingClassifier([("a", GaussianNB()), ("b", forest())], LogisticRegression()), "iris", None),
    "calibrated": (CalibratedClassifierCV(forest(), cv=2), "iris", None),
    "grid-search": (GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [1, 2]}, cv=2), "iris", None),
    "one-vs-rest": (OneVsRestClassifier(LogisticRegression()), "iris", None),
    "scaled-forest": (make_pipeline(StandardScaler(), forest()), "cancer", None),
    "imputed-boosting": (make_pipeline(SimpleImputer(), GradientBoostingClassifier(n_estimators=10, random_state=0)), "cancer", "float32"),
    "selected-polynomials": (make_pipeline(MinMaxScaler(), PolynomialFeatures(2), SelectKBest(k=5), LogisticRegression()), "iris", None),
    "principal-components": (make_pipeline(StandardScaler(), PCA(2), LogisticRegression()), "iris", None),
    "linear-regression": (LinearRegression(), "diabetes", None),
    "ridge": (Ridge(), "diabetes", None),
    "lasso": (Lasso(0.01), "diabetes", None),
    "elastic-net": (ElasticNet(0.01), "diabetes", None),
    "poisson-regression": (PoissonRegressor(), "diabetes", None),
    "forest-regression": (RandomForestRegressor(20, random_state=0), "diabetes", "float32"),
    "boosted-regression": (GradientBoostingRegressor(n_estimators=20, random_state=0), "diabetes", "float32"),
    "hist-boosted-regression": (HistGradientBoostingRegressor(max_iter=20, random_state=0), "diabetes", "float64"),
    "neighbours-regression": (KNeighborsRegressor(), "diabetes", None),
    "gaussian-process": (GaussianProcessRegressor(alpha=1e-2), "diabetes", None),
    "k-means": (KMeans(3, n_init=1, random_state=0), "iris", None),
    "mini-batch-k-means": (MiniBatchKMeans(3, n_init=1, random_state=0), "iris", None),
    "isolation-forest": (IsolationForest(n_estimators=20, random_state=0), "iris", None),
    "scaler-alone": (StandardScaler(), "iris", "float32"),
    "quantiles": (QuantileTransformer(n_quantiles=50), "iris", None),
    "singular-values": (TruncatedSVD(2, random_state=0), "iris", None),
}  # fmt: skip


@pytest.mark.parametrize(("estimator", "name", "number"), CONVERT.values(), ids=CONVERT.keys())
def test_a_model_that_converts_answers_the_same(estimator, name, number, tmp_path):
    model = fitted(estimator, name)
    attempt = exported(model, name, tmp_path)

    assert attempt.difference() <= 1e-5
    assert attempt.flips() == 0
    assert number in (None, attempt.number)


class Own(ClassifierMixin, BaseEstimator):
    """A project's own classifier."""

    def fit(self, features, target):
        self.classes_ = np.unique(target)
        self.n_features_in_ = features.shape[1]
        return self

    def predict(self, features):
        return np.full(len(features), self.classes_[0])


REFUSED = {
    "spline": (make_pipeline(SplineTransformer(), LogisticRegression()), "iris", "Step 'splinetransformer' (SplineTransformer)", "PolynomialFeatures"),
    "bins-sparse": (make_pipeline(KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf"), LogisticRegression()), "iris", "Step 'kbinsdiscretizer'", "encode='onehot-dense'"),
    "voting-flat": (VotingClassifier([("a", GaussianNB()), ("b", forest())], voting="soft"), "iris", "VotingClassifier", "flatten_transform=False"),
    "function": (make_pipeline(FunctionTransformer(np.log1p), LogisticRegression()), "iris", "Step 'functiontransformer'", "before the pipeline"),
    "nested": (GridSearchCV(make_pipeline(StandardScaler(), FastICA(2, random_state=0), GaussianNB()), {}, cv=2), "iris", "fastica", "another estimator"),
    "kernel-ridge": (KernelRidge(), "diabetes", "KernelRidge", "another"),
    "dummy": (DummyClassifier(), "iris", "DummyClassifier", "another"),
    "indicator": (make_pipeline(SimpleImputer(add_indicator=True), LogisticRegression()), "iris", "add_indicator", "Leave the indicator out"),
    "categories-in-trees": (HistGradientBoostingClassifier(max_iter=2, categorical_features=[0]), "codes", "categorical_features", "OrdinalEncoder"),
    "linear-svc": (make_pipeline(StandardScaler(), LinearSVC()), "cancer", "Step 'linearsvc'", "SVC(kernel='linear')"),
    "own": (Own(), "iris", "Own cannot be converted", "another"),
}  # fmt: skip


@pytest.mark.parametrize(("estimator", "name", "step", "advice"), REFUSED.values(), ids=REFUSED.keys())
def test_a_model_that_does_not_convert_is_named_with_what_to_do(estimator, name, step, advice, tmp_path):
    if name == "codes":
        codes = np.arange(60).reshape(-1, 1) % 7
        model, name = estimator.fit(np.hstack([codes, codes]), codes.ravel() % 2), "iris"
    else:
        model = fitted(estimator, name)
    with pytest.raises(Failure) as refused:
        exported(model, name, tmp_path)

    assert refused.value.reason == "ConversionUnsupported"
    assert step in refused.value.message
    assert advice in refused.value.message


@pytest.mark.parametrize("estimator", [
    pytest.param(LocalOutlierFactor(novelty=True), id="local-outlier-factor"),
    pytest.param(make_pipeline(KBinsDiscretizer(4, encode="onehot-dense", quantile_method="averaged_inverted_cdf"), LogisticRegression()), id="bins-with-edges-in-the-data"),
])  # fmt: skip
def test_a_model_that_converts_to_other_answers_is_refused_with_the_place(estimator, tmp_path):
    with pytest.raises(Failure) as refused:
        exported(fitted(estimator, "iris"), "iris", tmp_path)

    assert refused.value.reason == "ParityFailed"
    assert "row" in refused.value.message
    assert "output" in refused.value.message


def test_numbers_too_large_for_float32_name_the_limit_that_can_be_reached(tmp_path):
    features, target = data("diabetes")
    model = GradientBoostingRegressor(n_estimators=20, random_state=0).fit(features, target * 1000)
    with pytest.raises(Failure) as refused:
        exported(model, "diabetes", tmp_path)

    assert refused.value.reason == "ParityFailed"
    limit = float(refused.value.message.split("maxAbsoluteDifference to ")[1].split(",")[0])
    assert exported(model, "diabetes", tmp_path, limit=limit).difference() <= limit


def test_trees_on_integers_keep_float32_though_they_compare_float64(tmp_path):
    features = np.rint(data("cancer")[0])
    model = HistGradientBoostingClassifier(max_iter=10, random_state=0).fit(features, data("cancer")[1])
    request = ExportRequest("m", False, "s", 1e-5, 0, 900)
    worker = Worker(request, Places(tmp_path, tmp_path, tmp_path), tmp_path / "m", tmp_path)
    attempt = worker._best(Original(model), MatrixRows(features[:100], None, framed=False))

    assert attempt.number == "float32"
    assert attempt.around.rows > 50
    assert attempt.at.largest <= 1e-5
