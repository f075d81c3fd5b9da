"""Open-loop pictures: what is shown, what is only told, and how a page holds them."""

from __future__ import annotations

import io
from pathlib import Path

import jax
import matplotlib.image
import numpy as np
import pytest

from agent.agent import make_agent
from agent.open_loop import SEEN
from continual.envs.interface import union
from continual.envs.registry import interface_of, make_world
from continual.pictures import LENGTH, open_loop_picture, play, sequence_batch
from eval.page import _pictures
from tests.agent_cases import tiny

TASKS = ("toy/match", "toy/picture")


@pytest.fixture(scope="module")
def case():
    agent = make_agent(tiny(), union({task: interface_of(task) for task in TASKS}))
    state, world = agent.init(jax.random.key(0)), make_world("toy/picture")
    policy = agent.policy(lambda: state, "toy/picture", "gated", "mode", 0)
    batch = sequence_batch(agent, "toy/picture", play(world, policy, LENGTH, 0))
    return agent, state, world, batch


def test_a_sequence_holds_what_was_seen_and_done(case):
    _, _, _, batch = case
    assert batch.frames.shape == (1, LENGTH, 64, 64, 3)
    first = batch.columns["is_first"][0]
    assert first[0]
    assert first.sum() == 3  # episodes of 21 rows
    assert not batch.columns["action.toy.match"].any()


def changed(batch, frames=None, actions=None):
    columns = dict(batch.columns)
    if actions is not None:
        columns["action.toy.picture"] = actions
    return type(batch)(
        **{**vars(batch), "columns": columns, **({} if frames is None else {"frames": frames})}
    )


def test_frames_beyond_those_shown_are_not_looked_at_and_those_shown_are(case):
    agent, state, _, batch = case
    expected = agent.open_loop(state, batch)
    later, earlier = batch.frames.copy(), batch.frames.copy()
    later[:, SEEN:] = 255 - later[:, SEEN:]
    earlier[:, :SEEN] = 255 - earlier[:, :SEEN]
    np.testing.assert_array_equal(expected, agent.open_loop(state, changed(batch, frames=later)))
    assert not np.array_equal(expected, agent.open_loop(state, changed(batch, frames=earlier)))


def test_an_action_is_told_to_the_frame_after_it_and_to_none_before(case):
    agent, state, _, batch = case
    actions = batch.columns["action.toy.picture"].copy()
    actions[0, 30] = (actions[0, 30] + 1) % 4
    one, other = (
        agent.open_loop(state, batch),
        agent.open_loop(state, changed(batch, actions=actions)),
    )
    np.testing.assert_array_equal(one[:31], other[:31])
    assert not np.array_equal(one[31], other[31])


def test_a_picture_has_three_rows_of_frames_and_is_the_same_every_time(case):
    agent, state, world, batch = case
    picture = open_loop_picture(agent, state, "toy/picture", world, 0)
    pixels = matplotlib.image.imread(io.BytesIO(picture))
    # Every fifth of the 21 rows of its first episode.
    assert pixels.shape[:2] == (3 * 64, 4 * 64)
    assert picture == open_loop_picture(agent, state, "toy/picture", world, 0)
    np.testing.assert_allclose(pixels[:64, :64, 0] * 255, batch.frames[0, 4, :, :, 0], atol=1)


def test_the_page_shows_pictures_by_phase(tmp_path: Path):
    for phase in (2, 1):
        (tmp_path / f"open_loop-phase{phase:04d}-crafter_reward.png").write_bytes(b"png")
    captions = [caption for caption, _ in _pictures(tmp_path, 1000)]
    assert captions == ["crafter_reward, end of phase 1", "crafter_reward, end of phase 2"]
    assert _pictures(tmp_path / "none", 1000) == []


def test_the_page_holds_the_newest_pictures_that_it_has_room_for(tmp_path: Path):
    for phase in range(1, 13):
        picture = tmp_path / f"open_loop-phase{phase:04d}-toy_picture.png"
        picture.write_bytes(bytes(3000))  # 4000 in base64
    captions = [caption for caption, _ in _pictures(tmp_path, 20_000)]
    assert captions == [f"toy_picture, end of phase {phase}" for phase in range(8, 13)]
