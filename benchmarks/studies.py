"""What is measured for the record: studies, their variants, seeds and settings.

A piece is one life. `python benchmarks/results.py` lives those that docs/results/ lacks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

CARTPOLE, CUP, WALKER = "dmc/cartpole_swingup", "dmc/ball_in_cup_catch", "dmc/walker_walk"
REACHER, FINGER = "dmc/reacher_easy", "dmc/finger_spin"
THERE_AND_BACK = "walker_cup_crafter_walker"
# Lives through several tasks: name -> (task, environment steps) of every phase.
PLANS = {
    THERE_AND_BACK: (
        (WALKER, 10_000),
        (CUP, 20_000),
        ("crafter/reward", 1200),
        (WALKER, 10_000),
    ),
}


@dataclass(frozen=True)
class Piece:
    """One life.

    Attributes:
      task: the only one, or the name of a plan.
      label: what is compared in the study: a variant or a setting of it.
      env_steps: of all phases.
      overrides: of the command line, beside scale and seed.
    """

    study: str
    task: str
    label: str
    seed: int
    env_steps: int
    overrides: tuple[str, ...]

    @property
    def phases(self) -> tuple[tuple[str, int], ...]:
        """(task, environment steps) of each."""
        return PLANS.get(self.task, ((self.task, self.env_steps),))

    @property
    def name(self) -> str:
        task = self.task.replace("/", "_")
        return f"{self.study}-{task}-{self.label}-s{self.seed}"


@dataclass(frozen=True)
class Study:
    """Attributes:
    question: what it is for, one sentence.
    env_steps: of a life.
    labels: label -> overrides.
    pairs: (task, label) in the order of the table.
    once: labels that the first seed put aside, and that no further one lives.
    """

    name: str
    question: str
    env_steps: int
    seeds: int
    labels: dict[str, tuple[str, ...]]
    pairs: tuple[tuple[str, str], ...]
    once: tuple[str, ...] = ()

    @property
    def has_plans(self) -> bool:
        """Whether its lives go through several tasks, and so are judged by what they forget."""
        return any(task in PLANS for task, _ in self.pairs)

    def pieces(self) -> Iterator[Piece]:
        """Seed by seed, so that an early stop leaves whole rows."""
        for seed in range(self.seeds):
            for task, label in self.pairs:
                if seed and label in self.once:
                    continue
                yield Piece(self.name, task, label, seed, self.env_steps, self.labels[label])


def led_by_awac(lambda_: float | str, advantage: str, weight: str, beta: float) -> tuple[str, ...]:
    """Overrides of a life that the AWAC rider leads; lambda `null` is that of imagination."""
    rider = {"lambda": lambda_, "advantage": advantage, "weight": weight, "beta": beta}
    return ("variant=awac", *(f"agent.riders.awac.{key}={value}" for key, value in rider.items()))


AWAC_SETTINGS = {
    "report": led_by_awac("null", "percentile", "positive", 0.1),
    "report_beta0.03": led_by_awac("null", "percentile", "positive", 0.03),
    "rms": led_by_awac("null", "rms", "positive", 1),
    "rms_beta0.3": led_by_awac("null", "rms", "positive", 0.3),
    "rms_exp": led_by_awac("null", "rms", "exp", 1),
    "l0.5_rms_exp_b0.3": led_by_awac(0.5, "rms", "exp", 0.3),
    "l0.5_rms_exp_b0.1": led_by_awac(0.5, "rms", "exp", 0.1),
    "l0.8_rms_exp_b0.1": led_by_awac(0.8, "rms", "exp", 0.1),
    "l0_rms_exp_b0.3": led_by_awac(0, "rms", "exp", 0.3),
    "l0_rms_exp_b0.1": led_by_awac(0, "rms", "exp", 0.1),
}
WHOLE = "replay.capacity=31000"  # rows: more than 60,000 steps are, at two steps a decision
GATE_SETTINGS = {
    "default": (),
    "alpha1": ("agent.gate.alpha=1",),
    "alpha20": ("agent.gate.alpha=20",),
    "no_divergence": ("agent.gate.beta_div=0",),
    "bias0.2": ("agent.gate.bias=0.2",),
}
COMPARED = ("gated", "dreamer", "passive")

STUDIES = (
    Study(
        "learning",
        "Does the agent learn at the scale of a laptop? A single task has nothing to forget, so "
        "that DreamerV3's replay may hold the whole life; what AWAC imitates should be recent.",
        60_000,
        3,
        {
            **{name: (f"variant={name}", WHOLE) for name in ("gated", "dreamer")},
            "awac": ("variant=awac", "collect.train_ratio=128"),
        },
        (
            (CUP, "gated"),
            (CARTPOLE, "gated"),
            (WALKER, "gated"),
            (CUP, "dreamer"),
            (CUP, "awac"),
        ),
    ),
    Study(
        "awac_default",
        "Which advantage and which weights should the AWAC rider have? It leads the life, on tasks "
        "that are reported nowhere else. Settings that one life put aside have one seed.",
        40_000,
        2,
        AWAC_SETTINGS,
        tuple((task, label) for task in (REACHER, FINGER) for label in AWAC_SETTINGS),
        once=("rms_exp", "l0.8_rms_exp_b0.1", "l0_rms_exp_b0.3", "l0_rms_exp_b0.1"),
    ),
    Study(
        "gate_sweep",
        "How much hangs on the numbers of the gate? The settings are ours, not those of a paper.",
        24_000,
        2,
        GATE_SETTINGS,
        tuple((CUP, label) for label in GATE_SETTINGS),
    ),
    Study(
        "comparison",
        "What does a second actor change in a life of several tasks? The first task comes back "
        "last.",
        sum(steps for _, steps in PLANS[THERE_AND_BACK]),
        3,
        {name: (f"variant={name}",) for name in COMPARED},
        tuple((THERE_AND_BACK, name) for name in COMPARED),
    ),
)
