"""One MLflow database per session: creating it costs seconds, copying it does not."""

import shutil
import warnings
from pathlib import Path

import pytest

from components.services.store.home import Home
from components.services.tracking.connection import connect


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = Home.at(tmp_path_factory.mktemp("template"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries' own making while they are imported
        connect(home).MlflowClient().search_experiments()
    return home.database


@pytest.fixture
def home(tmp_path: Path, template: Path) -> Home:
    shutil.copy(template, tmp_path / "mlflow.db")
    return Home.at(tmp_path)
