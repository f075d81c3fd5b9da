"""The border of the replay: what is held, handed out, written back, and what stays on disk."""

import json
import os
import signal
import subprocess
import textwrap

import numpy as np
import pytest
import xarray
import zarr

from continual.errors import UserError
from storage import FRAMES, Column, StreamId
from storage.block import block_length
from tests.storage_cases import (
    CRAFTER,
    CRAFTER_SCHEMA,
    LATENTS,
    UNION,
    WALKER,
    WALKER_SCHEMA,
    L,
    content,
    fill,
    open_at,
    rows_at,
    seen_steps,
    sizes_on_disk,
    steps_of,
)
from tests.storage_life import in_a_process


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "replay"


@pytest.fixture
def replay(folder):
    replay = open_at(folder)
    yield replay
    replay.close()


# What is held


@pytest.mark.parametrize("appended", [99, 100, 101, 350])
def test_exactly_the_newest_rows_can_be_sampled_up_to_the_brim_and_beyond(folder, appended):
    replay = open_at(folder, capacity=100)
    fill(replay, WALKER, WALKER_SCHEMA, appended)
    assert replay.rows == appended
    assert replay.held_rows() == {WALKER.task: min(appended, 100)}
    assert seen_steps(replay) == set(range(max(0, appended - 100), appended))
    replay.close()


def test_rows_of_all_streams_and_worlds_share_one_window(folder):
    replay = open_at(folder, capacity=50)
    fill(replay, WALKER, WALKER_SCHEMA, 20, worlds=3)
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 10, worlds=4)
    assert replay.held_rows() == {WALKER.task: 10, CRAFTER.task: 40}
    # Rows 50..59 of 3 worlds: the cut goes through the middle of an append.
    assert seen_steps(replay) == set(range(50, 100))
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 3, worlds=4)
    assert replay.held_rows() == {WALKER.task: 0, CRAFTER.task: 50}
    replay.close()


def test_held_bytes_are_those_of_the_held_rows(replay):
    assert replay.nbytes_held == 0
    fill(replay, WALKER, WALKER_SCHEMA, 7, worlds=2)
    # obs 4 + 8, action 8, reward 4, is_last 1, env_step 8, latents 8 + 3 + 8, step 8
    assert replay.nbytes_held == 14 * 60


def test_ready_as_soon_as_one_world_has_a_context_row_and_a_sequence(replay):
    with pytest.raises(ValueError, match="no world holds 2 rows in a row yet"):
        replay.sample(np.random.default_rng(0), 2, 1, UNION)
    fill(replay, WALKER, WALKER_SCHEMA, 5, worlds=3)
    assert replay.sample(np.random.default_rng(0), 2, 4, UNION).columns["reward"].shape == (2, 4)
    with pytest.raises(ValueError, match="no world holds 6 rows in a row yet"):
        replay.sample(np.random.default_rng(0), 2, 5, UNION)


def test_a_stream_that_was_wholly_evicted_can_go_on(folder):
    replay = open_at(folder, capacity=50)
    fill(replay, WALKER, WALKER_SCHEMA, 30)
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 60)
    cursor = replay.commit()
    fill(replay, WALKER, WALKER_SCHEMA, 10)
    assert seen_steps(replay) == set(range(50, 100))
    replay.commit()
    replay.rewind(cursor)
    assert replay.held_rows() == {WALKER.task: 0, CRAFTER.task: 50}
    fill(replay, WALKER, WALKER_SCHEMA, 10)
    assert seen_steps(replay) == set(range(50, 100))
    replay.close()


# What is handed out


def test_a_sequence_stays_in_one_world_of_one_stream_and_carries_its_context(replay):
    fill(replay, WALKER, WALKER_SCHEMA, 70, worlds=3)  # 42 rows of each world in a block
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 50, worlds=16)  # 8 rows of each world in a block
    batch = replay.sample(np.random.default_rng(1), 200, 20, UNION)
    steps, previous = steps_of(batch), batch.context["latent.deter"][:, 0].astype(int)
    is_walker = batch.task == 0
    assert 0 < is_walker.sum() < 200
    for b in range(200):
        stride = 3 if is_walker[b] else 16
        assert (np.diff(steps[b], prepend=previous[b]) == stride).all()
        assert (previous[b] < 210) == is_walker[b] == (steps[b, -1] < 210)


