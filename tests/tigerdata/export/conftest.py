"""One workspace with a finished run of 20 generated images, for every test of the export."""

import pandas as pd
import pytest

from tests.proof_corpus import FakePipe, enter_model, make_workspace, model_stub
from tigergen.augment.plan import make_plan
from tigergen.augment.run import augment

COUNTS = {
    "train": {"benign": 20, "FTC": 6},
    "val": {"benign": 6, "FTC": 4},
    "test": {"benign": 6, "FTC": 4},
    "pool": {"FTC": 4},
}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory):
    """The workspace, the run's folder and the accepted rows of its manifest."""
    folder = tmp_path_factory.mktemp("export")
    ws = make_workspace(folder / "ws", COUNTS)
    plan = make_plan(ws, "FTC", 10, seed=1, rare_below=10)
    augment(ws, plan, model_stub(folder), folder / "run", pipe=FakePipe())
    table = pd.read_parquet(folder / "run" / "manifest.parquet").query("accepted").reset_index(drop=True)
    enter_model(ws, table["model_id"][0])
    return ws, folder / "run", table
