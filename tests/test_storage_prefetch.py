"""Copying ahead: it may change when rows are copied, and never which."""

from __future__ import annotations

import json

import numpy as np
import pytest

from continual.errors import UserError
from storage import FRAMES
from storage import replay as module
from tests.storage_cases import (
    CRAFTER,
    CRAFTER_SCHEMA,
    LATENTS,
    UNION,
    WALKER,
    WALKER_SCHEMA,
    fill,
    open_at,
    steps_of,
)

B, T = 16, 8


@pytest.fixture
def copied(monkeypatch):
    """One entry a batch whose rows were copied."""
    found = []
    gather = module.gather_rows
    monkeypatch.setattr(module, "gather_rows", lambda *a: (found.append(1), gather(*a))[1])
    return found


def live(folder, ahead=None, worlds=2, updates=40):
    """Learn at every fourth append, across evictions; -> all that the batches held.

    Args:
      ahead: rows that are guessed to come before the next batch; None: nothing is copied ahead.
    """
    replay = open_at(folder, capacity=300)
    fill(replay, WALKER, WALKER_SCHEMA, 100)
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 60, worlds)
    found = []
    for update in range(updates):
        fill(replay, CRAFTER, CRAFTER_SCHEMA, 4, worlds)
        batch = replay.sample(np.random.default_rng(update), B, T, UNION)
        if ahead is not None:
            replay.prefetch(np.random.default_rng(update + 1), B, T, UNION, ahead)
        found += [batch.age, batch.latent_age, batch.task, batch.draw, batch.where.row]
        found += [batch.frames, *batch.columns.values(), *batch.previous.values()]
        found += batch.context.values()
        new = {n: np.full((B, T, *c.shape), update, c.dtype) for n, c in LATENTS.items()}
        replay.write_latents(batch.where, new)
    replay.close()
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return live(tmp_path_factory.mktemp("undisturbed") / "replay")


@pytest.mark.parametrize(("ahead", "most"), [(8, 79), (0, 80), (800, 80)])
def test_batches_are_those_without_copying_ahead_whether_the_guess_is_right_or_wrong(
    tmp_path, undisturbed, copied, ahead, most
):
    found = live(tmp_path / "replay", ahead)
    assert len(found) == len(undisturbed)
    for ours, theirs in zip(found, undisturbed, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(copied) <= most


def test_a_batch_that_was_guessed_right_is_copied_once(tmp_path, copied):
    replay = open_at(tmp_path / "replay")
    fill(replay, WALKER, WALKER_SCHEMA, 500)
    replay.prefetch(np.random.default_rng(3), B, T, UNION, 1)
    fill(replay, WALKER, WALKER_SCHEMA, 1)
    batch = replay.sample(np.random.default_rng(3), B, T, UNION)
    assert len(copied) == 1
    assert (batch.age == 500 - steps_of(batch)[:, -1]).all()
    replay.close()


def test_latents_written_after_the_copying_began_are_handed_out(tmp_path, copied):
    replay = open_at(tmp_path / "replay")
    fill(replay, WALKER, WALKER_SCHEMA, 60)
    first = replay.sample(np.random.default_rng(0), 60, 40, UNION)
    replay.prefetch(np.random.default_rng(3), B, T, UNION, 0)
    new = {n: np.full((60, 40, *c.shape), 77, c.dtype) for n, c in LATENTS.items()}
    replay.write_latents(first.where, new)
    batch = replay.sample(np.random.default_rng(3), B, T, UNION)
    written = np.isin(steps_of(batch)[:, 0] - 1, steps_of(first))
    assert written.any()
    assert (batch.context["latent.deter"][written] == 77).all()
    assert (batch.latent_age == np.where(written, 0, 1)).all()
    assert len(copied) == 2
    replay.close()


def test_what_goes_wrong_while_copying_ahead_is_said_when_the_batch_is_asked_for(tmp_path):
    replay = open_at(tmp_path / "replay")
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 60)
    replay.sample(np.random.default_rng(0), B, T, UNION)  # the newest rows are in their file now
    (path,) = (tmp_path / "replay" / CRAFTER.name / FRAMES).glob("c.*")
    path.write_bytes(b"")
    replay.prefetch(np.random.default_rng(3), B, T, UNION, 0)
    with pytest.raises(UserError, match="has 0 bytes, expected"):
        replay.sample(np.random.default_rng(3), B, T, UNION)
    replay.close()


def test_a_rewind_drops_what_was_copied_ahead(tmp_path, copied):
    replay = open_at(tmp_path / "replay")
    fill(replay, WALKER, WALKER_SCHEMA, 60)
    cursor = json.loads(json.dumps(replay.commit()))
    replay.prefetch(np.random.default_rng(3), B, T, UNION, 0)
    replay.rewind(cursor)
    replay.sample(np.random.default_rng(3), B, T, UNION)
    assert len(copied) == 2
    replay.close()


def test_the_age_of_latents_counts_batches_written_back_since(tmp_path):
    replay = open_at(tmp_path / "replay")
    fill(replay, WALKER, WALKER_SCHEMA, 40)
    last = dict.fromkeys(range(40), 0)  # row -> writes when its latents were last written
    for number in range(1, 30):
        batch = replay.sample(np.random.default_rng(number), 2, 5, UNION)
        previous = steps_of(batch)[:, 0] - 1
        assert batch.latent_age.tolist() == [number - 1 - last[step] for step in previous.tolist()]
        new = {n: np.zeros((2, 5, *c.shape), c.dtype) for n, c in LATENTS.items()}
        replay.write_latents(batch.where, new)
        last.update(dict.fromkeys(steps_of(batch).ravel().tolist(), number))
        fill(replay, WALKER, WALKER_SCHEMA, 1)
        last[39 + number] = number
        if number % 7 == 0:
            replay.rewind(replay.commit())
    replay.close()
