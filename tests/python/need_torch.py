"""Imported first by the tests that need PyTorch: without it they say so and count as skipped."""

import importlib.util
import sys

if importlib.util.find_spec("torch") is None:
    print("OK (skipped=all): no torch in this Python; ./dev setup installs it")
    sys.exit(0)