def test_every_column_of_a_batch_is_what_was_appended(replay):
    fill(replay, WALKER, WALKER_SCHEMA, 300)
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 40, worlds=2)
    batch = replay.sample(np.random.default_rng(2), 64, 5, UNION)
    steps, context = steps_of(batch), batch.context["latent.deter"][:, 0].astype(int)
    assert batch.columns.keys() == UNION.keys()
    for b in range(64):
        schema = (WALKER_SCHEMA, CRAFTER_SCHEMA)[batch.task[b]]
        for name, column in UNION.items():
            expected = content(column, steps[b]) if name in schema else 0
            np.testing.assert_array_equal(batch.columns[name][b], expected)
            assert batch.columns[name].dtype == column.dtype
        for name in ("action.dmc.walker", "action.crafter"):
            expected = content(UNION[name], context[b : b + 1])[0] if name in schema else 0
            np.testing.assert_array_equal(batch.previous[name][b], expected)
        for name, column in LATENTS.items():
            np.testing.assert_array_equal(batch.context[name][b], content(column, context[b])[0])
    assert batch.previous.keys() == {"action.dmc.walker", "action.crafter"}


def test_image_sequences_come_first_and_surplus_frames_are_zero(replay):
    fill(replay, WALKER, WALKER_SCHEMA, 60)
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 30)
    sizes = set()
    for seed in range(20):
        batch = replay.sample(np.random.default_rng(seed), 7, 3, UNION)
        images = int((batch.task == 1).sum())
        assert (batch.task[:images] == 1).all()
        assert sorted(batch.draw.tolist()) == list(range(7))
        assert (np.diff(batch.draw[:images]) > 0).all()
        assert (np.diff(batch.draw[images:]) > 0).all()
        sizes.add(len(batch.frames))
        frames = content(CRAFTER_SCHEMA[FRAMES], steps_of(batch)[:images].ravel())
        np.testing.assert_array_equal(batch.frames[:images].reshape(frames.shape), frames)
        assert not batch.frames[images:].any()
        assert batch.frames.dtype == np.uint8
    assert sizes <= {0, 4, 7}
    assert {4, 7} & sizes


def test_a_batch_without_images_has_no_frames_but_their_shape(replay):
    fill(replay, WALKER, WALKER_SCHEMA, 10)
    assert replay.sample(np.random.default_rng(0), 4, 3, UNION).frames.shape == (0, 3, 64, 64, 3)


def test_age_counts_agent_steps_from_the_last_row_of_a_sequence(replay):
    fill(replay, WALKER, WALKER_SCHEMA, 40, worlds=2)
    batch = replay.sample(np.random.default_rng(0), 30, 6, UNION)
    np.testing.assert_array_equal(batch.age, 79 - steps_of(batch)[:, -1])


def test_a_batch_is_a_function_of_generator_and_rows_not_of_commits(folder, tmp_path):
    drawn = []
    for name, commits in [("a", False), ("b", True)]:
        replay = open_at(tmp_path / name, capacity=200)
        replay.open_stream(WALKER, WALKER_SCHEMA, 2)
        for k in range(150):
            replay.append(WALKER, rows_at(WALKER_SCHEMA, replay.rows, 2))
            if commits and k % 40 == 0:
                replay.rewind(json.loads(json.dumps(replay.commit())))
        drawn.append(replay.sample(np.random.default_rng(5), 32, 10, UNION))
        replay.close()
    np.testing.assert_array_equal(steps_of(drawn[0]), steps_of(drawn[1]))


# What is rejected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": np.zeros(1, np.float64)}, "float64, expected .* float32"),
        ({"reward": np.zeros(2, np.float32)}, r"\(2,\) float32, expected \(1,\)"),
        ({"reward": None}, r"missing: \['reward'\]"),
        ({"gate.p": np.zeros(1, np.float32)}, r"not of its stream: \['gate.p'\]"),
        ({"step": np.zeros(1, np.int64)}, r"not of its stream: \['step'\]"),
    ],
)
def test_a_row_that_does_not_fit_its_schema_adds_nothing(replay, change, message):
    fill(replay, WALKER, WALKER_SCHEMA, 3)
    rows = {n: v for n, v in (rows_at(WALKER_SCHEMA, 3) | change).items() if v is not None}
    with pytest.raises(ValueError, match=message):
        replay.append(WALKER, rows)
    assert replay.rows == 3
    assert replay.held_rows() == {WALKER.task: 3}


