"""A picture of what the model expects to see: frames shown, then only the actions told."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence

import matplotlib.image
import numpy as np

from agent.agent import Agent, AgentState
from continual import seeding
from continual.collect import batch_schema
from continual.envs.interact import Moment, Policy, begin, interact
from continual.envs.interface import IMAGE
from continual.envs.world import World
from storage.batch import Batch, Where

LENGTH, EVERY = 50, 5  # decisions, and of how many each the picture shows one


def open_loop_picture(agent: Agent, state: AgentState, task: str, world: World, seed: int) -> bytes:
    """A PNG of three rows: what happened, what the model expected, how far they are apart.

    One policy of the agent plays from a fixed seed, so that pictures of several phases can be
    compared. Each column is a frame, every fifth of the sequence, as far as its first episode goes:
    what a next one begins with nobody can expect. The model was shown the first
    `agent.open_loop.SEEN`.

    Args:
      world: of the task, which shows images; not closed.
    """
    policy = agent.policy(lambda: state, task, agent.policies()[0], "mode", seed)
    moments = play(world, policy, LENGTH, seed)
    batch = sequence_batch(agent, task, moments)
    expected = agent.open_loop(state, batch)
    truth = batch.frames[0] / 255
    apart = (1 + expected - truth) / 2
    (begun,) = np.nonzero(batch.columns["is_first"][0, 1:])
    whole = begun[0] + 1 if len(begun) else LENGTH
    shown = np.stack([truth, expected, apart])[:, EVERY - 1 : whole : EVERY]  # [3, n, 64, 64, 3]
    pixels = np.concatenate(np.concatenate(shown.swapaxes(0, 1), 2))
    pixels = np.clip(pixels * 255, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    matplotlib.image.imsave(file, pixels, format="png")
    return file.getvalue()


def play(world: World, policy: Policy, length: int, seed: int) -> list[Moment]:
    """The first decisions of a policy in one world; a new episode follows one that ends."""
    numbers = itertools.count()

    def next_episode(_: int) -> tuple[int, int]:
        number = next(numbers)
        return number, seeding.stream_seed(seed, "picture", number)

    opened = begin([world], next_episode)
    moments = interact([world], policy, policy.initial(1), opened, next_episode)
    return list(itertools.islice(moments, length))


def sequence_batch(agent: Agent, task: str, moments: Sequence[Moment]) -> Batch:
    """One sequence of an image world as replay would hand it out, from the start of an episode."""
    length, schema = len(moments), batch_schema(agent.union)
    steps = [step for moment in moments for step in moment.timesteps if step is not None]
    columns = {n: np.zeros((1, length, *c.shape), c.dtype) for n, c in schema.items()}
    for t, (moment, step) in enumerate(zip(moments, steps, strict=True)):
        columns["reward"][0, t] = step.reward
        for flag in ("is_first", "is_last", "is_terminal"):
            columns[flag][0, t] = getattr(step, flag)
        for slot, value in step.observation.items():
            if slot != IMAGE:
                columns[f"obs.{slot}"][0, t] = value
        for head, action in moment.actions.items():
            columns[f"action.{head}"][0, t] = action[0]
    nowhere = np.zeros(1, np.int64)
    return Batch(
        columns=columns,
        frames=np.stack([step.observation[IMAGE] for step in steps])[None],
        task=np.array([agent.union.index(task)], np.int32),
        previous={n: np.zeros_like(x[:, 0]) for n, x in columns.items() if n.startswith("action.")},
        context={},
        draw=np.zeros(1, np.int32),
        age=nowhere,
        latent_age=nowhere,
        where=Where(nowhere, nowhere, nowhere),
    )
