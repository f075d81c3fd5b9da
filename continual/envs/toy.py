"""Tiny worlds whose best return is known: an agent that fails in one names its broken part.

Each shows a cue, drawn anew for every time step from the episode's seed, and lasts 20 decisions.

    reach     continuous; reward 1 for the 2-d point shown, less with distance from it; the point
              stays throughout an episode, as a model that pays for what it could not foresee
              would remember a new one at every step but roughly
    match     categorical; reward 1 for naming the class shown
    delay     as match, but the reward comes three steps later: memory and credit over time
    survive   reward 1 a step; naming another class than the one shown is death: termination
    picture   as match, the class shown as the bright quadrant of an image
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from continual import seeding
from continual.envs.interface import IMAGE, Head, Interface, Slot
from continual.envs.world import Action, TimeStep, restart, termination, transition, truncation

DECISIONS = 20
DELAY = 3
CLASSES = 4


@dataclass(frozen=True)
class _Rules:
    """One toy.

    Attributes:
      slot, head: its interface.
      draw: generator, number -> that many cues.
      show: cue -> observation of the slot.
      judge: (cue, action) -> reward in [0, 1].
      delay: time steps by which a reward comes late.
      deadly: a reward of 0 ends the episode.
    """

    slot: Slot
    head: Head
    draw: Callable[[np.random.Generator, int], np.ndarray]
    show: Callable[[np.ndarray], np.ndarray]
    judge: Callable[[np.ndarray, np.ndarray], float]
    delay: int = 0
    deadly: bool = False


def _draw_point(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.repeat(rng.uniform(-1, 1, (1, 2)).astype(np.float32), n, axis=0)


def _draw_classes(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.integers(CLASSES, size=n)


def _one_hot(cue: np.ndarray) -> np.ndarray:
    return np.asarray(np.arange(CLASSES) == cue, np.float32)


def _quadrant(cue: np.ndarray) -> np.ndarray:
    image = np.zeros((64, 64, 3), np.uint8)
    row, column = divmod(int(cue), 2)
    image[32 * row : 32 * row + 32, 32 * column : 32 * column + 32] = 255
    return image


def _closeness(cue: np.ndarray, action: np.ndarray) -> float:
    distance = np.abs(np.clip(action, -1, 1).astype(np.float64) - cue)
    return float(1 - distance.mean() / 2)


def _agreement(cue: np.ndarray, action: np.ndarray) -> float:
    return float(cue == action)


def _classes(name: str, *, delay: int = 0, deadly: bool = False) -> _Rules:
    slot = Slot(f"toy.{name}.cue", (CLASSES,))
    head = Head(f"toy.{name}", "categorical", CLASSES)
    return _Rules(slot, head, _draw_classes, _one_hot, _agreement, delay, deadly)


TASKS: Mapping[str, _Rules] = {
    "reach": _Rules(
        Slot("toy.reach.target", (2,)),
        Head("toy.reach", "continuous", 2),
        _draw_point,
        lambda cue: cue,
        _closeness,
    ),
    "match": _classes("match"),
    "delay": _classes("delay", delay=DELAY),
    "survive": _classes("survive", deadly=True),
    "picture": _Rules(
        Slot(IMAGE, (64, 64, 3), "uint8"),
        Head("toy.picture", "categorical", CLASSES),
        _draw_classes,
        _quadrant,
        _agreement,
    ),
}


def domain(name: str) -> str:
    return name


def make(name: str) -> ToyWorld:
    return ToyWorld(name)


def interface(name: str) -> Interface:
    return Interface((TASKS[name].slot,), (TASKS[name].head,))


def optimal_return(name: str) -> float:
    """The return of the best policy: every decision whose reward still arrives is worth 1."""
    return float(DECISIONS - TASKS[name].delay)


def return_range(name: str) -> tuple[float, float]:
    return 0.0, optimal_return(name)


class ToyWorld:
    """One of the toys, by name."""

    deterministic = True

    def __init__(self, name: str) -> None:
        self._name = name
        self._rules = TASKS[name]
        self.interface = interface(name)

    def reset(self, seed: int) -> TimeStep:
        rng = seeding.generator(seed, f"toy/{self._name}")
        self._cues = self._rules.draw(rng, DECISIONS + 1)
        self._merits: list[float] = []  # of each decision so far
        self._over = False
        return restart(self._observe())

    def step(self, action: Action) -> TimeStep:
        assert not self._over, "step after the last one"
        rules = self._rules
        merit = rules.judge(self._cues[len(self._merits)], action[rules.head.name])
        self._merits.append(merit)
        due = len(self._merits) - 1 - rules.delay
        reward = self._merits[due] if due >= 0 else 0.0
        dead = rules.deadly and merit == 0
        self._over = dead or len(self._merits) == DECISIONS
        end = termination if dead else truncation if self._over else transition
        return end(self._observe(), reward)

    def draw(self) -> np.ndarray | None:
        return self._observe().get(IMAGE)

    def close(self) -> None:
        pass

    def _observe(self) -> dict[str, np.ndarray]:
        return {self._rules.slot.name: self._rules.show(self._cues[len(self._merits)])}