def test_a_row_is_taken_whatever_the_order_and_the_strides_of_its_columns(replay):
    for step in range(30):
        rows = rows_at(WALKER_SCHEMA, step)
        gaps = {n: np.repeat(v, 2, axis=-1)[..., ::2] for n, v in reversed(rows.items())}
        replay.open_stream(WALKER, WALKER_SCHEMA, 1)
        replay.append(WALKER, gaps)
    batch = replay.sample(np.random.default_rng(0), 20, 5, UNION)
    for name, column in WALKER_SCHEMA.items():
        expected = content(column, steps_of(batch).ravel())
        np.testing.assert_array_equal(batch.columns[name], expected.reshape(20, 5, *column.shape))


@pytest.mark.parametrize("name", ["step", "latent.deter", "obs/x"])
def test_reserved_names_cannot_be_columns(replay, name):
    with pytest.raises(ValueError, match="not free"):
        replay.open_stream(WALKER, {name: Column((), "float32")}, 1)


def test_a_stream_cannot_go_on_with_other_columns_or_worlds(replay):
    fill(replay, WALKER, WALKER_SCHEMA, 3)
    with pytest.raises(UserError, match="parallel worlds 1, expected 2"):
        replay.open_stream(WALKER, WALKER_SCHEMA, 2)
    with pytest.raises(UserError, match=r"column 'obs.dmc.walker.speed'.*2.*expected None"):
        replay.open_stream(
            WALKER, {n: c for n, c in WALKER_SCHEMA.items() if n != "obs.dmc.walker.speed"}, 1
        )


def test_an_unknown_task_is_named_with_the_nearest(replay):
    with pytest.raises(ValueError, match="did you mean 'dmc/walker_walk'"):
        replay.open_stream(StreamId(1, "dmc/walker_wlk"), WALKER_SCHEMA, 1)


# Latents


def test_written_latents_come_back_as_context(replay):
    fill(replay, WALKER, WALKER_SCHEMA, 200)
    batch = replay.sample(np.random.default_rng(0), 400, 10, UNION)
    steps = steps_of(batch)
    new = {
        "latent.deter": np.repeat(steps[..., None] + 500, 4, -1).astype(np.float16),
        "latent.stoch": np.repeat(steps[..., None] % 100, 3, -1).astype(np.uint8),
    }
    assert replay.write_latents(batch.where, new) == 4000
    written = set(steps.ravel().tolist())
    later = replay.sample(np.random.default_rng(1), 100, 1, UNION)
    previous = steps_of(later)[:, 0] - 1
    changed = np.isin(previous, list(written))
    assert changed.sum() > 50
    np.testing.assert_array_equal(
        later.context["latent.deter"][:, 0], np.where(changed, previous + 500, previous)
    )
    np.testing.assert_array_equal(
        later.context["latent.stoch"][:, 0], np.where(changed, previous % 100, previous % 251)
    )


def test_latents_of_rows_evicted_meanwhile_are_skipped(folder):
    replay = open_at(folder, capacity=100)
    fill(replay, WALKER, WALKER_SCHEMA, 100)
    batch = replay.sample(np.random.default_rng(0), 50, 8, UNION)
    new = (steps_of(batch) + 100).astype(np.uint8)
    latents = {
        "latent.deter": np.zeros((50, 8, 4), np.float16),
        "latent.stoch": np.repeat(new[..., None], 3, -1),
    }
    fill(replay, WALKER, WALKER_SCHEMA, 30)
    assert replay.write_latents(batch.where, latents) == (steps_of(batch) >= 30).sum()
    later = replay.sample(np.random.default_rng(1), 300, 1, UNION)
    previous = steps_of(later)[:, 0] - 1
    written = np.isin(previous, steps_of(batch))
    expected = content(LATENTS["latent.stoch"], previous)
    expected[written] = (previous[written, None] + 100).astype(np.uint8)
    np.testing.assert_array_equal(later.context["latent.stoch"], expected)
    fill(replay, WALKER, WALKER_SCHEMA, 300)
    assert replay.write_latents(batch.where, latents) == 0
    replay.close()


def test_without_stored_context_nothing_is_kept_or_handed_out(folder):
    replay = open_at(folder, context="zero")
    fill(replay, WALKER, WALKER_SCHEMA, 30)
    batch = replay.sample(np.random.default_rng(0), 8, 4, UNION)
    assert not batch.context
    assert replay.write_latents(batch.where, {}) == 0
    replay.commit()
    assert not list(folder.rglob("latent*"))
    replay.close()


