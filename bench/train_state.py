#!/usr/bin/env python3
"""Makes real training states to measure codecs on: trains a small decoder-only transformer on the text of this
machine's Python library and writes the state of several steps as safetensors files. CPU only; a few minutes.

    python3 -m venv VENV && VENV/bin/pip install torch==2.13.0 numpy safetensors
    VENV/bin/python bench/train_state.py OUT_DIRECTORY

Two runs. `mixed-STEP.safetensors` is the state of mixed-precision training, 14 bytes a parameter: bf16 weights
(model.*), their fp32 masters (master.*), Adam's moments in fp32 (exp_avg.*, exp_avg_sq.*). `fp32-STEP.safetensors` is the
state of training in fp32, 12 bytes a parameter. Steps saved: the last one, and those 1, 10 and 100 before it.

The arithmetic of the mixed run is fp32 on weights rounded to bf16, and gradients are rounded to bf16: the numbers that
come out are those of mixed precision, on processors that have no bf16 arithmetic.
"""

import argparse
import collections
import math
import pathlib
import re
import sysconfig
import time

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

# width, layers, heads
SIZES = {"tiny": (128, 2, 4), "small": (256, 4, 4), "medium": (512, 8, 8)}
VOCABULARY, CONTEXT = 4096, 128
BEFORE_LAST = (0, 1, 10, 100)


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = (
            part.view(batch, length, self.heads, -1).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    def __init__(self, width, layers, heads):
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, width), nn.Embedding(CONTEXT, width)
        self.layers = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, VOCABULARY, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                deep = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * layers) if deep else 0.02)

    def forward(self, ids):
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


def token_ids(bytes_max):
    """The library's sources as ids: words, runs of blanks and single signs, the commonest of them."""
    root = pathlib.Path(sysconfig.get_paths()["stdlib"])
    texts, size = [], 0
    for path in sorted(root.rglob("*.py")):
        if "site-packages" in path.parts or size > bytes_max:
            continue
        texts.append(path.read_text("utf-8", "replace"))
        size += len(texts[-1])
    pieces = re.findall(r"\w+|\s+|[^\w\s]", "".join(texts))
    common = collections.Counter(pieces).most_common(VOCABULARY - 1)
    number = {piece: i + 1 for i, (piece, _) in enumerate(common)}
    return torch.tensor([number.get(piece, 0) for piece in pieces])


def state_of(model, masters, optimizer, mixed):
    tensors = {}
    for (name, weight), master in zip(model.named_parameters(), masters):
        if mixed:
            tensors["model." + name] = weight.detach().bfloat16()
        tensors[("master." if mixed else "model.") + name] = master.detach().clone()
        for moment in ("exp_avg", "exp_avg_sq"):
            tensors[f"{moment}.{name}"] = optimizer.state[master][moment].clone()
    return tensors


def train(ids, mixed, options):
    torch.manual_seed(options.seed)
    model = Transformer(*SIZES[options.size])
    weights = list(model.parameters())
    masters = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.AdamW(
        [{"params": [m for m in masters if m.dim() == 2], "weight_decay": 0.1},
         {"params": [m for m in masters if m.dim() != 2], "weight_decay": 0.0}],
        betas=(0.9, 0.95))  # fmt: skip
    saved = {options.steps - before for before in BEFORE_LAST}
    started = time.monotonic()
    for step in range(options.steps + 1):
        with torch.no_grad():
            for weight, master in zip(weights, masters):
                weight.copy_(master.bfloat16() if mixed else master)
        if step in saved and step > 0:
            path = options.out / f"{'mixed' if mixed else 'fp32'}-{step}.safetensors"
            save_file(state_of(model, masters, optimizer, mixed), path)
            print(f"wrote {path}, {path.stat().st_size / 1e6:.1f} MB", flush=True)
        if step == options.steps:
            return
        starts = torch.randint(len(ids) - CONTEXT - 1, (options.batch,))
        batch = torch.stack([ids[start : start + CONTEXT + 1] for start in starts])
        loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        model.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(weights, 1.0)
        for weight, master in zip(weights, masters):
            master.grad = weight.grad.bfloat16().float() if mixed else weight.grad
        # A short warm-up, then a cosine down to a tenth.
        rate = 6e-4 * min(1, (step + 1) / 50) * (0.55 + 0.45 * math.cos(math.pi * step / options.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        if step % 50 == 0:
            passed = time.monotonic() - started
            print(f"step {step}: loss {loss:.3f}, gradient {norm:.3f}, {passed:.0f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("out", type=pathlib.Path, help="where the states go")
    parser.add_argument("--size", choices=SIZES, default="small", help="of the model; small: 5.3 M parameters")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=4, help=f"sequences of {CONTEXT} tokens a step")
    parser.add_argument("--runs", nargs="+", choices=("mixed", "fp32"), default=("mixed", "fp32"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    ids = token_ids(24_000_000)
    print(f"{len(ids) / 1e6:.1f} M tokens", flush=True)
    for run in options.runs:
        train(ids, run == "mixed", options)


if __name__ == "__main__":
    main()
