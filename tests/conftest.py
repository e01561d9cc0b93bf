"""One thread a test process where several run side by side.

PyTorch's threads wait for each other, so two processes with two threads each on two cores spend
their time waiting: tests take several times as long.
"""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; programs inherit it