# On disk


def test_a_committed_stream_opens_with_zarr_and_xarray(replay, folder):
    fill(replay, WALKER, WALKER_SCHEMA, 100, worlds=2)
    replay.commit()
    fill(replay, WALKER, WALKER_SCHEMA, 70, worlds=2)  # a block more on disk, not yet published
    group = zarr.open_group(folder / "phase_0001_dmc_walker_walk", mode="r")
    steps = np.arange(200).reshape(100, 2).T
    assert dict(group.attrs) | {"format": 0} == {
        "format": 0,
        "version": 2,
        "phase": 1,
        "task": "dmc/walker_walk",
        "rows": 100,
        "first_row": 0,
    }
    numbers = dict.fromkeys(("step", "latent.written"), Column((), "int64"))
    columns = {**WALKER_SCHEMA, **LATENTS, **numbers}
    assert set(group.array_keys()) == columns.keys()
    for name, column in columns.items():
        array = group[name]
        assert array.metadata.dimension_names[:2] == ("world", "row")
        expected = {"step": steps, "latent.written": np.zeros(200)}.get(name)
        expected = content(column, steps.ravel()) if expected is None else expected
        np.testing.assert_array_equal(array[:], expected.reshape(2, 100, *column.shape))
    dataset = xarray.open_zarr(folder / "phase_0001_dmc_walker_walk")
    assert dataset.sizes["row"] == 100
    assert dataset["obs.dmc.walker.speed"].dims == ("world", "row", "obs.dmc.walker.speed_dim0")
    np.testing.assert_array_equal(dataset["env_step"], steps)
    dataset.close()


@pytest.mark.filterwarnings("ignore:Object at (LOCK|commits)")  # zarr looks at every name
def test_the_whole_replay_opens_as_one_tree(replay, folder):
    fill(replay, WALKER, WALKER_SCHEMA, 20)
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 10)
    replay.commit()
    with xarray.open_datatree(folder, engine="zarr", consolidated=False) as tree:
        assert set(tree.children) == {"phase_0001_dmc_walker_walk", "phase_0002_crafter_reward"}
        assert tree["phase_0002_crafter_reward"][FRAMES].shape == (1, 10, 64, 64, 3)


def test_evicted_blocks_read_as_absent(folder):
    replay = open_at(folder, capacity=150)
    fill(replay, WALKER, WALKER_SCHEMA, 4 * L)
    replay.commit()
    replay.release()
    group = zarr.open_group(folder / "phase_0001_dmc_walker_walk", mode="r")
    first = group.attrs["first_row"]
    assert first == 4 * L - 150
    np.testing.assert_array_equal(group["step"][0, : 2 * L], -1)
    np.testing.assert_array_equal(group["step"][0, first:], np.arange(first, 4 * L))
    assert {group[name].shape[1] for name in group.array_keys()} == {4 * L}
    replay.close()


def test_disk_stays_bounded_over_ten_times_the_capacity(folder):
    capacity, interval = 500, 150
    replay = open_at(folder, capacity=capacity)
    nbytes = 60
    bound = (capacity + interval + 2 * L) * nbytes * 1.02
    replay.open_stream(WALKER, WALKER_SCHEMA, 1)
    for k in range(10 * capacity):
        replay.append(WALKER, rows_at(WALKER_SCHEMA, k))
        if k % interval == 0:
            replay.commit()
            replay.release()
        if k % 50 == 0:
            assert sizes_on_disk(folder) <= bound
    assert sizes_on_disk(folder) > capacity * nbytes / 2
    replay.close()


@pytest.mark.parametrize(
    ("capacity", "worlds", "row", "expected"),
    [
        (200_000, 1, 12_300, 3125),  # pictures: a 64th of the capacity
        (10**6, 1, 12_300, 4096),
        (200_000, 1, 118, 25_000),  # small rows: an eighth of it
        (200_000, 1, None, 3125),  # unless rows go by blocks
        (2000, 1, 118, 250),  # or the replay is small
        (500, 1, 118, 128),
        (200_000, 16, 118, 1562),  # over all worlds
        (10**6, 1, 118, 35_544),  # or 4 MiB of them
        (500, 32, 118, 8),
    ],
)
def test_blocks_are_small_beside_the_capacity_and_no_smaller_than_is_of_use(
    capacity, worlds, row, expected
):
    assert block_length(capacity, worlds, of_small_rows=row) == expected


