"""Loads the programs of ``cloud-init/`` as modules, the way they find each other on a machine: by
their folder.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from types import ModuleType

from imagegen.resources import find_resource

FOLDER = find_resource("cloud-init")
# the folder is data that ships: nothing is written into it
sys.dont_write_bytecode = True
if str(FOLDER) not in sys.path:
    sys.path.insert(0, str(FOLDER))


def load_program(name: str) -> ModuleType:
    """A program by its file name, such as ``csr-approver``."""
    loader = SourceFileLoader(name.replace("-", "_"), str(FOLDER / name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name
    sys.modules[loader.name] = module
    loader.exec_module(module)
    return module
