"""Where was it lost? The door `python -m continual.autopsy runs/NAME [updates=500] [tasks=…]`."""

from __future__ import annotations

import sys
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from continual.backend import keep_compiled_programs, set_compiler_flags
from continual.cli import asked_of_run, run_door
from continual.countdown import Countdown
from continual.examining import Examination, chosen_tasks, load_remains
from continual.files import write_atomically
from continual.section import Section
from eval.autopsy import FILE, autopsy_json
from eval.page import write_report
from eval.wording import where_it_was_lost


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, str) else tuple(value) if type(value) is list else value


class Asked(Section):
    """How a run is looked at."""

    updates: Annotated[int, Field(gt=0)] = Field(
        500, description="of actor and critic in dreams, for each task"
    )
    episodes: Annotated[int, Field(gt=0)] = Field(10, description="of each judgement")
    tasks: Annotated[tuple[str, ...], BeforeValidator(_one_or_more)] = Field(
        (),
        description="a task, or a list of them; else all that were trained before the last phase",
    )


def main(argv: list[str]) -> int:
    set_compiler_flags()
    path, asked = asked_of_run(
        argv,
        Asked,
        prog="continual.autopsy",
        description="Say of each task that was trained in an earlier phase what of it was lost by "
        "the policy and what by the world model. Changes nothing but autopsy.json and the report.",
    )
    keep_compiled_programs()
    remains = load_remains(path)
    tasks = chosen_tasks(remains, asked.tasks)
    examination = Examination(remains, asked.updates, asked.episodes)
    found = []
    with Countdown(examination.work(tasks), sys.stdout) as shown:
        for task in tasks:
            shown.begin(f"looking for what was lost of {task}")
            found.append(examination.examine(task, shown.done))
            shown.say(where_it_was_lost(found[-1]))
    write_atomically(path / FILE, autopsy_json(examination.report(found)))
    print(f"the report: {write_report(path)}")
    return 0


if __name__ == "__main__":
    run_door(main)
