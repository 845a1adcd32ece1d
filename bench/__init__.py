"""Benchmarks of fusion by question: accuracy, speed, endurance, capacity. Run `python -m bench`."""

import sys
from pathlib import Path

# The NumPy twins of the kernels, and the rooms and brokers that tests and benchmarks share.
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
