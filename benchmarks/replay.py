"""What the replay costs, beside memory alone and beside other readers of the same files.

    python benchmarks/replay.py --json
    python benchmarks/replay.py --rows 20000 --repeats 3    # a first look

Contenders take turns within each repeat, so that a busy machine is busy for all of them; a figure
is the median of the repeats' ratios. Rows per second differ between machines, ratios hardly.

    ring          arrays in memory, written row by row; a batch is copied slice by slice
    copy          the same slices from maps of our files into the same memory, and nothing else
    zarr          zarr-python, slices of the arrays as published
    tensorstore   the same; left out where it is not installed
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import zarr

from continual.cli import run_door
from storage import FRAMES, Column, Replay, StreamId, open_replay

FLAGS = dict.fromkeys(("is_first", "is_last", "is_terminal"), Column((), "bool"))
SHARED = {"reward": Column((), "float32"), "env_step": Column((), "int64"), **FLAGS}
SCHEMAS = {
    "image": {FRAMES: Column((64, 64, 3), "uint8"), "action.a": Column((), "int32"), **SHARED},
    "proprio": {
        "obs.orientations": Column((14,), "float32"),
        "obs.height": Column((), "float32"),
        "obs.velocity": Column((9,), "float32"),
        "action.a": Column((6,), "float32"),
        **SHARED,
    },
}
LATENTS = {"latent.deter": Column((512,), "float16"), "latent.stoch": Column((32,), "uint8")}
B, T = 16, 64
CHECKPOINT = 10_000  # rows between checkpoints
KINDS = tuple(SCHEMAS)

Rows = Mapping[str, np.ndarray]


def some_rows(schema: Mapping[str, Column], count: int = 256) -> list[dict[str, np.ndarray]]:
    """Rows of one world to be appended in turn."""
    rng = np.random.default_rng(0)
    return [
        {n: rng.integers(0, 200, (1, *c.shape)).astype(c.dtype) for n, c in schema.items()}
        for _ in range(count)
    ]


class Ring:
    """The plainest replay there is, in memory."""

    def __init__(self, schema: Mapping[str, Column], rows: int) -> None:
        self.columns = {n: np.zeros((rows, *c.shape), c.dtype) for n, c in schema.items()}
        self.batch = {n: np.zeros((B, T, *c.shape), c.dtype) for n, c in schema.items()}
        self.rows, self.size = 0, rows

    def append(self, row: Rows) -> None:
        at = self.rows % self.size
        for name, values in row.items():
            self.columns[name][at] = values[0]
        self.rows += 1

    def sample(self, rng: np.random.Generator) -> None:
        """What ours hands out: memory of its own but for frames, and the action before."""
        fresh = {n: np.empty_like(out) if n != FRAMES else out for n, out in self.batch.items()}
        action = self.columns["action.a"]
        previous = np.empty((B, *action.shape[1:]), action.dtype)
        for b, start in enumerate(rng.integers(1, self.size - T, B).tolist()):
            for name, out in fresh.items():
                out[b] = self.columns[name][start : start + T]
            previous[b] = action[start - 1]


def opened(folder: Path, kind: str, rows: int, **more: Any) -> Replay:
    options: dict[str, Any] = {"latents": {}, "context": "zero"} | more
    replay = open_replay(folder, capacity=rows, tasks=["task"], **options)
    replay.open_stream(STREAM, SCHEMAS[kind], 1)
    return replay


STREAM = StreamId(1, "task")


def fill(replay: Replay, some: list[dict[str, np.ndarray]], rows: int) -> None:
    """Append rows with a checkpoint every so often, and one in the end."""
    for k in range(rows):
        replay.append(STREAM, some[k % len(some)])
        if (k + 1) % CHECKPOINT == 0 or k + 1 == rows:
            replay.commit()
            replay.release()


def mapped_copy(folder: Path, rows: int) -> Callable[[np.random.Generator], None]:
    """Copies slices of our picture files; what no reader of them can beat."""
    array = zarr.open_group(folder / STREAM.name, mode="r")[FRAMES]
    length = array.chunks[1]
    maps = [
        np.memmap(path, np.uint8, "r").reshape(length, 64, 64, 3).view(np.ndarray)
        for path in sorted((folder / STREAM.name / FRAMES).glob("c.0.*"), key=block_of)
    ]
    out = np.zeros((B, T, 64, 64, 3), np.uint8)

    def copy(rng: np.random.Generator) -> None:
        blocks = rng.integers(0, rows // length, B).tolist()
        starts = rng.integers(0, length - T, B).tolist()
        for b, (block, start) in enumerate(zip(blocks, starts, strict=True)):
            out[b] = maps[block][start : start + T]

    return copy


def block_of(path: Path) -> int:
    return int(path.name.split(".")[2])


def by_zarr(folder: Path, rows: int) -> Callable[[np.random.Generator], None]:
    group = zarr.open_group(folder / STREAM.name, mode="r")
    arrays = [group[name] for name in group.array_keys() if name != "step"]

    def read(rng: np.random.Generator) -> None:
        for start in rng.integers(0, rows - T, B).tolist():
            for array in arrays:
                array[0, start : start + T]

    return read


def by_tensorstore(folder: Path, rows: int) -> Callable[[np.random.Generator], None] | None:
    try:
        import tensorstore
    except ImportError:
        return None
    context = tensorstore.Context({"cache_pool": {"total_bytes_limit": 8_000_000_000}})
    arrays = [
        tensorstore.open(
            {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path.parent)}},
            context=context,
            read=True,
        ).result()
        for path in sorted((folder / STREAM.name).glob("*/zarr.json"))
        if path.parent.name != "step"
    ]

    def read(rng: np.random.Generator) -> None:
        starts = rng.integers(0, rows - T, B).tolist()
        reads = [a[0, start : start + T].read() for start in starts for a in arrays]
        for future in reads:
            future.result()

    return read


def rate(act: Callable[[], object], seconds: float) -> float:
    """Calls a second, of calls made until so many seconds have passed."""
    start, calls = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds or not calls:
        act()
        calls += 1
    return calls / elapsed


def ratio(rates: Mapping[str, list[float]], ours: str, theirs: str) -> float | None:
    """Median over the repeats; None for a contender that is not there."""
    if not rates.get(theirs):
        return None
    pairs = zip(rates[ours], rates[theirs], strict=True)
    return float(np.median([mine / other for mine, other in pairs]))


def sampling(
    kind: str, folder: Path, rows: int, inserts: int, repeats: int, seconds: float
) -> Iterator[tuple[str, Any]]:
    """Sampling, then inserting, against all contenders, with all rows in the page cache."""
    some, schema = some_rows(SCHEMAS[kind]), SCHEMAS[kind]
    replay = opened(folder, kind, rows)
    fill(replay, some, rows)
    ring = Ring(schema, rows)
    for k in range(rows):
        ring.append(some[k % len(some)])
    union = {name: column for name, column in schema.items() if name != FRAMES}
    rng = np.random.default_rng(0)
    contenders: dict[str, Callable[[np.random.Generator], object] | None] = {
        "ours": lambda rng: replay.sample(rng, B, T, union),
        "ring": ring.sample,
        "zarr": by_zarr(folder, rows),
        "tensorstore": by_tensorstore(folder, rows),
    }
    if kind == "image":
        contenders["copy"] = mapped_copy(folder, rows)
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(-1, repeats):  # the first is for warming up
        for name, act in contenders.items():
            if act is not None:
                found = rate(partial(act, rng), seconds)
                if repeat >= 0:
                    rates[name].append(found)
    yield f"{kind}_sequences_per_second", B * float(np.median(rates["ours"]))
    yield f"{kind}_sample_vs_ram", ratio(rates, "ours", "ring")
    if kind == "image":
        yield "image_sample_vs_copy", ratio(rates, "ours", "copy")
    for other in ("tensorstore", "zarr"):
        yield f"{kind}_sample_vs_{other}", ratio(rates, "ours", other)
    if kind == "image":
        yield from under_inserts(replay, some[0], union, rng, repeats, seconds)
    # Files that somebody has mapped give no memory back when they are deleted.
    contenders.clear()
    del act
    yield from inserting(kind, replay, ring, inserts, repeats)
    replay.close()


def under_inserts(
    replay: Replay,
    row: Rows,
    union: Mapping[str, Column],
    rng: np.random.Generator,
    repeats: int,
    seconds: float,
    per_second: int = 1000,
) -> Iterator[tuple[str, float | None]]:
    """Sampling while rows come at a steady pace, against sampling alone."""
    rates: dict[str, list[float]] = {"busy": [], "quiet": []}
    for _ in range(repeats):
        rates["quiet"].append(rate(lambda: replay.sample(rng, B, T, union), seconds))
        begin, first = time.perf_counter(), replay.rows

        def busy(begin: float = begin, first: int = first) -> None:
            due = first + int((time.perf_counter() - begin) * per_second)
            while replay.rows < due:
                replay.append(STREAM, row)
            replay.sample(rng, B, T, union)

        rates["busy"].append(rate(busy, seconds))
    yield "sample_under_inserts_vs_quiet", ratio(rates, "busy", "quiet")


def inserting(
    kind: str, replay: Replay, ring: Ring, rows: int, repeats: int
) -> Iterator[tuple[str, Any]]:
    """Inserting with checkpoints, at capacity, against the ring; and what it costs the system."""
    some, schema = some_rows(SCHEMAS[kind]), SCHEMAS[kind]
    seconds: dict[str, list[float]] = {"ours": [], "ring": []}
    for _ in range(repeats):
        start = time.perf_counter()
        fill(replay, some, rows)
        middle = time.perf_counter()
        for k in range(rows):
            ring.append(some[k % len(some)])
        seconds["ours"].append(middle - start)
        seconds["ring"].append(time.perf_counter() - middle)
    yield f"{kind}_inserts_per_second", rows / float(np.median(seconds["ours"]))
    yield f"{kind}_insert_vs_ram", ratio(seconds, "ring", "ours")
    before = written_bytes()
    with counted_calls() as calls:
        fill(replay, some, CHECKPOINT)
    size = sum(column.nbytes for column in schema.values()) + 8  # `step`
    yield f"{kind}_bytes_written_per_row_byte", (written_bytes() - before) / CHECKPOINT / size
    yield f"{kind}_calls_per_10k_rows", calls.total()
    yield f"{kind}_syncs_per_10k_rows", calls["fsync"] + calls["fdatasync"]


def writing_back(folder: Path, rows: int, repeats: int) -> Iterator[tuple[str, float]]:
    """Milliseconds of writing the latents of a batch back, with undo."""
    schema = SCHEMAS["proprio"]
    replay = opened(folder, "proprio", rows, latents=LATENTS, context="stored")
    fill(replay, some_rows({**schema, **LATENTS}), rows)
    rng, times = np.random.default_rng(0), []
    new = {n: np.ones((B, T, *c.shape), c.dtype) for n, c in LATENTS.items()}
    for _ in range(20 * repeats):
        where = replay.sample(rng, B, T, schema).where
        start = time.perf_counter()
        replay.write_latents(where, new)
        times.append(time.perf_counter() - start)
    start = time.perf_counter()
    replay.commit()
    yield "write_back_ms", 1e3 * float(np.median(times))
    yield "commit_after_write_back_ms", 1e3 * (time.perf_counter() - start)
    replay.close()


def reopening(folder: Path, rows: int) -> Iterator[tuple[str, float]]:
    """What a start costs after a kill, with a million rows or as many as are asked for."""
    program = (
        "import os, sys, json; sys.path[:0] = json.loads(sys.argv[1]); import replay as it\n"
        "from pathlib import Path\n"
        "r = it.opened(Path(sys.argv[2]), 'proprio', int(sys.argv[3]))\n"
        "it.fill(r, it.some_rows(it.SCHEMAS['proprio']), int(sys.argv[3]))\n"
        "print(json.dumps(r.commit()), flush=True); os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", program, json.dumps(sys.path), str(folder), str(rows)]
    out = subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout
    cursor = json.loads(out)
    before = resident_bytes()
    start = time.perf_counter()
    replay = open_replay(folder, capacity=rows, latents={}, tasks=["task"], context="zero")
    replay.rewind(cursor)
    yield "open_seconds", time.perf_counter() - start
    replay.sample(np.random.default_rng(0), B, T, SCHEMAS["proprio"])
    yield "open_rows", rows
    yield "open_descriptors", len(list(Path("/proc/self/fd").iterdir()))
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    yield "open_maps", sum(str(folder) in line for line in maps.splitlines())
    yield "open_resident_bytes_per_row", (resident_bytes() - before) / rows
    replay.close()


def written_bytes() -> int:
    """Bytes this process has passed to write calls."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


def resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def counted_calls() -> Iterator[Counter[str]]:
    """Counts the calls by which files are changed or made durable, while the context lasts."""
    counts: Counter[str] = Counter()
    names = ("open", "pwrite", "posix_fallocate", "fsync", "fdatasync", "rename", "unlink")

    def counting(name: str) -> Callable[..., Any]:
        original = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return original(*arguments, **options)

        return call

    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(mock.patch.object(os, name, counting(name)))
        yield counts


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"rows": arguments.rows, "B": B, "T": T}
    rows, repeats = arguments.rows, arguments.repeats
    for kind in KINDS:
        at = folder / kind
        found.update(sampling(kind, at, rows, arguments.inserts, repeats, arguments.seconds))
        shutil.rmtree(at)
    found.update(writing_back(folder / "latents", min(rows, 50_000), repeats))
    found.update(reopening(folder / "open", arguments.open_rows))
    found["missing"] = [] if found["image_sample_vs_tensorstore"] else ["tensorstore"]
    return found


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog=Path(__file__).name,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=200_000, help="held while sampling")
    parser.add_argument("--inserts", type=int, default=20_000, help="rows inserted a repeat")
    parser.add_argument("--open-rows", type=int, default=1_000_000, help="held when opening")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a contender a repeat")
    parser.add_argument("--folder", type=Path, help="where the files lie for the time; else tmp")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        found = measure(arguments, Path(folder))
    if arguments.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:36} {value:,.3f}" if isinstance(value, float) else f"{name:36} {value}")
    return 0


if __name__ == "__main__":
    run_door(main)