# Surviving


def test_a_commit_comes_back_bit_for_bit_and_nothing_after_it(folder):
    replay = open_at(folder, capacity=300)
    fill(replay, WALKER, WALKER_SCHEMA, 90, worlds=2)
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 70, worlds=2)
    before = replay.sample(np.random.default_rng(4), 64, 9, UNION)
    held, cursor = replay.held_rows(), json.loads(json.dumps(replay.commit()))
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 200, worlds=2)
    replay.open_stream(StreamId(3, WALKER.task), WALKER_SCHEMA, 1)
    replay.close()

    replay = open_at(folder, capacity=300)
    replay.rewind(cursor)
    assert (replay.rows, replay.held_rows()) == (320, held)
    after = replay.sample(np.random.default_rng(4), 64, 9, UNION)
    for kind in ("columns", "previous", "context"):
        for name, values in getattr(before, kind).items():
            np.testing.assert_array_equal(getattr(after, kind)[name], values)
    np.testing.assert_array_equal(after.frames, before.frames)
    np.testing.assert_array_equal(after.where.row, before.where.row)
    np.testing.assert_array_equal(after.age, before.age)
    assert {p.name for p in folder.glob("phase_*")} == {WALKER.name, CRAFTER.name}
    steps = zarr.open_group(folder / CRAFTER.name, mode="r")["step"]
    assert steps.shape == (2, 70)
    blocks = {p.name for p in (folder / CRAFTER.name / "step").glob("c.*")}
    assert blocks == {"c.0.0", "c.0.1"}
    assert (np.fromfile(folder / CRAFTER.name / "step/c.0.1", np.int64) == -1).sum() == 2 * 58
    replay.close()


def test_latents_of_the_last_commit_come_back(folder):
    replay = open_at(folder)
    fill(replay, WALKER, WALKER_SCHEMA, 150)
    batch = replay.sample(np.random.default_rng(0), 20, 10, UNION)

    def write(value):
        deter = np.full((20, 10, 4), value, np.float16)
        stoch = np.full((20, 10, 3), value, np.uint8)
        replay.write_latents(batch.where, {"latent.deter": deter, "latent.stoch": stoch})

    write(7)
    cursor = replay.commit()
    write(8)
    fill(replay, WALKER, WALKER_SCHEMA, 150)  # seals the block that the commit wrote half full
    replay.close()
    replay = open_at(folder)
    replay.rewind(cursor)
    latents = zarr.open_group(folder / WALKER.name, mode="r")["latent.stoch"][0, :, 0]
    written = sorted({int(s) for s in steps_of(batch).ravel()})
    np.testing.assert_array_equal(latents[written], 7)
    context = replay.sample(np.random.default_rng(1), 200, 1, UNION)
    previous = steps_of(context)[:, 0] - 1
    np.testing.assert_array_equal(
        context.context["latent.stoch"][:, 0], np.where(np.isin(previous, written), 7, previous)
    )
    replay.close()


def test_latents_written_and_appended_between_two_commits_come_back(replay):
    fill(replay, WALKER, WALKER_SCHEMA, 50)
    replay.commit()
    batch = replay.sample(np.random.default_rng(0), 10, 20, UNION)
    nines = {n: np.full((10, 20, *c.shape), 9, c.dtype) for n, c in LATENTS.items()}
    replay.write_latents(batch.where, nines)
    replay.rewind(replay.commit())
    fill(replay, WALKER, WALKER_SCHEMA, 20)
    replay.rewind(replay.commit())
    later = replay.sample(np.random.default_rng(1), 500, 1, UNION)
    previous = steps_of(later)[:, 0] - 1
    expected = np.where(np.isin(previous, steps_of(batch)), 9, previous)
    assert {0, 49, 50, 68} <= set(previous.tolist())
    np.testing.assert_array_equal(later.context["latent.deter"][:, 0], expected)


def test_the_commit_before_the_last_can_still_be_rewound_to(folder):
    replay = open_at(folder, capacity=200)
    cursors = []
    for _ in range(4):
        fill(replay, WALKER, WALKER_SCHEMA, 500)
        cursors.append(replay.commit())
    replay.rewind(cursors[2])
    assert seen_steps(replay) == set(range(1300, 1500))
    with pytest.raises(UserError, match="is missing"):
        replay.rewind(cursors[0])
    assert replay.rows == 1500
    replay.close()


