"""Tells Plimsoll once a second what PyTorch's CUDA allocator holds in this process.

In a program of your own:

    import plimsoll_pytorch
    plimsoll_pytorch.start()

vLLM calls start() by itself once this package is installed (entry point `vllm.general_plugins`). For a server that
cannot be changed, put a file `plimsoll.pth` with the one line `import plimsoll_pytorch; plimsoll_pytorch.start()` into
its site-packages.

It is a guest in somebody else's process, so: one daemon thread; nothing is printed or raised; CUDA is never
initialised by it, and torch is never imported by it; the socket never blocks for longer than a second, and then only
this thread; without PLIMSOLL_SOCKET in the environment nothing is started at all.
"""

import json
import os
import socket
import sys
import threading

__all__ = ["start", "stop"]

INTERVAL_SECS = 1.0
# After a failed connection the pause doubles up to this.
LONGEST_PAUSE_SECS = 30.0
# The words of torch.cuda.memory_stats, by the words of Plimsoll's view allocator_samples.
FIGURES = {
    "allocated_bytes": "allocated_bytes.all.current",
    "active_bytes": "active_bytes.all.current",
    "reserved_bytes": "reserved_bytes.all.current",
    "inactive_split_bytes": "inactive_split_bytes.all.current",
    "requested_bytes": "requested_bytes.all.current",
    "segments": "segment.all.current",
    "alloc_retries": "num_alloc_retries",
    "out_of_memory_errors": "num_ooms",
}

_lock = threading.Lock()
_reporter = None


def _begin_anew():
    """In a forked child: the lock may be held by a thread that is not there any more."""
    global _lock, _reporter
    _lock, _reporter = threading.Lock(), None


os.register_at_fork(after_in_child=_begin_anew)


def start(path=None):
    """Starts reporting, once per process. `path` is the daemon's socket; by default PLIMSOLL_SOCKET names it.

    Returns whether a reporter runs now. Never raises.
    """
    global _reporter
    try:
        path = path or os.environ.get("PLIMSOLL_SOCKET")
        if not path:
            return False
        with _lock:
            if _reporter is None or not _reporter.is_alive() or _reporter.pid != os.getpid():
                _reporter = _Reporter(path)
                _reporter.start()
        return True
    except Exception:
        return False


def stop():
    """Ends reporting and waits at most two seconds for it."""
    global _reporter
    with _lock:
        reporter, _reporter = _reporter, None
    if reporter is not None and reporter.pid == os.getpid():
        reporter.ended.set()
        reporter.join(2.0)


class _Reporter(threading.Thread):
    def __init__(self, path):
        super().__init__(name="plimsoll-pytorch", daemon=True)
        self.path = path
        self.pid = os.getpid()
        self.ended = threading.Event()
        self.uuids = {}

    def run(self):
        pause = INTERVAL_SECS
        while not self.ended.wait(pause):
            try:
                samples = list(self.samples())
                if not samples:
                    continue
                with _connect(self.path) as connection:
                    pause = INTERVAL_SECS
                    self.report(connection, samples)
            except Exception:
                # No daemon, or a torch that answers otherwise than today's: try again, ever more rarely.
                pause = min(pause * 2, LONGEST_PAUSE_SECS)

    def report(self, connection, samples):
        answers = connection.makefile("rb")
        while True:
            for sample in samples:
                index = sample.pop("index")
                answer = _tell(connection, answers, sample)
                # The daemon asks for the costly walk over all blocks only when a person wants it, and waits for it.
                if answer.get("snapshot"):
                    _tell(connection, answers, {**sample, **_free_blocks(index)})
            if self.ended.wait(INTERVAL_SECS):
                return
            samples = list(self.samples())

    def samples(self):
        torch = sys.modules.get("torch")
        if torch is None or not torch.cuda.is_initialized():
            return
        for index in range(torch.cuda.device_count()):
            stats = torch.cuda.memory_stats(index)
            if not stats.get("reserved_bytes.all.current"):
                continue
            sample = {"request": "allocator", "pid": self.pid, "device": self.uuid(torch, index), "index": index}
            for name, key in FIGURES.items():
                # What this version of torch does not count is left out: unknown is not zero.
                if isinstance(stats.get(key), int):
                    sample[name] = stats[key]
            yield sample

    def uuid(self, torch, index):
        if index not in self.uuids:
            found = getattr(torch.cuda.get_device_properties(index), "uuid", None)
            text = None if found is None else str(found)
            if text and not text.startswith(("GPU-", "MIG-")):
                text = "GPU-" + text
            self.uuids[index] = text
        return self.uuids[index]


def _connect(path):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(1.0)
        connection.connect(path)
    except Exception:
        connection.close()
        raise
    return connection


def _tell(connection, answers, sample):
    connection.sendall(json.dumps(sample).encode() + b"\n")
    answer = answers.readline(65536)
    if not answer:
        raise ConnectionError("the daemon hung up")
    return json.loads(answer)


def _free_blocks(index):
    """What the allocator could hand out without asking the driver: its largest free block, and all of them together.

    Walks all blocks under the allocator's lock.
    """
    try:
        free = [
            block["size"]
            for segment in sys.modules["torch"].cuda.memory_snapshot()
            if segment.get("device") == index
            for block in segment.get("blocks", ())
            if block.get("state") == "inactive"
        ]
    except Exception:
        # A torch whose blocks look otherwise: unknown, and the figures of the usual kind go on.
        return {}
    return {"largest_free_bytes": max(free, default=0), "free_blocks_bytes": sum(free)}
