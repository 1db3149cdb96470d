"""Loading a fitted model from its file, and saying plainly why that did not work."""

from __future__ import annotations

import importlib
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

from .failure import Failure
from .foreign import has

PACKAGES = {
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "cv2": "opencv-python-headless",
    "skimage": "scikit-image",
    "umap": "umap-learn",
    "imblearn": "imbalanced-learn",
    "category_encoders": "category-encoders",
}
"""Import names whose package is called otherwise."""

_VERSION_WARNING = re.compile(
    r"unpickle estimator (?P<name>\w+) from version (?P<was>\S+) when using version (?P<now>\S+?)\.? "
)


def load_model(path: Path) -> Any:
    """Load a model in the format that its suffix names.

    Raises:
        Failure: ``ModelLoadFailed`` or ``ModelVersionMismatch``.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = _read(path)
        except Failure:
            raise
        except MemoryError:
            raise
        # SystemExit too: a pickle that calls sys.exit() must not end the worker without a word.
        except (Exception, SystemExit) as error:
            _refuse_other_version(caught)
            raise _explained(path, error) from error
    _refuse_other_version(caught)
    return model


def _read(path: Path) -> Any:
    suffix = path.suffix.lower()
    if suffix == ".skops":
        if not has("skops"):
            raise Failure("ModelLoadFailed", f"{path.name} needs the package skops. Add it to the project's lock file.")
        skops = importlib.import_module("skops.io")
        # The sandbox, not a list of types, is what keeps this code in its place.
        return skops.load(path, trusted=skops.get_untrusted_types(file=path))
    if has("joblib"):
        return importlib.import_module("joblib").load(path)
    if suffix == ".joblib":
        raise Failure("ModelLoadFailed", f"{path.name} needs the package joblib. Add it to the project's lock file.")
    with path.open("rb") as stream:
        return pickle.load(stream)  # noqa: S301 - as above


def _refuse_other_version(caught: list[warnings.WarningMessage]) -> None:
    for warning in caught:
        found = _VERSION_WARNING.search(str(warning.message))
        if found or type(warning.message).__name__ == "InconsistentVersionWarning":
            was, now = (found["was"], found["now"]) if found else _versions_of(warning.message)
            message = (
                f"The model was saved with scikit-learn {was} and the project's lock file has {now}. "
                "A model is only sure to answer the same with the version that made it: "
                f"train it again, or lock scikit-learn=={was}."
            )
            raise Failure("ModelVersionMismatch", message)


def _versions_of(warning: Any) -> tuple[str, str]:
    return (
        str(getattr(warning, "original_sklearn_version", "another version")),
        str(getattr(warning, "current_sklearn_version", "this one")),
    )


def _explained(path: Path, error: BaseException) -> Failure:
    if isinstance(error, ModuleNotFoundError):
        name = str(error.name or "").split(".")[0]
        if str(error.name or "").startswith("numpy._core"):
            message = (
                f"{path.name} was saved with NumPy 2 and the lock file has NumPy 1. Train again, or lock numpy>=2."
            )
            return Failure("ModelVersionMismatch", message)
        if name and has(name):
            version = f"{name} in the lock file has no {error.name}"
            message = f"{path.name} was saved with another version: {version}. Train again with the locked versions."
            return Failure("ModelVersionMismatch", message)
        package = PACKAGES.get(name, name)
        message = (
            f"{path.name} needs {name!r}, which is not in the environment. Add {package} to the project and lock it."
        )
        return Failure("ModelLoadFailed", message)
    text = f"{type(error).__name__}: {error}"
    if _is_of_another_version(error):
        was, now = _saved_with(path), _installed()
        again = f"or lock scikit-learn=={was}" if was else "or lock the version that made it"
        message = (
            f"The model was saved with {f'scikit-learn {was}' if was else 'another scikit-learn'}, and the project's "
            f"lock file has {now}, which cannot read it ({str(error)[:160]}): train it again, {again}."
        )
        return Failure("ModelVersionMismatch", message)
    if isinstance(error, AttributeError) and "__main__" in str(error):
        message = f"{path.name}: {error}. Put that class or function into a module of the project, not into the script."
        return Failure("ModelLoadFailed", message)
    return Failure("ModelLoadFailed", f"{path.name} cannot be loaded: {text[:400]}")


def _is_of_another_version(error: BaseException) -> bool:
    """Recognize a file that fails before scikit-learn can warn: its own parts are absent or of another shape."""
    if isinstance(error, (AttributeError, ImportError)) and "sklearn" in str(error):
        return True
    return isinstance(error, ValueError) and "incompatible dtype" in str(error)


def _saved_with(path: Path) -> str | None:
    """Find scikit-learn's version in the bytes of a pickle that is not compressed."""
    with path.open("rb") as stream:
        found = re.search(rb"_sklearn_version.{1,16}?(\d+\.\d+(?:\.\w+)*)", stream.read(64 << 20), re.DOTALL)
    return None if found is None else found[1].decode("ascii")


def _installed() -> str:
    return str(importlib.import_module("sklearn").__version__)


def check_estimator(model: Any) -> None:
    """Refuse what is not a fitted estimator of scikit-learn's kind.

    Raises:
        Failure: ``ModelTypeUnsupported``.
    """
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    if isinstance(model, dict):
        inside = ", ".join(str(key) for key in list(model)[:5])
        message = f"The model file holds a dict ({inside}), not an estimator. Save the fitted pipeline itself."
        raise Failure("ModelTypeUnsupported", message)
    if not (hasattr(model, "get_params") and (hasattr(model, "predict") or hasattr(model, "transform"))):
        message = f"The model file holds a {kind}, not a scikit-learn estimator. Save the fitted estimator or pipeline."
        raise Failure("ModelTypeUnsupported", message)
    if isinstance(model, type):
        raise Failure("ModelTypeUnsupported", f"The model file holds the class {kind}, not a fitted object of it.")
    try:
        importlib.import_module("sklearn.utils.validation").check_is_fitted(model)
    except Exception as error:
        message = f"The {type(model).__name__} in the model file is not fitted. Call fit() before it is saved."
        raise Failure("ModelTypeUnsupported", message) from error
