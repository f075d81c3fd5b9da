"""The one place that talks to Weights & Biases: for people to look at, never to go on from.

Everything sent is made of records that are on the disk, so it can be sent again. Nothing asks:
there is a key, or what is written stays in the run's folder. Of the machine nothing is told.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

from continual.errors import UserError
from continual.strict_yaml import one_line
from continual.wandb_log import log_records
from eval.run_folder import RecordedRun

Mode = Literal["online", "offline"]
PROJECT = "continual"  # unless WANDB_PROJECT says otherwise
_CONNECT = 30.0  # seconds after which W&B is not to be reached
_UPLOAD = 300.0  # seconds that a finished run waits for its last rows; they are on the disk as well
# Seconds that W&B's process keeps rows to itself; what it has not written dies with us.
_FLUSH = 1.0
_TAG = 64  # characters of a tag that W&B takes
_DIGITS = 6  # of a group's name, by which settings that have no other name are told apart


@dataclass(frozen=True)
class Description:
    """What a W&B run is, before anything is in it.

    Attributes:
      id: the same for the same life, wherever and whenever it is sent.
      job_type: `live`, `life` or `phase K`.
      axes: first part of a metric's name -> the axis that its charts have.
    """

    id: str
    name: str
    group: str
    job_type: str
    tags: tuple[str, ...]
    config: Mapping[str, Any]
    axes: Mapping[str, str]


def describe_run(
    run: RecordedRun,
    job_type: str,
    axes: Mapping[str, str],
    *,
    name: str = "",
    title: str = "",
    tags: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
) -> Description:
    """The W&B run of a life, or of a part of it.

    Args:
      name: of the life; else its folder's.
      title: what is shown, if not the name.
      tags, config: in addition to those of the life.
    """
    name = name or run.name
    plan = [phase.model_dump() for phase in run.plan]
    identity = [name, job_type, run.config, run.curriculum, plan, run.versions, run.ancestry]
    scale, variant = (
        PurePath(text).name.removesuffix(".yaml") for text in (run.scale, run.variant)
    )
    return Description(
        id=content_hash(identity)[:16],
        name=title or name,
        group=f"{run.curriculum}-{scale}-{variant}-{content_hash(run.settings)[:_DIGITS]}",
        job_type=job_type,
        tags=tuple(dict.fromkeys(tag[:_TAG] for tag in (scale, variant, *tags) if tag)),
        config={
            **run.config,
            "life": name,
            "curriculum": run.curriculum,
            "plan": plan,
            "versions": {name: v for name, v in run.versions.items() if name != "machine"},
            **(config or {}),
        },
        axes=axes,
    )


def content_hash(content: Any) -> str:
    """Of anything that JSON can say; 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def refuse_without_wandb(asked: str) -> None:
    """Raises UserError: the package is not installed. `asked`: what needs it."""
    # A folder `wandb`, such as W&B leaves, passes for a package without a file.
    found = importlib.util.find_spec("wandb")
    if found is None or found.origin is None:
        raise UserError(f"{asked}: needs the package wandb: pip install 'continual[wandb]'")


class WandbRun:
    """One W&B run that is being written.

    Attributes:
      mode: whether W&B hears of it, or a folder that can be sent later.
      goes_on: adds to what was sent under its id before; else it takes its place.
      lost: why no more of it is written; empty while all is well. W&B's own process may die.
    """

    def __init__(self, run: Any, mode: Mode, goes_on: bool) -> None:
        self._run, self.mode, self.goes_on, self.lost = run, mode, goes_on, ""

    @property
    def settling(self) -> float:
        """Seconds after which a row that was logged outlives us: is on the disk, or sent."""
        return 30.0 if self.mode == "online" else 2 * _FLUSH

    def log(self, row: Mapping[str, float | str]) -> None:
        """A row; axes are values like others, as W&B drops what goes back on its own axis."""
        self._tell(lambda: self._run.log(dict(row)))

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import wandb

        table = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
        self._tell(lambda: self._run.log({name: table}))

    def log_picture(self, name: str, path: Path, caption: str) -> None:
        import wandb

        picture = wandb.Image(str(path), caption=caption)
        self._tell(lambda: self._run.log({name: picture}))

    def log_files(self, name: str, kind: str, paths: Sequence[Path]) -> None:
        """An artifact: copies of files as they are now."""
        import wandb

        artifact = wandb.Artifact(name, kind)
        for path in paths:
            artifact.add_file(str(path), name=path.name)
        self._tell(lambda: self._run.log_artifact(artifact))

    def summarise(self, values: Mapping[str, float | str]) -> None:
        """What is said of the run as a whole."""
        self._tell(lambda: self._run.summary.update(dict(values)))

    def close(self, failed: bool) -> None:
        """Wait until all of it is sent, or is on the disk."""
        self._tell(lambda: self._run.finish(exit_code=int(failed)))

    def _tell(self, call: Callable[[], object]) -> None:
        if not self.lost:
            try:
                call()
            except OSError as error:
                self.lost = str(error) or type(error).__name__


