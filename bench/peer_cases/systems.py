"""What is compared, each behind the same two calls: `save` is durable when it returns, `load` gives tensors that own their
memory. A system whose package is not installed says so when it is made.
"""

import importlib
import pathlib

import torch
import torch.distributed.checkpoint as dcp

import state


class System:
    saves = True

    def __init__(self):
        for module in self.needs:
            importlib.import_module(module)

    needs = ()

    def save(self, tensors, directory):
        raise NotImplementedError

    def load(self, directory, like):
        raise NotImplementedError


class TorchSave(System):
    def save(self, tensors, directory):
        torch.save(tensors, directory / "state.pt")
        state.make_durable(directory)

    def load(self, directory, like):
        return torch.load(directory / "state.pt", weights_only=True)


class Safetensors(System):
    needs = ("safetensors.torch",)

    def save(self, tensors, directory):
        importlib.import_module("safetensors.torch").save_file(tensors, directory / "state.safetensors")
        state.make_durable(directory)

    def load(self, directory, like):
        # Its tensors lie in the mapped file; nothing is read before they are used.
        loaded = importlib.import_module("safetensors.torch").load_file(directory / "state.safetensors")
        return {name: tensor.clone() for name, tensor in loaded.items()}


class Dcp(System):
    """PyTorch's own, as it comes."""

    def writer(self, directory):
        return dcp.FileSystemWriter(directory)

    def reader(self, directory):
        return dcp.FileSystemReader(directory)

    def planner(self):
        return None  # DCP's

    def load_planner(self):
        return None

    def reserve(self, tensors, directory):
        """What a program may do once, before its first async_save."""

    def save(self, tensors, directory):
        dcp.save(state.nested(tensors), storage_writer=self.writer(directory), planner=self.planner(), no_dist=True)

    def load(self, directory, like):
        tensors = {name: torch.empty_like(tensor) for name, tensor in like.items()}
        dcp.load(state.nested(tensors), storage_reader=self.reader(directory), planner=self.load_planner(), no_dist=True)
        return tensors


class DcpZstd(Dcp):
    needs = ("zstandard",)

    def writer(self, directory):
        from torch.distributed.checkpoint._extension import ZStandard

        return dcp.FileSystemWriter(directory, _extensions=[ZStandard()])


class TorchSnapshot(System):
    needs = ("torchsnapshot",)

    def save(self, tensors, directory):
        import torchsnapshot

        torchsnapshot.Snapshot.take(str(directory / "snapshot"), {"state": torchsnapshot.StateDict(**tensors)})
        state.make_durable(directory)

    def load(self, directory, like):
        import torchsnapshot

        tensors = torchsnapshot.StateDict(**{name: torch.empty_like(tensor) for name, tensor in like.items()})
        torchsnapshot.Snapshot(str(directory / "snapshot")).restore({"state": tensors})
        return dict(tensors)


class TensorStoreOcdbt(System):
    """The store under Orbax: zarr arrays in one OCDBT database, zstd as Orbax sets it."""

    needs = ("tensorstore", "ml_dtypes")

    @staticmethod
    def spec(directory, name):
        return {
            "driver": "zarr3",
            "kvstore": {"driver": "ocdbt", "base": f"file://{directory}/", "path": name + "/"},
        }

    def save(self, tensors, directory):
        import tensorstore as ts

        context = ts.Context()
        opened = {}
        for name, tensor in tensors.items():
            array = as_numpy(tensor)
            spec = self.spec(directory, name) | {
                "metadata": {
                    "shape": list(array.shape),
                    "data_type": str(array.dtype),
                    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(array.shape)}},
                    "codecs": [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 1}}],
                }
            }
            opened[name] = (ts.open(ts.Spec(spec), create=True, context=context), array)
        writes = [future.result().write(array) for future, array in opened.values()]
        for write in writes:
            write.result()
        state.make_durable(directory)

    def load(self, directory, like):
        import tensorstore as ts

        context = ts.Context()
        opened = {name: ts.open(self.spec(directory, name), context=context) for name in like}
        reads = {name: future.result().read() for name, future in opened.items()}
        return {name: as_torch(read.result(), like[name].dtype) for name, read in reads.items()}


class Moonclip(System):
    needs = ("moonclip",)

    def manager(self, directory):
        import moonclip

        return moonclip.CheckpointManager(str(directory), async_save=False)

    def save(self, tensors, directory):
        manager = self.manager(directory)
        manager.save(step=0, model=Holder(tensors))
        manager.flush()
        state.make_durable(directory)

    def load(self, directory, like):
        holder = Holder({name: torch.empty_like(tensor) for name, tensor in like.items()})
        self.manager(directory).resume(model=holder)
        return holder.tensors


class Holder:
    """A state dict with the two methods of a model."""

    def __init__(self, tensors):
        self.tensors = tensors

    def state_dict(self):
        return self.tensors

    def load_state_dict(self, tensors, strict=True):
        self.tensors = tensors


class FastSafetensors(Safetensors):
    """Restores only, from a safetensors file."""

    saves = False
    needs = ("safetensors.torch", "fastsafetensors")

    def load(self, directory, like):
        from fastsafetensors import fastsafe_open

        with fastsafe_open([str(directory / "state.safetensors")], device="cpu", nogds=True) as file:
            return {name: file.get_tensor(name) for name in file.keys()}


class RunaiStreamer(Safetensors):
    """Restores only, from a safetensors file. Its tensors are views of a buffer that it uses again."""

    saves = False
    needs = ("safetensors.torch", "runai_model_streamer")

    def load(self, directory, like):
        from runai_model_streamer import SafetensorsStreamer

        with SafetensorsStreamer() as streamer:
            streamer.stream_file(str(directory / "state.safetensors"))
            return {name: tensor.clone() for name, tensor in streamer.get_tensors()}


class Caisson(System):
    needs = ("caisson",)

    def save(self, tensors, directory):
        import caisson

        caisson.save(tensors, directory, "state/0")

    def load(self, directory, like):
        import caisson

        return caisson.load(directory, "state/0", framework="torch")


class CaissonDcp(Dcp):
    needs = ("caisson.torch",)

    def writer(self, directory):
        return importlib.import_module("caisson.torch").CaissonStorageWriter(pathlib.Path(directory))

    def reader(self, directory):
        return importlib.import_module("caisson.torch").CaissonStorageReader(pathlib.Path(directory))

    def planner(self):
        return importlib.import_module("caisson.torch").CaissonSavePlanner()

    def load_planner(self):
        return importlib.import_module("caisson.torch").CaissonLoadPlanner()

    def reserve(self, tensors, directory):
        self.writer(directory).reserve(tensors)


SYSTEMS = {
    "torch.save": TorchSave,
    "safetensors": Safetensors,
    "DCP FileSystem": Dcp,
    "DCP + zstd": DcpZstd,
    "torchsnapshot": TorchSnapshot,
    "TensorStore OCDBT": TensorStoreOcdbt,
    "moonclip": Moonclip,
    "fastsafetensors": FastSafetensors,
    "Run:ai streamer": RunaiStreamer,
    "caisson": Caisson,
    "DCP through Caisson": CaissonDcp,
}


def as_numpy(tensor):
    import ml_dtypes

    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def as_torch(array, dtype):
    if dtype == torch.bfloat16:
        return torch.from_numpy(array.view("uint16")).view(torch.bfloat16)
    return torch.from_numpy(array)
