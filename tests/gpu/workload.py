"""The GPU programs that are measured: a small transformer of random weights, decoding or in training.

Started by measure.py, one life per measurement; prints one JSON object. Needs torch and a GPU.
"""

import argparse
import ctypes
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

VOCABULARY, WIDTH, HEADS, LAYERS, CONTEXT = 8192, 512, 8, 8, 512


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.after = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def split(self, x):
        batch, length, _ = x.shape
        parts = self.qkv(self.before(x)).view(batch, length, 3, HEADS, WIDTH // HEADS)
        return parts.permute(2, 0, 3, 1, 4)

    def join(self, x, mixed):
        batch, _, length, _ = mixed.shape
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.down(functional.gelu(self.up(self.after(x))))

    def forward(self, x):
        q, k, v = self.split(x)
        return self.join(x, functional.scaled_dot_product_attention(q, k, v, is_causal=True))

    def decode(self, x, keys, values, place, mask):
        q, k, v = self.split(x)
        keys.index_copy_(2, place, k)
        values.index_copy_(2, place, v)
        return self.join(x, functional.scaled_dot_product_attention(q, keys, values, attn_mask=mask))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, tokens, checkpointing):
        x = self.tokens(tokens)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if checkpointing else block(x)
        return self.head(x)


class Decoder:
    """One token at a time into a cache of fixed shape, so that the same step can be captured as a graph."""

    def __init__(self, batch):
        self.model = Model().cuda().half().eval()
        cache = lambda: torch.zeros(batch, HEADS, CONTEXT, WIDTH // HEADS, dtype=torch.half, device="cuda")
        self.caches = [(cache(), cache()) for _ in range(LAYERS)]
        self.token = torch.zeros(batch, 1, dtype=torch.long, device="cuda")
        self.place = torch.zeros(1, dtype=torch.long, device="cuda")
        self.all = torch.arange(CONTEXT, device="cuda")

    @torch.no_grad()
    def step(self):
        x = self.model.tokens(self.token)
        mask = (self.all <= self.place).view(1, 1, 1, CONTEXT)
        for block, (keys, values) in zip(self.model.blocks, self.caches):
            x = block.decode(x, keys, values, self.place, mask)
        self.token.copy_(self.model.head(x).argmax(-1))
        self.place.add_(1).remainder_(CONTEXT)


def decode(arguments):
    decoder = Decoder(arguments.batch)
    step = decoder.step
    for _ in range(20):
        step()
    if arguments.graph:
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            decoder.step()
        step = graph.replay
    return step


def train(arguments):
    model = Model().cuda()
    optimizer = torch.optim.AdamW(model.parameters())
    tokens = torch.randint(VOCABULARY, (arguments.batch, CONTEXT), device="cuda")

    def step():
        optimizer.zero_grad(set_to_none=True)
        logits = model(tokens, arguments.checkpointing)
        functional.cross_entropy(logits.flatten(0, 1), tokens.flatten()).backward()
        optimizer.step()

    return step


def profiled(step, steps):
    """What torch.profiler counts for the same loop: name -> [launches, total ns]."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    kernels = {}
    for event in profiler.events():
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.name.startswith(("Memcpy", "Memset")):
            count, total = kernels.get(event.name, (0, 0))
            kernels[event.name] = (count + 1, total + round(event.time_range.elapsed_us() * 1000))
    return kernels


def second_cupti():
    """Loads a copy of the libcupti that is there, under another name, as a program does that brings its own."""
    maps = Path("/proc/self/maps").read_text().split()
    loaded = {path for path in maps if "/libcupti.so" in path}
    if not loaded:
        return "no libcupti is loaded"
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(loaded.pop(), Path(folder) / "libcupti-second.so")
        library = ctypes.CDLL(copy, mode=os.RTLD_NOW | os.RTLD_LOCAL)
    version, subscriber = ctypes.c_uint32(), ctypes.c_void_p()
    answers = [library.cuptiGetVersion(ctypes.byref(version))]
    on_call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)(lambda *_: None)
    answers.append(library.cuptiSubscribe(ctypes.byref(subscriber), on_call, None))
    if answers[-1] == 0:
        answers.append(library.cuptiUnsubscribe(subscriber))
    return f"version {version.value}, answers {answers}"


def serve(arguments):
    """A batch of requests to vLLM; its model is a small Llama of random weights, made here."""
    from vllm import LLM, SamplingParams

    folder = tempfile.mkdtemp()
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float16", "vocab_size": VOCABULARY,
        "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 16, "num_attention_heads": 16,
        "num_key_value_heads": 8, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "hidden_act": "silu",
        "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
    }
    (Path(folder) / "config.json").write_text(json.dumps(config))
    model = LLM(folder, load_format="dummy", skip_tokenizer_init=True, gpu_memory_utilization=0.5, max_model_len=1024)
    prompts = [{"prompt_token_ids": [3 + (place * 7) % 1000 for place in range(64)]} for _ in range(arguments.batch)]
    sampling = SamplingParams(max_tokens=256, ignore_eos=True, temperature=0.0, detokenize=False)
    return lambda: model.generate(prompts, sampling, use_tqdm=False)


def in_phases(step, arguments):
    """The steps in so many parts; each tells its time and waits for a line before the next."""
    each = arguments.steps // arguments.phases
    for _ in range(arguments.phases):
        began = time.monotonic()
        for _ in range(each):
            step()
        torch.cuda.synchronize()
        print(json.dumps({"phase_secs_per_step": (time.monotonic() - began) / each}), flush=True)
        sys.stdin.readline()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["decode", "train", "grow", "vllm"])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--graph", action="store_true")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--profile", action="store_true", help="take the loop over with torch.profiler")
    parser.add_argument("--second-cupti", action="store_true", help="load a second libcupti half way")
    parser.add_argument("--phases", type=int, default=0, help="run in so many parts, each after a line on stdin")
    parser.add_argument("--linger", type=float, default=0, help="stay so many seconds after the loop")
    arguments = parser.parse_args()
    torch.manual_seed(1)
    if arguments.kind == "grow":
        held = [torch.empty(size << 20, dtype=torch.uint8, device="cuda") for size in range(1, 64)]
        del held[::2]
        step = lambda: torch.empty(3 << 20, dtype=torch.uint8, device="cuda")
    else:
        step = {"decode": decode, "train": train, "vllm": serve}[arguments.kind](arguments)
    for _ in range(min(2 if arguments.kind == "vllm" else 20, arguments.steps)):
        step()
    torch.cuda.synchronize()
    began = time.monotonic()
    kernels = second = None
    if arguments.profile:
        kernels = profiled(step, arguments.steps)
    elif arguments.phases:
        in_phases(step, arguments)
    else:
        for number in range(arguments.steps):
            if arguments.second_cupti and number == arguments.steps // 2:
                second = second_cupti()
            step()
        torch.cuda.synchronize()
    secs = time.monotonic() - began
    stats = torch.cuda.memory_stats()
    answer = {
        "secs_per_step": secs / arguments.steps,
        "kernels": kernels,
        "second_cupti": second,
        "allocated_bytes": stats["allocated_bytes.all.current"],
        "reserved_bytes": stats["reserved_bytes.all.current"],
        "inactive_split_bytes": stats["inactive_split_bytes.all.current"],
        "segments": stats["segment.all.current"],
        "peak_reserved_bytes": stats["reserved_bytes.all.peak"],
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
    }
    print(json.dumps(answer), flush=True)
    # So that others can look at the process while it holds what it just said.
    time.sleep(arguments.linger)


if __name__ == "__main__":
    sys.exit(main())