class Wandb:
    """W&B as this process reaches it.

    Attributes:
      mode: online if a key is found, and until W&B cannot be reached; else offline.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # offline, nothing leaves at all
        self._key = _find_key(say)
        wish = os.environ.get("WANDB_MODE") or "online"
        self.mode: Mode = "online" if self._key and wish == "online" else "offline"

    @contextmanager
    def begin(
        self, what: Description, folder: Path, begun: Mode | None = None
    ) -> Iterator[WandbRun]:
        """Open a W&B run, and close it whatever happens. All its files go to `folder`/wandb.

        Args:
          begun: how this W&B run was written when it was begun, if it goes on. What was begun
            offline is sent whole when W&B can be reached: it begins anew.
        Raises:
          UserError: not even offline.
        """
        place = folder / "wandb"
        place.mkdir(parents=True, exist_ok=True)
        # Files of tables and artifacts wait there to be sent; W&B knows no other way to say where.
        before, os.environ["WANDB_DATA_DIR"] = os.environ.get("WANDB_DATA_DIR"), str(place)
        try:
            run = self._open(what, folder.resolve(), begun)
            failed = True
            try:
                yield run
                failed = False
            finally:
                run.close(failed)
        finally:
            if before is None:
                del os.environ["WANDB_DATA_DIR"]
            else:
                os.environ["WANDB_DATA_DIR"] = before

    def records_on_disk(self, what: Description, folder: Path) -> list[str]:
        """Which rows of a W&B run lie in its offline folders, by the `record` that each names.

        In the order they were told. Behind damage nothing is known to be there.
        """
        from wandb.proto.wandb_internal_pb2 import Record

        found: list[str] = []
        for path in sorted((folder / "wandb").glob(f"offline-run-*-{what.id}/*.wandb")):
            with suppress(ValueError):
                for record in map(Record.FromString, log_records(path)):
                    items = {item.key: item.value_json for item in record.history.item}
                    if "record" in items:
                        found.append(json.loads(items["record"]))
        return found

    def how_to_send(self, folder: Path) -> str:
        """What a person does with what was written offline into a run's folder."""
        why = "written offline" if self._key else "no key was found, so written offline"
        place = shlex.quote(f"{folder}/wandb")
        return f"W&B: {why}. This sends it: wandb login && wandb sync {place}/offline-run-*"

    def _open(self, what: Description, folder: Path, begun: Mode | None) -> WandbRun:
        import wandb

        if self.mode == "online":
            try:
                return self._init(what, folder, "online", begun == "online")
            except wandb.Error as error:
                self.mode = "offline"
                wandb.teardown()  # which would hold on to the id
                self._say(f"W&B cannot be reached, so it is written offline: {_first_line(error)}")
        try:
            return self._init(what, folder, "offline", begun is not None)
        except wandb.Error as error:
            raise UserError(f"W&B cannot be told of {what.name}: {_first_line(error)}") from error

    def _init(self, what: Description, folder: Path, mode: Mode, goes_on: bool) -> WandbRun:
        import wandb

        before = [] if goes_on else list((folder / "wandb").glob(f"offline-run-*-{what.id}*"))
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            id=what.id,
            name=what.name,
            group=what.group,
            job_type=what.job_type,
            tags=what.tags,
            config=dict(what.config),
            mode=mode,
            resume="allow" if goes_on else None,
            reinit="create_new",
            settings=wandb.Settings(
                root_dir=str(folder),
                api_key=self._key if mode == "online" else None,  # else it would look, and may ask
                init_timeout=_CONNECT,
                finish_timeout=_UPLOAD,
                silent=True,
                console="off",
                host="",
                disable_code=True,
                disable_git=True,
                save_code=False,
                x_disable_machine_info=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
                x_transaction_log_flush_interval=_FLUSH,
            ),
        )
        for old in before:  # sent later, it would take the place of what begins now
            shutil.rmtree(old)
        for axis in dict.fromkeys(what.axes.values()):
            run.define_metric(axis, hidden=True)
        for kind, axis in what.axes.items():
            run.define_metric(f"{kind}/*", step_metric=axis)
        if mode == "online":
            self._say(f"W&B: {run.url}")
        return WandbRun(run, mode, goes_on)


def _find_key(say: Callable[[str], None]) -> str | None:
    """Of the environment, W&B's settings or netrc; nobody is asked for one."""
    import wandb
    from wandb.sdk.lib import wbauth

    settings = wandb.setup(settings=wandb.Settings(silent=True)).settings
    try:
        key: str | None = settings.api_key or wbauth.read_netrc_auth(host=settings.base_url)
    except wandb.Error as error:
        say(f"W&B: netrc holds no key that could be used: {_first_line(error)}")
        return None
    return key


def _first_line(error: Exception) -> str:
    """What is wrong; advice about W&B's own settings follows."""
    return one_line(str(error).partition("\n")[0])
