"""The package's types, by mypy --strict as pyproject.toml sets it up; and that it is syntax of the
oldest Python that it is for."""

import ast
import importlib.util
import pathlib
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "client" / "python" / "caisson"


class TypesTest(unittest.TestCase):
    def test_strict(self):
        if importlib.util.find_spec("mypy") is None:
            self.skipTest("mypy is not here; ./dev setup brings it")
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "--cache-dir", ROOT / "build" / "mypy"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertTrue((PACKAGE / "py.typed").exists())

    def test_oldest_syntax(self):
        for file in PACKAGE.rglob("*.py"):
            ast.parse(file.read_text(), file.name, feature_version=(3, 10))

    def test_sizes(self):
        for file in [*PACKAGE.rglob("*.py"), *(ROOT / "tests" / "python").glob("*.py")]:
            self.assertLessEqual(len(file.read_text().splitlines()), 600, file)


if __name__ == "__main__":
    unittest.main()