def test_rewinding_to_nothing_empties_memory_and_disk(replay, folder):
    fill(replay, WALKER, WALKER_SCHEMA, 300)
    replay.commit()
    replay.rewind(None)
    assert (replay.rows, replay.held_rows(), replay.nbytes_held) == (0, {}, 0)
    assert not list(folder.glob("phase_*"))
    fill(replay, WALKER, WALKER_SCHEMA, 5)
    assert seen_steps(replay) == set(range(5))


def test_an_old_folder_takes_no_rows_before_it_was_rewound(folder):
    replay = open_at(folder)
    fill(replay, WALKER, WALKER_SCHEMA, 5)
    cursor = replay.commit()
    replay.close()
    replay = open_at(folder)
    with pytest.raises(AssertionError, match="rewind first"):
        replay.open_stream(WALKER, WALKER_SCHEMA, 1)
    replay.rewind(cursor)
    assert replay.held_rows() == {WALKER.task: 5}
    replay.close()


@pytest.mark.parametrize("moment", [0.05, 0.2, 0.4])
def test_a_killed_writer_loses_nothing_that_was_committed(folder, moment):
    program = f"""
        import json
        from pathlib import Path
        from tests.storage_cases import *
        replay = open_at(Path({str(folder)!r}), capacity=400)
        replay.open_stream(WALKER, WALKER_SCHEMA, 2)
        while True:
            for _ in range(50):
                replay.append(WALKER, rows_at(WALKER_SCHEMA, replay.rows, 2))
            print(json.dumps(replay.commit()), flush=True)
    """
    with subprocess.Popen(
        in_a_process(textwrap.dedent(program)), stdout=subprocess.PIPE, text=True
    ) as child:
        lines = [child.stdout.readline() for _ in range(3)]
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(moment)
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
    cursor = json.loads([line for line in lines if line.endswith("\n")][-1])
    replay = open_at(folder, capacity=400)
    replay.rewind(cursor)
    assert replay.held_rows() == {WALKER.task: min(400, cursor["rows"])}
    batch = replay.sample(np.random.default_rng(0), 64, 20, UNION)
    steps = batch.columns["env_step"]
    assert (np.diff(steps) == 2).all()
    for name, column in WALKER_SCHEMA.items():
        expected = content(column, steps.ravel()).reshape(batch.columns[name].shape)
        np.testing.assert_array_equal(batch.columns[name], expected)
    replay.close()


# Faults


def test_a_second_writer_is_told_who_holds_the_lock(replay, folder):
    with pytest.raises(UserError, match=f"in use by process {os.getpid()} on"):
        open_at(folder)
    replay.close()
    open_at(folder).close()


def test_a_folder_of_something_else_is_left_alone(folder):
    folder.mkdir()
    (folder / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match=r"not a replay folder \(found 'thesis.tex'\)"):
        open_at(folder)
    assert [p.name for p in folder.iterdir()] == ["thesis.tex"]


def test_a_zarr_group_of_something_else_is_left_alone(folder):
    zarr.create_group(folder, attributes={"format": "weather"})
    with pytest.raises(UserError, match="weather"):
        open_at(folder)
    assert [p.name for p in folder.iterdir()] == ["zarr.json"]


def test_a_replay_whose_own_metadata_is_lost_goes_on(folder):
    replay = open_at(folder)
    fill(replay, WALKER, WALKER_SCHEMA, 70)
    cursor = replay.commit()
    replay.close()
    (folder / "zarr.json").write_text("{")
    with pytest.raises(UserError, match="capacity of 1000 rows, expected 2000 rows"):
        open_at(folder, capacity=2000)
    replay = open_at(folder)
    replay.rewind(cursor)
    assert seen_steps(replay) == set(range(70))
    assert zarr.open_group(folder, mode="r").attrs["capacity"] == {"size": 1000, "unit": "rows"}
    replay.close()


def test_a_folder_whose_making_was_cut_short_is_made(folder):
    folder.mkdir()
    (folder / "LOCK").touch()
    (folder / "zarr.json.1.partial").touch()
    open_at(folder).close()


