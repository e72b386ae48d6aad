"""Measures Plimsoll on a GPU and prints Markdown for docs/gpu.md.

    python3 tests/gpu/measure.py [--binaries target/release] [--out FOLDER] [--pairs 3] [--only NAME ...]

Needs the built binaries (plimsoll, libplimsoll_agent.so), python3 with torch, and a GPU; installs nothing. Where vLLM is
installed too, it is measured. Every
measurement stands alone: one that fails is a row that says why, and the others go on. What the program printed is kept
in FOLDER, so that a figure can be looked up again.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TIERS = ["memory", "graph", "kernels"]
LOOPS = {
    "eager decode": ["decode", "--steps", "400"],
    "decode under CUDA graphs": ["decode", "--graph", "--steps", "2000"],
    "training step": ["train", "--steps", "30"],
    "training step, checkpointing": ["train", "--checkpointing", "--steps", "30"],
}


class Failed(Exception):
    pass


class Bench:
    def __init__(self, binaries, out, pairs):
        self.plimsoll, self.agent = binaries / "plimsoll", binaries / "libplimsoll_agent.so"
        self.out, self.pairs, self.runs = out, pairs, 0

    def workload(self, words, tier=None, env=None, budget="100%"):
        """One life of the workload, recorded when a tier is given: its answer, and the database."""
        name, database, command = self.prepare(words, tier, budget)
        ended = self.command(command, name, env)
        return json.loads(ended.stdout.strip().splitlines()[-1]), database

    def prepare(self, words, tier=None, budget="100%"):
        """The name, the database and the command of one life."""
        self.runs += 1
        name = f"{self.runs:03}-{words[0]}-{tier or 'bare'}"
        database = self.out / f"{name}.db"
        command = [sys.executable, str(HERE / "workload.py"), *words]
        if tier:
            command = [
                str(self.plimsoll), "run", "--name", name, "--trace", tier, "--budget", budget,
                "--db", str(database), "--", *command,
            ]
        return name, database, command

    def workload_in_phases(self, words, tier, told):
        """One life in phases; before phase N (from 0) `plimsoll trace --X` is told if `told` has it. A step's time by phase."""
        name, database, command = self.prepare(words, tier)
        with open(self.out / f"{name}.log", "w") as log:
            program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                                       env=self.environment())
            secs, phase = [], 0
            try:
                while line := program.stdout.readline():
                    answer = json.loads(line)
                    if "phase_secs_per_step" not in answer:
                        return secs, database
                    secs.append(answer["phase_secs_per_step"])
                    phase += 1
                    if phase in told:
                        self.command([str(self.plimsoll), "trace", name, told[phase], "--db", str(database)], f"{name}-{phase}")
                    program.stdin.write("\n")
                    program.stdin.flush()
                raise Failed(f"{name} ended in phase {phase}")
            finally:
                program.stdin.close()
                program.wait(60)

    def environment(self, env=None):
        environment = {**os.environ, "PLIMSOLL_AGENT": str(self.agent), **(env or {})}
        environment.pop("PLIMSOLL_SOCKET", None)
        return environment

    def command(self, command, name, env=None, timeout=300):
        environment = self.environment(env)
        ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=timeout)
        (self.out / f"{name}.log").write_text(f"$ {' '.join(command)}\n{ended.stdout}\n{ended.stderr}")
        if ended.returncode != 0:
            last = (ended.stderr.strip() or "no message").splitlines()[-1]
            raise Failed(f"{name} ended with {ended.returncode}: {last}")
        return ended

    def sql(self, database, query):
        ended = self.command(
            [str(self.plimsoll), "sql", "--db", str(database), "--format", "json", query], f"{database.stem}-sql"
        )
        return json.loads(ended.stdout)


def mib(size):
    return "unknown" if size is None else f"{size / 2**20:.1f} MiB"


def table(head, rows):
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(str(cell) for cell in row) + " |"


def slow_down(bench):
    """Pairs, one after the other and in alternating order, so that what drifts hits both."""
    rows = []
    for name, words in LOOPS.items():
        for tier in TIERS:
            try:
                ratios, bare = [], []
                for pair in range(bench.pairs):
                    order = [None, tier] if pair % 2 == 0 else [tier, None]
                    secs = {kind: bench.workload(words, kind)[0]["secs_per_step"] for kind in order}
                    ratios.append(secs[tier] / secs[None] - 1)
                    bare.append(secs[None])
                spread = f"{min(ratios):+.1%} to {max(ratios):+.1%}"
                rows.append([name, tier, f"{statistics.median(bare) * 1e3:.3f} ms", f"{statistics.median(ratios):+.1%}", spread])
            except (Failed, subprocess.TimeoutExpired, ValueError, KeyError) as error:
                rows.append([name, tier, "", f"not measured: {error}", ""])
    yield from table(["loop", "tier", "a step without", "median slow-down", f"spread of {bench.pairs} pairs"], rows)


