"""The door `python -m continual.rollout runs/NAME [phase=2] [task=…] [video=out.mp4]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from continual.backend import draw_with_gl
from continual.cli import asked_of_run, run_door
from continual.section import Section
from continual.trained import load_trained
from continual.videos import play, refuse_another_suffix, refuse_without_av, write_video


class Asked(Section):
    """What is to be seen of a run."""

    phase: Annotated[int, Field(ge=1)] | None = Field(
        None, description="the agent as it was at the end of this phase; else the newest"
    )
    task: str = Field("", description="one of the run's; else the last that was trained")
    policy: str = Field("", description="gated, dreamer_actor …; else the one that lived")
    action_mode: Literal["mode", "sampled"] = Field(
        "mode", description="modes of the distributions, or sampled as lived"
    )
    episodes: Annotated[int, Field(gt=0)] = Field(1, description="how many")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="of the first one")
    video: str = Field("", description="a film of them, .mp4 or .gif")


def main(argv: list[str]) -> int:
    run, asked = asked_of_run(
        argv,
        Asked,
        prog="continual.rollout",
        description="Let a run's agent act, and say what comes of it.",
    )
    video = Path(asked.video) if asked.video else None
    if video:
        refuse_another_suffix(video)
        refuse_without_av()
        draw_with_gl()
    trained = load_trained(run, asked.phase)
    task = asked.task or trained.lived[-1]
    env = trained.make_env(task)
    act = trained.policy(task, asked.policy or None, asked.action_mode)
    frames: list[np.ndarray] = []
    for seed in range(asked.seed, asked.seed + asked.episodes):
        played = play(env, act, seed, draw=video is not None)
        frames += played.frames
        print(
            f"{task} seed {seed}: return {played.episode_return:.1f}, {played.decisions} decisions"
        )
    env.close()
    if video:
        write_video(video, frames, env.metadata["render_fps"])
        print(f"the film: {video}")
    return 0


if __name__ == "__main__":
    run_door(main)
