"""A made-up run folder: numbers that look like a life, to test judgement without one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from continual.strict_yaml import dump
from curricula.loader import NamedCurriculum, PlannedPhase, resolved
from eval.records import EpisodeRecord, PhaseRecord, TrainRecord

CUP, WALKER, CRAFTER = "dmc/ball_in_cup_catch", "dmc/walker_walk", "crafter/reward"
# task -> (random, learned, spread, highest)
LEVELS: Mapping[str, tuple[float, float, float, float]] = {
    CUP: (40.0, 950.0, 30.0, 1000.0),
    WALKER: (45.0, 820.0, 40.0, 1000.0),
    CRAFTER: (2.1, 9.5, 1.4, 22.0),
}
STEPS, EVERY, EPISODE = 50_000, 10_000, 1000


class SyntheticRun:
    """Writes the records of a life whose skill rises in a task's own phases and decays elsewhere.

    Args:
      folder: written to.
      plan: task of each phase.
      policies: judged at every evaluation; the first of them lives.
      finished: phases that are over; the next one is half lived. None: all.
      judged: tasks judged beside the trained ones.
      episodes: of one evaluation.
      settings: top-level keys of its config.yaml.
    """

    def __init__(
        self,
        folder: Path,
        *,
        plan: Sequence[str] = (CUP, WALKER, CRAFTER),
        policies: Sequence[str] = ("gated", "dreamer_actor", "awac_actor"),
        finished: int | None = None,
        judged: Sequence[str] = (),
        episodes: int = 6,
        seed: int = 0,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.folder, self.plan, self.policies = folder, list(plan), list(policies)
        self.finished = len(plan) if finished is None else finished
        self.tasks = list(dict.fromkeys([*plan, *judged]))
        self.episodes = episodes
        self.rng = np.random.default_rng(seed)
        self.skill = dict.fromkeys(self.tasks, 0.0)
        self.lines: list[str] = []
        self.phase_lines: list[str] = []
        self.train_lines: list[str] = []
        self._settings(seed, judged, settings or {})

    def write(self) -> Path:
        self._evaluate("before", 0, 0)
        for phase, task in enumerate(self.plan[: self.finished + 1], start=1):
            ends = phase <= self.finished
            for step in range(EVERY, (STEPS if ends else STEPS // 2) + 1, EVERY):
                for t in self.tasks:
                    towards, rate = (0.9, 0.45) if t == task else (0.05, 0.12)
                    self.skill[t] += rate * (towards - self.skill[t])
                self._live(phase, task, step)
                self._train(phase, task, step)
                self._evaluate("end" if step == STEPS else "inside", phase, step)
            if ends:
                self._phase(phase, task)
        records = self.folder / "records"
        records.mkdir()
        (records / "episodes.jsonl").write_text("".join(f"{line}\n" for line in self.lines))
        (records / "train.jsonl").write_text("".join(f"{line}\n" for line in self.train_lines))
        (records / "phases.jsonl").write_text("".join(f"{line}\n" for line in self.phase_lines))
        return self.folder

    def _settings(self, seed: int, judged: Sequence[str], more: Mapping[str, object]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        config = {
            "seed": seed,
            "scale": "laptop",
            "variant": "gated",
            "replay": {"capacity": 1_000_000},
            **more,
        }
        plan = (PlannedPhase(k, 1, task, STEPS) for k, task in enumerate(self.plan, start=1))
        curriculum = NamedCurriculum("dmc_then_crafter", "", None, tuple(plan), tuple(judged))
        ranges = {t: [0.0, LEVELS[t][3]] for t in self.tasks if t in LEVELS}
        (self.folder / "config.yaml").write_text(dump(config))
        (self.folder / "curriculum.yaml").write_text(
            dump(resolved(curriculum) | {"return_ranges": ranges})
        )
        versions = {"python": "3.11.2", "numpy": np.__version__}
        (self.folder / "versions.json").write_text(json.dumps(versions))

    def _live(self, phase: int, task: str, step: int) -> None:
        for episode in range(EVERY // EPISODE):
            at = step - EVERY + (episode + 1) * EPISODE
            self._episode("train", "", phase, at, task, self.policies[0], "sampled", episode, -0.05)

    def _train(self, phase: int, task: str, step: int) -> None:
        """Rows of a phase have left the replay when the next one is half over."""
        held = dict.fromkeys(self.plan[: phase - 1], 0) | {task: 1000 * step}
        if phase > 1 and step <= STEPS // 2:
            held[self.plan[phase - 2]] = 10_000
        record = TrainRecord(
            phase=phase,
            cycle=1,
            task=task,
            phase_step=step,
            env_steps=(phase - 1) * STEPS + step,
            agent_steps=((phase - 1) * STEPS + step) // 2,
            updates=((phase - 1) * STEPS + step) // 16,
            losses={"reward": 0.5},
            diagnostics={"effective_rank": 40.0, "dormant/actor": 0.1, "norm/weight/shared": 90.0},
            gate={},
            riders={},
            by_task={},
            sampled_rows={t: n for t, n in held.items() if n},
            held_rows=held,
            sampled_age=1500.0,
            sampled_latent_age=20.0,
        )
        self.train_lines.append(record.to_json())

    def _evaluate(self, when: str, phase: int, step: int) -> None:
        for task in self.tasks:
            if when == "before":
                self._judge(when, phase, step, task, "random", "sampled", None)
            for i, policy in enumerate(self.policies):
                if policy != "random":
                    modes = ["mode"] if when == "inside" else ["mode", "sampled"]
                    for mode in modes:
                        handicap = -0.04 * i - (0.03 if mode == "sampled" else 0.0)
                        self._judge(when, phase, step, task, policy, mode, handicap)
                elif when != "before":
                    self._judge(when, phase, step, task, policy, "sampled", None)

    def _judge(
        self,
        when: str,
        phase: int,
        step: int,
        task: str,
        policy: str,
        mode: str,
        handicap: float | None,
    ) -> None:
        for episode in range(self.episodes):
            self._episode("eval", when, phase, step, task, policy, mode, episode, handicap)

    def _episode(
        self,
        split: str,
        when: str,
        phase: int,
        step: int,
        task: str,
        policy: str,
        mode: str,
        episode: int,
        handicap: float | None,
    ) -> None:
        low, high, spread, _ = LEVELS.get(task, (0.0, 1.0, 0.1, 1.0))
        learning = handicap is not None and policy != "random"
        skill = max(0.0, self.skill[task] + (handicap or 0.0)) if learning else 0.0
        return_ = low + skill * (high - low) + spread * (0.2 + skill) * self.rng.normal()
        env_steps = max(phase - 1, 0) * STEPS + step
        gate: dict[str, float] = {}
        if policy == "gated":
            n, p = 500, float(np.clip(0.15 + 0.5 * skill + 0.03 * self.rng.normal(), 0, 1))
            chosen = float(self.rng.binomial(n, p)) if mode == "sampled" else n * float(p > 0.5) * p
            gate = {
                "n": n,
                "p": n * p,
                "chosen": chosen,
                "entropy_gap": n * (p - 0.4),
                "divergence": n * 0.8 * (1 - skill),
                "penalty": n * 0.2 * (1 - skill),
            }
        record = EpisodeRecord(
            split=split,
            eval_id="" if split == "train" else f"{phase}@{step}",
            when=when,
            task=task,
            variant="",
            policy=policy,
            action_mode=mode,
            phase=phase,
            cycle=1,
            phase_step=step,
            env_steps=env_steps,
            agent_steps=env_steps // 2,
            updates=env_steps // 16,
            world=episode % 2,
            episode=episode,
            seed=episode,
            return_=float(return_),
            length=500,
            terminated=False,
            gate=gate,
        )
        self.lines.append(record.to_json())

    def _phase(self, phase: int, task: str) -> None:
        start, stop = (phase - 1) * STEPS, phase * STEPS
        record = PhaseRecord(
            phase=phase,
            cycle=1,
            task=task,
            env_steps=(start, stop),
            agent_steps=(start // 2, stop // 2),
            updates=(start // 16, stop // 16),
            boundary="steps",
            replay_shares={task: 1.0},
        )
        self.phase_lines.append(record.to_json())
