"""A life's records on their way to W&B while it is lived: `track=wandb`."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from continual.errors import UserError
from continual.files import replace_file
from continual.rundir import KINDS, RunFolder
from continual.scheduler import Clock, Evaluate
from continual.wandb_sink import Description, Mode, Wandb, WandbRun, describe_run
from eval import rows
from eval.records import EpisodeRecord, PhaseRecord, Record, TrainRecord
from eval.rows import Row, RowMaker, own_values
from eval.run_folder import RecordedRun, load_run

# Charts over the life; `phase/<K>/…` starts at 0 in every phase.
AXES = dict.fromkeys(rows.KINDS, "env_steps") | {"phase": "phase_step"}
_BY_PHASE = ("lived/", "judged/")


@dataclass(frozen=True)
class Cursor:
    """What W&B has been told.

    Attributes:
      mode: in which it was told; None: nothing was.
      lines: file of records -> lines of it.
    """

    mode: Mode | None = None
    lines: Mapping[str, int] = field(default_factory=dict)


class WandbTracker:
    """A tracker that tells W&B.

    What was recorded when nobody was told, as in a life begun without `track`, is told first; what
    is recorded again after a restart is told once: offline, W&B's files say which rows they hold.
    What was sent is not to be seen from here, so online the cursor is that of the newest checkpoint
    that had settled: after a kill no row is missing, and those since that checkpoint come twice.

    Should W&B's process die, the life goes on without.

    Args:
      tasks: of the phases.
      told: file of records -> lines of it that W&B has.
    """

    def __init__(
        self,
        folder: RunFolder,
        tasks: Sequence[str],
        run: WandbRun,
        told: Mapping[str, int],
        say: Callable[[str], None],
    ) -> None:
        self._path, self._tasks, self._run, self._say = _cursor_path(folder), tasks, run, say
        self._told = told
        self._lines = dict.fromkeys((kind.file for kind in KINDS), 0)
        self._maker = RowMaker()
        self._saved: deque[tuple[float, dict[str, int]]] = deque()  # seconds, lines

    def record(self, record: Record) -> None:
        self._lines[record.file] += 1
        line = self._lines[record.file]
        if line > self._told.get(record.file, 0):
            self._tell(self._maker.add(line, record))

    def lived(self, clock: Clock) -> None:
        del clock
        self._tell(self._maker.rest())
        self._keep(time.monotonic() - self._run.settling)

    def judging(self, piece: Evaluate) -> None:
        del piece
        self._tell(self._maker.rest())
        self._keep(time.monotonic() - self._run.settling)

    def saved(self) -> None:
        self._tell(self._maker.rest())
        if not self._run.lost:
            self._saved.append((time.monotonic(), dict(self._lines)))

    def closed(self) -> None:
        """All that was told is with W&B, or on the disk."""
        if not self._run.lost:
            self._keep(math.inf)

    def _keep(self, until: float) -> None:
        """Write the cursor of the newest checkpoint that was made until then, in seconds."""
        newest: dict[str, int] | None = None
        while self._saved and self._saved[0][0] <= until:
            _, newest = self._saved.popleft()
        if newest:
            kept = {"mode": self._run.mode, "lines": newest}
            replace_file(self._path, json.dumps(kept).encode(), durable=False)

    def _tell(self, whole: Iterator[Row]) -> None:
        for row in whole:
            if not self._run.lost:
                self._run.log(logged(row, self._tasks))
                if self._run.lost:
                    self._say(f"W&B hears no more of this life, which goes on: {self._run.lost}")


@contextmanager
def tracking_live(
    folder: RunFolder, name: str, say: Callable[[str], None]
) -> Iterator[WandbTracker]:
    """Tell W&B of a life; all that its records hold by now is told on entering.

    Args:
      name: of the life, among others.
    Raises:
      UserError: what the folder says of earlier telling cannot be read.
    """
    recorded, cursor, wandb = load_run(folder.path), load_cursor(folder), Wandb(say)
    tasks = [phase.task for phase in recorded.plan]
    tracker: WandbTracker | None = None
    try:
        what = describe_live(recorded, name)
        with wandb.begin(what, folder.path, cursor.mode) as run:
            if run.mode == "offline":
                say(wandb.how_to_send(folder.path))
            told = dict(cursor.lines) if run.goes_on else {}
            if run.goes_on and run.mode == "offline":
                for row in wandb.records_on_disk(what, folder.path):
                    file, line = rows.last_line(row)
                    told[file] = max(line, told.get(file, 0))
            tracker = WandbTracker(folder, tasks, run, told, say)
            for record in _in_order(recorded):
                tracker.record(record)
            yield tracker
    finally:
        if tracker:
            tracker.closed()


def describe_live(run: RecordedRun, name: str) -> Description:
    """The W&B run of a life while it is lived."""
    tasks = [phase.task for phase in run.plan]
    return describe_run(run, "live", AXES, name=name, title=f"{name} live", tags=tasks)


def logged(row: Row, tasks: Sequence[str]) -> dict[str, float | str]:
    """A row as W&B gets it; what is about the task of the phase stands under `phase/<K>/` too.

    Args:
      tasks: of the phases.
    """
    phase = row.axes["phase"]
    own = own_values(row.values, tasks[phase - 1]) if phase else {}
    phases = {f"phase/{phase}/{n}": v for n, v in own.items() if n.startswith(_BY_PHASE)}
    return {"record": row.record, **row.axes, **row.values, **phases}


def load_cursor(folder: RunFolder) -> Cursor:
    path = _cursor_path(folder)
    if not path.exists():
        return Cursor()
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        lines = {str(file): int(line) for file, line in kept["lines"].items()}
        return Cursor(cast("Mode", kept["mode"]), lines)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path}: damaged ({error}); delete it, and W&B is told everything again"
        ) from error


def _in_order(run: RecordedRun) -> list[Record]:
    """All records by when they were made; those of one file as they lie in it."""
    return sorted([*run.episodes, *run.train, *run.phases], key=_env_steps)


def _env_steps(record: Record) -> int:
    if isinstance(record, PhaseRecord):
        return record.env_steps[1]
    assert isinstance(record, EpisodeRecord | TrainRecord)
    return record.env_steps


def _cursor_path(folder: RunFolder) -> Path:
    return folder.wandb / "live.json"
