"""Stub."""
from pathlib import Path
def read_nemo(path: Path): raise NotImplementedError
