"""python3 -m unittest, without torch: a module of that name that answers as torch does stands in for it."""

import json
import os
import signal
import socket
import sys
import tempfile
import threading
import types
import unittest

import plimsoll_pytorch

STATS = {"reserved_bytes.all.current": 100, "allocated_bytes.all.current": 70, "num_ooms": 0}


def torch(initialized=True, uuid="11112222-3333-4444-5555-666677778888"):
    blocks = [{"state": "inactive", "size": 5}, {"state": "inactive", "size": 3}, {"state": "active_allocated", "size": 9}]
    cuda = types.SimpleNamespace(
        is_initialized=lambda: initialized,
        device_count=lambda: 2,
        memory_stats=lambda index: STATS if index == 1 else {},
        get_device_properties=lambda index: types.SimpleNamespace(uuid=uuid),
        memory_snapshot=lambda: [{"device": 1, "blocks": blocks}, {"device": 0, "blocks": [{"state": "inactive", "size": 99}]}],
    )
    return types.SimpleNamespace(cuda=cuda)


class Daemon:
    """Answers so many lines and remembers them."""

    def __init__(self, path, answers):
        self.lines = []
        self.answers = answers
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        connection, _ = self.listener.accept()
        with connection, connection.makefile("rwb") as lines:
            for answer in self.answers:
                self.lines.append(json.loads(lines.readline()))
                lines.write(answer + b"\n")
                lines.flush()
        self.listener.close()


class Reporter(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "plimsoll.sock")
        interval = plimsoll_pytorch.INTERVAL_SECS
        plimsoll_pytorch.INTERVAL_SECS = 0.01
        self.addCleanup(setattr, plimsoll_pytorch, "INTERVAL_SECS", interval)
        self.addCleanup(sys.modules.pop, "torch", None)
        self.addCleanup(plimsoll_pytorch.stop)

    def test_figures_of_devices_that_are_in_use(self):
        sys.modules["torch"] = torch()
        daemon = Daemon(self.path, [b"{}", b'{"snapshot": true}', b"{}", b"{}"])
        self.assertTrue(plimsoll_pytorch.start(self.path))
        daemon.thread.join(30)
        expected = {
            "request": "allocator",
            "pid": os.getpid(),
            "device": "GPU-11112222-3333-4444-5555-666677778888",
            "allocated_bytes": 70,
            "reserved_bytes": 100,
            "out_of_memory_errors": 0,
        }
        self.assertEqual(daemon.lines[:2], [expected] * 2)
        self.assertEqual(daemon.lines[2], {**expected, "largest_free_bytes": 5, "free_blocks_bytes": 8})
        self.assertEqual(daemon.lines[3], expected)

    def test_each_device_is_asked_for_itself(self):
        sys.modules["torch"] = torch()
        sys.modules["torch"].cuda.memory_stats = lambda index: STATS
        daemon = Daemon(self.path, [b'{"snapshot": true}', b"{}", b"{}", b"{}"])
        plimsoll_pytorch.start(self.path)
        daemon.thread.join(30)
        largest = [line.get("largest_free_bytes") for line in daemon.lines]
        self.assertEqual(largest, [None, 99, None, None])

    def test_a_walk_that_fails_is_no_trouble(self):
        sys.modules["torch"] = torch()
        sys.modules["torch"].cuda.memory_snapshot = lambda: [{"device": 1, "blocks": [{"state": "inactive"}]}]
        daemon = Daemon(self.path, [b'{"snapshot": true}', b"{}"])
        plimsoll_pytorch.start(self.path)
        daemon.thread.join(30)
        self.assertNotIn("largest_free_bytes", daemon.lines[1])
        self.assertTrue(plimsoll_pytorch._reporter.is_alive())

    def test_garbage_from_the_daemon_is_no_trouble(self):
        sys.modules["torch"] = torch(uuid=None)
        daemon = Daemon(self.path, [b"no json"])
        plimsoll_pytorch.start(self.path)
        daemon.thread.join(30)
        self.assertIsNone(daemon.lines[0]["device"])
        self.assertTrue(plimsoll_pytorch._reporter.is_alive())

    def test_nothing_is_said_before_cuda_is_in_use(self):
        reporter = plimsoll_pytorch._Reporter(self.path)
        self.assertEqual(list(reporter.samples()), [])
        sys.modules["torch"] = torch(initialized=False)
        self.assertEqual(list(reporter.samples()), [])

    def test_without_a_socket_nothing_starts(self):
        before = os.environ.pop("PLIMSOLL_SOCKET", None)
        self.assertFalse(plimsoll_pytorch.start())
        if before is not None:
            os.environ["PLIMSOLL_SOCKET"] = before

    def test_a_child_that_was_forked_meanwhile_reports_too(self):
        with plimsoll_pytorch._lock:
            child = os.fork()
            if child == 0:
                signal.alarm(10)
                os._exit(0 if plimsoll_pytorch.start(self.path) else 1)
        self.assertEqual(os.waitpid(child, 0)[1], 0)

    def test_one_reporter_per_process_and_a_missing_daemon_is_no_trouble(self):
        self.assertTrue(plimsoll_pytorch.start(self.path))
        first = plimsoll_pytorch._reporter
        self.assertTrue(plimsoll_pytorch.start(self.path))
        self.assertIs(plimsoll_pytorch._reporter, first)


if __name__ == "__main__":
    unittest.main()
