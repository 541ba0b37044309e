"""Caisson in PyTorch: torch.distributed.checkpoint through Caisson, and the three-line way.

    dcp.save(state_dict, storage_writer=CaissonStorageWriter("caisson:///store#run/100"))
    dcp.load(state_dict, storage_reader=CaissonStorageReader("caisson:///store#run/latest"))

install() does it for whoever passes a checkpoint_id. save_state and load_state take a model and an
optimizer. docs/python.md has them all.
"""

from caisson.torch.install import install
from caisson.torch.load_planner import CaissonLoadPlanner
from caisson.torch.newest import newest
from caisson.torch.planner import CaissonSavePlanner
from caisson.torch.reader import CaissonStorageReader
from caisson.torch.stager import CaissonStager
from caisson.torch.stale import StaleTensorWarning
from caisson.torch.state import Loaded, load_state, save_state
from caisson.torch.writer import CaissonStorageWriter

__all__ = [
    "CaissonLoadPlanner",
    "CaissonSavePlanner",
    "CaissonStager",
    "CaissonStorageReader",
    "CaissonStorageWriter",
    "Loaded",
    "StaleTensorWarning",
    "install",
    "load_state",
    "newest",
    "save_state",
]
