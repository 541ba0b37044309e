"""One rank of a small GPT in training: FSDP2 over gloo, asynchronous saves, resume in any world size.

Two lines save and restore through Caisson, the ones with CaissonStorageWriter and CaissonStorageReader; the rest is what
any training with PyTorch's distributed checkpoints has. The rank appends what happens to a file of JSON lines that
`ranks.py` follows.
"""

import argparse
import json
import pathlib
import sys
import time

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F

from caisson.torch import CaissonStorageReader, CaissonStorageWriter

sys.path.insert(0, str(pathlib.Path(__file__).parents[3] / "bench"))
from train_state import CONTEXT, Transformer  # noqa: E402

RUN = "gpt"  # a checkpoint is called run/step
RATE, WARM_UP = 8e-4, 10  # the learning rate, and the steps until it is reached
SEQUENCES = 8  # of the global batch, whatever the world size


class Events:
    """What happened, as JSON lines; floats keep every bit."""

    def __init__(self, path):
        self.file = open(path, "a", buffering=1)

    def tell(self, event, **values):
        self.file.write(json.dumps({"event": event, "time": time.time(), **values}) + "\n")


class Training:
    """Everything that a resumed run needs, as DCP's Stateful: model, optimizer, step, position in the data."""

    def __init__(self, size, tokens, mesh):
        torch.manual_seed(0)
        self.tokens, self.mesh = tokens, mesh
        self.model = Transformer(*size)
        for layer in self.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(self.model, mesh=mesh)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=RATE, betas=(0.9, 0.95))
        self.step = 0
        self.order = torch.Generator().manual_seed(0)  # which text comes next

    def state_dict(self):
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer, "step": self.step, "order": self.order.get_state()}

    def load_state_dict(self, state):
        set_state_dict(
            self.model, self.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
        )
        self.step = state["step"]
        self.order.set_state(state["order"])

    def train_step(self):
        """One step on this rank's share of the global batch; gives the loss of the whole batch."""
        ranks, rank = self.mesh.size(), self.mesh.get_rank()
        starts = torch.randint(len(self.tokens) - CONTEXT - 1, (SEQUENCES,), generator=self.order)
        share = starts.chunk(ranks)[rank]
        batch = torch.stack([self.tokens[start : start + CONTEXT + 1] for start in share]).long()
        logits = self.model(batch[:, :-1])
        losses = F.cross_entropy(logits.transpose(1, 2), batch[:, 1:], reduction="none").mean(dim=1)
        self.optimizer.zero_grad()
        losses.mean().backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = RATE * min(1, (self.step + 1) / WARM_UP)
        self.optimizer.step()
        self.step += 1
        # Added in the order of the batch, so that the sum does not depend on the number of ranks.
        everywhere = [torch.empty_like(losses) for _ in range(ranks)]
        dist.all_gather(everywhere, losses.detach())
        return torch.cat(everywhere).double().mean().item()


def save(training, options, group, events):
    """Starts a save; the training goes on meanwhile."""
    step = training.step
    events.tell("saving", step=step)
    began = time.perf_counter()
    future = dcp.async_save(
        {"training": training},
        storage_writer=CaissonStorageWriter(f"caisson://{options.store}#{RUN}/{step}"),
        process_group=group,
    )
    stall = time.perf_counter() - began
    future.add_done_callback(
        lambda done: events.tell("saved", step=step, stall=stall, seconds=time.perf_counter() - began)
        if done.exception() is None
        else None
    )
    return future


def run(options, events):
    dist.init_process_group(
        "gloo", init_method=f"file://{options.rendezvous}", rank=options.rank, world_size=options.ranks
    )
    group = dist.new_group(backend="gloo")  # saves run beside the training, so their messages do too
    mesh = init_device_mesh("cpu", (options.ranks,))
    tokens = torch.load(options.tokens)
    training = Training(options.model, tokens, mesh)
    if options.resume is not None:
        began = time.perf_counter()
        dcp.load(
            {"training": training},
            storage_reader=CaissonStorageReader(f"caisson://{options.store}#{RUN}/{options.resume}"),
        )
        events.tell("restored", step=training.step, seconds=time.perf_counter() - began)
    pending = None
    while training.step < options.steps:
        draining = pending is not None and not pending.done()
        began = time.perf_counter()
        loss = training.train_step()
        seconds = time.perf_counter() - began
        events.tell("step", step=training.step, loss=loss, seconds=seconds, draining=draining)
        if options.save_every and training.step % options.save_every == 0:
            if pending is not None:
                pending.result()
            pending = save(training, options, group, events)
    if pending is not None:
        pending.result()
    events.tell("end")
    dist.barrier()
    dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--rendezvous", required=True, help="a file that does not exist, the same for all ranks")
    parser.add_argument("--events", required=True)
    parser.add_argument("--tokens", required=True)
    parser.add_argument("--store", required=True, help="an absolute path")
    parser.add_argument("--model", type=int, nargs=3, required=True, metavar=("WIDTH", "LAYERS", "HEADS"))
    parser.add_argument("--steps", type=int, required=True, help="train up to this one")
    parser.add_argument("--save-every", type=int, default=0, help="0: never")
    parser.add_argument("--resume", help="the step of the checkpoint to go on from, or `latest`")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    run(options, Events(options.events))


if __name__ == "__main__":
    main()