@pytest.mark.parametrize("where", [".", WALKER.name, f"{WALKER.name}/reward"])
def test_what_a_kill_left_half_written_stops_nobody_and_is_swept(folder, where):
    replay = open_at(folder)
    fill(replay, WALKER, WALKER_SCHEMA, 70)
    cursor = replay.commit()
    replay.close()
    (folder / where / "zarr.0a1b.partial").write_bytes(b'{"zarr_form')
    assert zarr.open_group(folder / WALKER.name, mode="r")["reward"].shape == (1, 70)
    replay = open_at(folder)
    replay.rewind(cursor)
    assert seen_steps(replay) == set(range(70))
    fill(replay, WALKER, WALKER_SCHEMA, 70)
    replay.commit()
    assert zarr.open_group(folder / WALKER.name, mode="r")["reward"].shape == (1, 140)
    assert not list(folder.rglob("*.partial"))
    replay.close()


def test_a_replay_goes_on_only_with_its_capacity_its_latents_and_its_tasks(folder):
    replay = open_at(folder)
    fill(replay, WALKER, WALKER_SCHEMA, 5)
    cursor = replay.commit()
    replay.close()
    with pytest.raises(UserError, match="capacity of 1000 rows, expected 2000 rows"):
        open_at(folder, capacity=2000)
    for options, message in [
        ({"latents": LATENTS | {"latent.deter": Column((5,), "float16")}}, "column 'latent.deter'"),
        ({"context": "zero"}, "column 'latent.deter'.*expected None"),
        ({"tasks": ["dmc/walker_run"]}, "did you mean 'dmc/walker_run'"),
    ]:
        replay = open_at(folder, **options)
        with pytest.raises(UserError, match=message):
            replay.rewind(cursor)
        replay.close()
    with pytest.raises(UserError, match="expected 1 or more"):
        open_at(folder, capacity=0)


@pytest.mark.parametrize("damage", ["missing", "cut", "hollow", "commit"])
def test_a_damaged_file_is_named_and_nothing_is_dropped(folder, damage):
    replay = open_at(folder)
    fill(replay, WALKER, WALKER_SCHEMA, 200)
    cursor = replay.commit()
    fill(replay, CRAFTER, CRAFTER_SCHEMA, 5)
    replay.close()
    stream = folder / WALKER.name
    if damage == "missing":
        (stream / "obs.dmc.walker.speed/c.0.1.0").unlink()
        message = r"array 'obs.dmc.walker.speed', block 1 .*128 to 200.*: .* missing, expected 1024"
    elif damage == "cut":
        os.truncate(stream / "reward/c.0.0", 100)
        message = r"array 'reward', block 0 .*: .* has 100 bytes, expected 512"
    elif damage == "hollow":
        (stream / "step/c.0.1").write_bytes(bytes(1024))
        message = "array 'step', block 1 .* is damaged: its checksum"
    else:
        (record,) = (folder / "commits").glob("*.json")
        record.write_text(record.read_text().replace("200", "201"))
        message = "is damaged, expected the record of a commit: its checksum"
    replay = open_at(folder)
    with pytest.raises(UserError, match=message):
        replay.rewind(cursor)
    assert (folder / CRAFTER.name).exists()
    replay.close()


def test_a_full_disk_stops_the_append_and_keeps_the_commit(folder, monkeypatch):
    replay = open_at(folder)
    fill(replay, WALKER, WALKER_SCHEMA, 100)
    cursor = replay.commit()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("storage.files.os.posix_fallocate", full)
    with pytest.raises(UserError, match=r"cannot take 512 bytes: No space left .* bytes free"):
        fill(replay, WALKER, WALKER_SCHEMA, 50)
    monkeypatch.setattr("continual.files.os.fsync", full)
    with pytest.raises(UserError, match="cannot write: No space left"):
        replay.commit()
    monkeypatch.undo()
    assert not list(folder.rglob("*.partial"))
    assert seen_steps(replay) == set(range(128))
    later = replay.commit()
    replay.rewind(later)
    assert seen_steps(replay) == set(range(128))
    replay.rewind(cursor)
    assert seen_steps(replay) == set(range(100))
    replay.close()


def test_names_that_are_not_ascii_and_long_paths_work(tmp_path):
    task, other = "wörld/läuft schnell", "wörld läuft/schnell"
    folder = tmp_path / ("deep" * 20) / ("er" * 40)
    replay = open_at(folder, tasks=[task, other])
    fill(replay, StreamId(1, task), WALKER_SCHEMA, 10)
    replay.rewind(replay.commit())
    assert replay.held_rows() == {task: 10}
    with pytest.raises(ValueError, match="group name of another stream"):
        replay.open_stream(StreamId(1, other), WALKER_SCHEMA, 1)
    replay.close()
