"""Runs the Python snippets of README.md and docs/python.md as they stand, a page as one program.

A block that opens with ```python torch needs torch, and is left out loudly where there is none.
"""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def snippets(page):
    """(line of the opening, needs torch, code) of every Python block."""
    text = (ROOT / page).read_text()
    for match in re.finditer(r"^```python( torch)?\n(.*?)^```$", text, re.M | re.S):
        yield text.count("\n", 0, match.start()) + 1, match[1] is not None, match[2]


class DocsTest(unittest.TestCase):
    def run_page(self, page, minimum):
        has_torch = importlib.util.find_spec("torch") is not None
        program, found, left_out = [], 0, 0
        for line, needs_torch, code in snippets(page):
            found += 1
            if needs_torch and not has_torch:
                left_out += 1
                continue
            program.append("\n" * (line - sum(p.count("\n") for p in program)) + code)
        self.assertGreaterEqual(found, minimum, page)
        with tempfile.TemporaryDirectory() as directory:
            script = pathlib.Path(directory, pathlib.Path(page).name + ".py")
            script.write_text("".join(program))  # at the lines where the page has it
            done = subprocess.run(
                [sys.executable, "-W", "error::ResourceWarning", script],
                cwd=directory,
                env={**os.environ, "HOME": directory},
                capture_output=True,
                text=True,
                timeout=240,
            )
        self.assertEqual(done.returncode, 0, f"{page}\n{done.stdout}\n{done.stderr}")
        if left_out:
            self.skipTest(f"{left_out} snippets of {page} need torch, which is not here")

    def test_readme(self):
        self.run_page("README.md", 1)

    def test_python_page(self):
        self.run_page("docs/python.md", 8)


if __name__ == "__main__":
    unittest.main()
