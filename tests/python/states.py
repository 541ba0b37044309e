"""State dicts for tests: random ones, equality, and the two ways to save them."""

from __future__ import annotations

import functools
import random
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8,
          torch.bool, torch.complex64, torch.float8_e4m3fn]  # fmt: skip


def random_tensor(rng: random.Random, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
    whole = torch.randint(0, 2, shape, generator=generator)
    if dtype != torch.bool:
        whole = torch.randn(shape, generator=generator) * 10
    return whole.to(dtype)


@functools.cache
def mesh_of(shape: tuple[int, ...], mesh_dim_names: tuple[str, ...] | None = None) -> DeviceMesh:
    """Made once: making one talks to the other ranks."""
    return init_device_mesh("cpu", shape, mesh_dim_names=mesh_dim_names)


def sharded(tensor: torch.Tensor, mesh: DeviceMesh, placements: list[Any]) -> DTensor:
    """Of a tensor that every rank has; sends nothing, so that it may go on beside a save."""
    return distribute_tensor(tensor, mesh, placements, src_data_rank=None)


def random_mesh(rng: random.Random, world: int) -> DeviceMesh:
    shapes = [(world,), *[(n, world // n) for n in range(1, world + 1) if world % n == 0]]
    if world == 4:
        shapes.append((2, 1, 2))
    return mesh_of(rng.choice(shapes))


def random_placements(rng: random.Random, mesh: DeviceMesh, dims: int) -> list[Any]:
    if dims == 0:
        return [Replicate()] * mesh.ndim
    return [rng.choice([Replicate(), Shard(rng.randrange(dims))]) for _ in range(mesh.ndim)]


def random_shape(rng: random.Random) -> tuple[int, ...]:
    dims = rng.choice([0, 1, 1, 2, 2, 2, 3, 4])
    return tuple(rng.choice([1, 2, 3, 5, 7, 8, 12, 33]) for _ in range(dims))


def zeros_like(value: Any) -> Any:
    """The same structure with other content, to load into."""
    if isinstance(value, dict):
        return {key: zeros_like(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [zeros_like(entry) for entry in value]
    if isinstance(value, DTensor):
        local = torch.zeros_like(value.to_local())
        return DTensor.from_local(
            local, value.device_mesh, value.placements, shape=value.shape, stride=value.stride()
        )
    if isinstance(value, torch.Tensor):
        return torch.zeros_like(value)
    return None


def bits(tensor: torch.Tensor) -> bytes:
    if isinstance(tensor, DTensor):
        tensor = tensor.to_local()
    tensor = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return bytes(tensor.reshape(-1).view(torch.uint8).numpy())


def assert_equal(a: Any, b: Any, path: str = "") -> None:
    """Bit for bit."""
    if isinstance(a, dict):
        assert list(a) == list(b), (path, list(a), list(b))
        for key in a:
            assert_equal(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b)):
            assert_equal(x, y, f"{path}.{i}")
    elif isinstance(a, torch.Tensor):
        assert a.shape == b.shape and a.dtype == b.dtype, (path, a.shape, b.shape, a.dtype, b.dtype)
        assert bits(a) == bits(b), f"{path}: {a} is not {b}"
    else:
        assert type(a) is type(b) and a == b, (path, a, b)


def fully_random(rng: random.Random, world: int, count: int) -> dict[str, Any]:
    """Tensors in random shardings, plain ones and values; the same on every rank."""
    state: dict[str, Any] = {"model": {}, "optim": {"state": {}, "groups": []}, "extra": {}}
    mesh = random_mesh(rng, world)
    for i in range(count):
        tensor = random_tensor(rng, random_shape(rng), rng.choice(DTYPES))
        if rng.random() < 0.8:
            if rng.random() < 0.2:
                mesh = random_mesh(rng, world)
            tensor = sharded(tensor, mesh, random_placements(rng, mesh, tensor.dim()))
        state[rng.choice(["model", "optim", "extra"])][f"t{i}"] = tensor
    state["optim"]["groups"] = [
        {"lr": 0.1 * i, "betas": (0.9, 0.95), "params": [i]} for i in range(3)
    ]
    state["extra"].update(step=rng.randrange(100), text="größe", none=None, flags=[True, False])
    return state


def resharded(rng: random.Random, state: Any, world: int) -> Any:
    """The same tensors, zeroed, in other shardings."""
    mesh = random_mesh(rng, world)

    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: convert(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [convert(entry) for entry in value]
        if isinstance(value, DTensor):
            whole = torch.zeros(value.shape, dtype=value.dtype)
            placements = random_placements(rng, mesh, whole.dim())
            return sharded(whole, mesh, placements)
        return zeros_like(value)

    return convert(state)


def oracle(state: dict[str, Any], into: dict[str, Any], path: str) -> dict[str, Any]:
    """What FileSystemWriter and FileSystemReader make of it."""
    dcp.save(state, storage_writer=dcp.FileSystemWriter(path))
    dcp.load(into, storage_reader=dcp.FileSystemReader(path))
    return into
