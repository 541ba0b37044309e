"""caisson.save and caisson.load with torch tensors. Skipped loudly where torch is not installed."""

import importlib.util
import pathlib
import shutil
import tempfile
import unittest
import warnings

import caisson

if importlib.util.find_spec("torch") is not None:
    import torch


@unittest.skipIf(importlib.util.find_spec("torch") is None, "torch is not here")
class TorchArrays(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="caisson-torch-"))
        self.addCleanup(shutil.rmtree, self.dir)
        self.url = str(self.dir / "store")
        torch.manual_seed(4)
        weight = torch.randn(100, 200).to(torch.bfloat16)
        self.tensors = {
            "weight": weight,
            "tied": weight,
            "transposed": torch.randn(30, 40).T,
            "parameter": torch.nn.Parameter(torch.randn(5)),
            "fp8": torch.randn(8, 8).to(torch.float8_e4m3fn),
            "flags": torch.tensor([True, False]),
            "scalar": torch.tensor(3),
            "conjugate": torch.randn(4, dtype=torch.complex64).conj(),
            "empty": torch.empty(0, 4),
        }

    def assert_same(self, loaded, saved):
        self.assertEqual((loaded.dtype, loaded.shape), (saved.dtype, saved.shape))
        if not saved.is_complex():
            loaded, saved = loaded.float(), saved.float()
        self.assertTrue(torch.equal(loaded, saved))

    def test_every_kind_of_tensor(self):
        caisson.save(self.tensors, self.url, "run/1")
        loaded = caisson.load(self.url, framework="torch")
        self.assertEqual(sorted(loaded), sorted(self.tensors))
        for name, saved in self.tensors.items():
            with self.subTest(name=name):
                self.assert_same(loaded[name], saved)
        for tensor in loaded.values():
            tensor.zero_()  # writable
        self.assertEqual(loaded["tied"].data_ptr(), loaded["weight"].data_ptr())
        again = caisson.load(self.url, framework="torch", device="cpu", dtype=torch.float32)
        self.assert_same(again["weight"], self.tensors["weight"].float())

    def test_in_place(self):
        caisson.save(self.tensors, self.url, "run/1")
        out = {
            name: torch.zeros_like(tensor)
            for name, tensor in self.tensors.items()
            if name != "conjugate"
        }
        caisson.load(self.url, out=out)
        for name, tensor in out.items():
            self.assert_same(tensor, self.tensors[name])
        grown = torch.zeros(120, 200)
        caisson.load(self.url, out={"weight": grown}, convert=True, pad=2.0)
        self.assertTrue(torch.equal(grown[:100], self.tensors["weight"].float()))
        self.assertTrue((grown[100:] == 2).all())
        with self.assertRaisesRegex(caisson.InvalidArgumentError, "conjugate"):
            caisson.load(self.url, out={"conjugate": self.tensors["conjugate"]})

    def test_a_module(self):
        def model():
            return torch.nn.Sequential(torch.nn.Linear(7, 9), torch.nn.BatchNorm1d(9))

        saved, loaded = model(), model()
        caisson.save(saved.state_dict(), self.url, "run/1")
        caisson.load(self.url, out=loaded.state_dict())
        for name, tensor in saved.state_dict().items():
            self.assert_same(loaded.state_dict()[name], tensor)

    def test_what_is_no_plain_tensor(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrong = [
                torch.sparse_coo_tensor([[0], [1]], [1.0], (2, 2)),
                torch.empty(2, device="meta"),
                torch.quantize_per_tensor(torch.randn(3), 0.1, 0, torch.qint8),
            ]
        for tensor in wrong:
            with self.assertRaises(caisson.CaissonError):
                caisson.save({"x": tensor}, self.url, "run/1")


if __name__ == "__main__":
    unittest.main()