# A window of single kernels that is open for the whole life: each node of a graph counts, as it does for torch.profiler.
ALL_NODES = {"PLIMSOLL_WINDOW": "10m", "PLIMSOLL_WINDOW_EVERY": "10m"}


def counts(bench):
    """The same loop counted by torch.profiler and by the agent, each in lives of its own. The profiler counts 100 steps; the
    agent counts whole lives, so that 100 steps are what a life of 200 has more than one of 100."""
    rows = []
    for name, words in LOOPS.items():
        try:
            profiled, _ = bench.workload([*words[:-1], "100", "--profile"])
            theirs = profiled["kernels"]
            sums = []
            for steps in ["100", "200"]:
                _, database = bench.workload([*words[:-1], steps], "kernels", ALL_NODES)
                ours = bench.sql(database, "SELECT raw_name AS name, count, total_ns FROM kernels WHERE raw_name <> '[CUDA memset]'")
                sums.append((sum(row["count"] for row in ours), sum(row["total_ns"] for row in ours)))
            (count, total) = (more - less for less, more in zip(*sums))
            their_count = sum(kernel[0] for kernel in theirs.values())
            their_total = sum(kernel[1] for kernel in theirs.values())
            rows.append([name, their_count, count, f"{their_total / 1e6:.1f} ms", f"{total / 1e6:.1f} ms", len(theirs), len(ours)])
        except (Failed, subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as error:
            rows.append([name, "", f"not measured: {error}", "", "", "", ""])
    head = ["loop, 100 steps", "launches: profiler", "agent", "time: profiler", "agent", "names: profiler", "agent"]
    yield from table(head, rows)


def vllm(bench):
    """Decoding in vLLM, a small model of random weights, by tier."""
    rows = []
    for tier in TIERS:
        try:
            ratios, bare = [], []
            for _ in range(bench.pairs):
                secs = {kind: bench.workload(["vllm", "--steps", "10"], kind)[0]["secs_per_step"] for kind in [None, tier]}
                ratios.append(secs[tier] / secs[None] - 1)
                bare.append(secs[None])
            rows.append([tier, f"{statistics.median(bare):.3f} s", f"{statistics.median(ratios):+.1%}",
                         f"{min(ratios):+.1%} to {max(ratios):+.1%}"])
        except (Failed, subprocess.TimeoutExpired, ValueError, KeyError) as error:
            rows.append([tier, "", f"not measured: {error}", ""])
    yield from table(["tier", "a batch without", "median slow-down", f"spread of {bench.pairs} pairs"], rows)


def allocations(bench):
    rows = []
    for label, env in [("default", {}), ("expandable segments", {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"})]:
        for kind in ["grow", "decode"]:
            try:
                answer, database = bench.workload([kind, "--steps", "50", "--linger", "2.5"], "memory", env)
                found = bench.sql(
                    database,
                    "SELECT level, reserved_bytes, allocated_bytes, segments FROM allocator_samples AS a "
                    "WHERE at_ns = (SELECT max(at_ns) FROM allocator_samples AS b WHERE b.level = a.level AND "
                    "coalesce(b.allocated_bytes, b.reserved_bytes, 0) > 0)",
                )
                by_level = {row["level"]: row for row in found}
                driver, vmm = by_level.get("driver", {}), by_level.get("vmm", {})
                rows.append([
                    f"{kind}, {label}", mib(answer["reserved_bytes"]), mib(driver.get("allocated_bytes")),
                    mib(vmm.get("allocated_bytes")), answer["segments"], driver.get("segments", "unknown"),
                ])
            except (Failed, subprocess.TimeoutExpired, ValueError, KeyError) as error:
                rows.append([f"{kind}, {label}", f"not measured: {error}", "", "", "", ""])
    yield from table(["loop", "reserved by PyTorch", "live at the driver", "mapped (VMM)", "segments: PyTorch", "driver"], rows)


def against_nvidia_smi(bench):
    """The figures of both, read while one process holds still."""
    database = bench.out / "smi.db"
    holder = subprocess.Popen(
        [str(bench.plimsoll), "run", "--name", "smi", "--db", str(database), "--", sys.executable,
         str(HERE / "workload.py"), "decode", "--steps", "50", "--linger", "20"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )
    try:
        holder.stdout.readline()
        time.sleep(5)
        query = ["nvidia-smi", "--format=csv,noheader,nounits"]
        device = bench.command([*query, "--query-gpu=uuid,memory.used,memory.free,memory.reserved,memory.total"], "smi-gpu")
        process = bench.command([*query, "--query-compute-apps=gpu_uuid,pid,used_memory"], "smi-apps")
        rows = []
        for line in device.stdout.strip().splitlines():
            uuid, *theirs = [word.strip() for word in line.split(",")]
            ours = bench.sql(database, f"SELECT used_bytes, free_bytes, reserved_bytes, total_bytes FROM device_samples "
                                       f"WHERE device = '{uuid}' ORDER BY at_ns DESC LIMIT 1")
            for name, their, our in zip(["used", "free", "reserved", "total"], theirs, ours[0].values() if ours else [None] * 4):
                rows.append([f"device {name}", f"{their} MiB", mib(our)])
        for line in process.stdout.strip().splitlines():
            uuid, pid, used = [word.strip() for word in line.split(",")]
            ours = bench.sql(database, f"SELECT used_bytes FROM process_samples WHERE pid = {int(pid)} ORDER BY at_ns DESC LIMIT 1")
            rows.append([f"process {pid}", f"{used} MiB", mib(ours[0]["used_bytes"]) if ours else "no row"])
        yield from table(["figure", "nvidia-smi", "Plimsoll"], rows)
    finally:
        holder.send_signal(signal.SIGTERM)
        holder.wait(30)


def own_memory(bench):
    """How much more a process holds on the device when it is traced."""
    rows = []
    for tier in TIERS:
        try:
            held = {}
            for kind in [None, tier]:
                child = subprocess.Popen(
                    [sys.executable, str(HERE / "workload.py"), "decode", "--steps", "50", "--linger", "20"]
                    if kind is None else
                    [str(bench.plimsoll), "run", "--trace", kind, "--db", str(bench.out / f"own-{kind}.db"), "--",
                     sys.executable, str(HERE / "workload.py"), "decode", "--steps", "50", "--linger", "20"],
                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                    env={**os.environ, "PLIMSOLL_AGENT": str(bench.agent)},
                )
                try:
                    child.stdout.readline()
                    time.sleep(2)
                    apps = bench.command(["nvidia-smi", "--format=csv,noheader,nounits", "--query-gpu=memory.used"], f"own-{kind}")
                    held[kind] = int(apps.stdout.split()[0])
                finally:
                    child.send_signal(signal.SIGTERM)
                    child.wait(30)
                time.sleep(1)
            rows.append([tier, f"{held[None]} MiB", f"{held[tier]} MiB", f"{held[tier] - held[None]:+} MiB"])
        except (Failed, subprocess.TimeoutExpired, ValueError, IndexError) as error:
            rows.append([tier, "", f"not measured: {error}", ""])
    yield from table(["tier", "device in use without", "with", "difference"], rows)


def questions(bench):
    """The open questions of the notes on CUPTI, as far as one program can answer them."""
    def vmm():
        _, database = bench.workload(["grow", "--steps", "50", "--linger", "2.5"], "memory",
                                     {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"})
        kinds = bench.sql(database, "SELECT kind, operation, count(*) AS n FROM allocations GROUP BY 1, 2")
        return "; ".join(f"{row['kind']} {row['operation']}: {row['n']}" for row in kinds) or "no allocation was seen"

    def nodes():
        _, database = bench.workload(["decode", "--graph", "--steps", "2000"], "kernels")
        seen = bench.sql(database, "SELECT count(*) AS names, sum(count) AS launches FROM kernels")[0]
        return f"{seen['names']} names, {seen['launches']} launches for 2,020 replays"

    def long_run():
        _, database = bench.workload(["decode", "--graph", "--steps", "60000"], "kernels")
        losses = bench.sql(database, "SELECT reason, sum(count) AS n FROM losses WHERE source = 'agent' GROUP BY reason")
        seen = bench.sql(database, "SELECT sum(count) AS launches FROM kernels")[0]["launches"]
        return f"{seen} records; losses: {losses or 'none'}"

    def missing():
        environment = {**os.environ, "CUDA_INJECTION64_PATH": "/nonexistent/libagent.so"}
        ended = subprocess.run([sys.executable, str(HERE / "workload.py"), "decode", "--steps", "5"],
                               capture_output=True, text=True, env=environment, timeout=120)
        told = (ended.stderr.strip() or "nothing").splitlines()[-1]
        return f"exit status {ended.returncode}; stderr says: {told}"

    def second_cupti():
        answer, database = bench.workload(["decode", "--steps", "300", "--second-cupti"], "graph")
        seen = bench.sql(database, "SELECT sum(count) AS launches FROM kernels")[0]["launches"]
        events = bench.sql(database, "SELECT kind, message FROM events WHERE kind LIKE 'agent%'")
        return (f"{answer['second_cupti']}; {seen} launches were counted; events: "
                + "; ".join(f"{row['kind']}: {row['message']}" for row in events))

    def afterwards():
        words = ["decode", "--steps", "400", "--phases", "4"]
        bare, _ = bench.workload_in_phases(words, None, {})
        traced, _ = bench.workload_in_phases(words, "graph", {2: "--yield", 3: "--resume"})
        told = ["traced", "traced", "after --yield", "after --resume"]
        return "; ".join(f"{what}: {with_it / without - 1:+.1%}" for what, with_it, without in zip(told, traced, bare))

    def takeover():
        answer, database = bench.workload(["decode", "--steps", "300", "--profile"], "graph")
        events = bench.sql(database, "SELECT kind, message FROM events WHERE kind LIKE 'agent%'")
        return f"torch.profiler counted {len(answer['kernels'])} names; events: " + "; ".join(f"{row['kind']}: {row['message']}" for row in events)

    for text, ask in [
        ("Are cuMemCreate and cuMemMap seen?", vmm),
        ("Do CUDA graphs show their nodes in tier kernels?", nodes),
        ("Does a long run lose records?", long_run),
        ("What does the driver do when the injected library is missing?", missing),
        ("What happens when torch.profiler takes over?", takeover),
        ("What happens when a second libcupti is loaded late?", second_cupti),
        ("Does throughput come back when CUPTI is left, without cuptiFinalize?", afterwards),
    ]:
        try:
            yield f"- {text} {ask()}"
        except (Failed, subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as error:
            yield f"- {text} Not answered: {error}"


PARTS = {
    "slow-down": ("Slow-down by tier", slow_down),
    "vllm": ("Decoding in vLLM by tier", vllm),
    "counts": ("Launches and time against torch.profiler", counts),
    "allocations": ("Live bytes against torch.cuda.memory_stats", allocations),
    "nvidia-smi": ("Memory against nvidia-smi", against_nvidia_smi),
    "own-memory": ("Device memory of the agent itself", own_memory),
    "questions": ("Open questions", questions),
}


def describe():
    smi = subprocess.run(["nvidia-smi", "--format=csv,noheader", "--query-gpu=name,driver_version,memory.total"],
                         capture_output=True, text=True).stdout.strip() or "no nvidia-smi"
    versions = subprocess.run([sys.executable, "-c", "import torch; print('torch', torch.__version__, 'CUDA', torch.version.cuda)"],
                              capture_output=True, text=True).stdout.strip() or "no torch"
    return f"{datetime.date.today()}, {smi}, {versions}, {platform.platform()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binaries", type=Path, default=Path("target/release"))
    parser.add_argument("--out", type=Path, default=Path("gpu-results"))
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    arguments = parser.parse_args()
    shutil.rmtree(arguments.out, ignore_errors=True)
    arguments.out.mkdir(parents=True)
    bench = Bench(arguments.binaries.resolve(), arguments.out.resolve(), arguments.pairs)
    for needed in [bench.plimsoll, bench.agent]:
        if not needed.exists():
            sys.exit(f"{needed} does not exist; build it with `cargo build --release --workspace`, or name its folder with --binaries")
    lines = [describe(), ""]
    for name in arguments.only:
        title, measure = PARTS[name]
        lines += [f"## {title}", ""]
        began = time.monotonic()
        try:
            lines += list(measure(bench))
        except Exception as error:  # One part that cannot be measured is told; the others are worth having.
            lines.append(f"Not measured: {type(error).__name__}: {error}")
        lines += ["", f"({time.monotonic() - began:.0f} s)", ""]
        (arguments.out / "gpu.md").write_text("\n".join(lines))
        print(f"{title}: done", file=sys.stderr)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
