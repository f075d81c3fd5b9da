"""Live a curriculum, or go on with a life that was stopped:

python -m continual.run curricula/dmc_then_crafter.yaml [key.path=value …] [--dry-run]
"""

from __future__ import annotations

from continual.backend import draw_with_gl, set_compiler_flags
from continual.cli import run_door
from continual.dry_run import describe
from continual.opening import open_life
from continual.request import parse_request
from continual.running import Opened
from continual.scheduler import Checkpoint, Collect, Done, EndPhase, Evaluate, next_action


def main(argv: list[str]) -> int:
    set_compiler_flags()
    request = parse_request(argv)
    if request.is_dry:
        print(describe(request))
        return 0
    if request.is_filmed:
        draw_with_gl()
    for life in (request, *request.references):
        with open_life(life) as run:
            if code := live(run):
                return code
    return 0


def live(run: Opened) -> int:
    """Do what is next until nothing is left, or until somebody asks to stop; -> exit code."""
    life = run.life
    while True:
        if run.stop.asked:
            run.save()
            run.say_how_to_go_on()
            return 128 + run.stop.signal
        match next_action(run.agenda, life.clock, run.judged, run.saved):
            case Collect(until):
                run.living().until(until, stop=lambda: run.stop.asked)
            case Evaluate() as piece:
                run.evaluate(piece)
            case EndPhase():
                run.end_phase()
            case Checkpoint():
                run.save()
            case Done():
                run.report()
                return 0


if __name__ == "__main__":
    run_door(main)
