"""The table of what each scale changes says what the scales are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from continual.config import Config, resolve_config

PAGE = Path(__file__).parents[1] / "docs" / "deviations.md"
SCALES = ("full", "laptop", "smoke")


def by_scale() -> dict[str, dict[str, str]]:
    """what -> scale -> cell."""
    _, _, section = PAGE.read_text(encoding="utf-8").partition("## By scale")
    section, _, _ = section.partition("\n## ")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    head, _, *body = rows
    assert tuple(head[2:]) == SCALES
    return {what: dict(zip(SCALES, cells, strict=True)) for what, _, *cells in body}


def by_domain(rule: dict[str, float], widest: str, default: float = 1) -> str:
    """`4; walker 2`, the value of the widest key first."""
    others = [f"{key.rpartition('/')[2]} {v:g}" for key, v in rule.items() if key != widest]
    return "; ".join([f"{rule.get(widest, default):g}", *others])


def floats(*values: float) -> str:
    return ", ".join(f"{v:.0e}".replace("e-0", "e-") if v < 0.01 else f"{v:g}" for v in values)


IN_NUMBERS: dict[str, Callable[[Config], str]] = {
    "D, hidden, S x K, units": lambda c: (
        f"{c.agent.model.deter}, {c.agent.model.hidden}, "
        f"{c.agent.model.stoch}x{c.agent.model.classes}, {c.agent.model.units}"
    ),
    "blocks; prior layers": lambda c: f"{c.agent.model.blocks}; {c.agent.model.prior_layers}",
    "layers of actor and critic; vector code": lambda c: (
        f"{c.agent.model.policy_layers}; {c.agent.model.vector_layers}"
    ),
    "conv depth": lambda c: (
        f"{c.agent.model.depth}" + (" (patch)" if c.agent.model.image_code == "patch" else "")
    ),
    "batch": lambda c: f"{c.replay.batch} x {c.replay.length}",
    "dreamt decisions H": lambda c: f"{c.agent.imagination.horizon}",
    "discount horizon, decisions": lambda c: f"{c.agent.imagination.discount_horizon:g}",
    "entropy bonus": lambda c: floats(c.agent.imagination.entropy),
    "learning rate, warm-up": lambda c: floats(c.agent.optim.lr, c.agent.optim.warmup),
    "decisions before learning": lambda c: f"{c.collect.start}",
    "train ratio": lambda c: by_domain(c.collect.train_ratio, "default"),
    "parallel worlds": lambda c: f"{c.collect.worlds}",
    "DMC action repeat": lambda c: by_domain(c.collect.repeat, "dmc"),
}


@pytest.mark.parametrize("scale", SCALES)
def test_the_table_of_scales_says_what_a_scale_is(scale):
    config, table = resolve_config({}, scale), by_scale()
    for what, shown in IN_NUMBERS.items():
        assert table[what][scale] == shown(config), what
    last, batch = config.agent.imagination.last, config.replay.length
    cell = table["imagined from"][scale]
    assert cell.startswith(f"last {last}" if last and last < batch else "all states")
    assert float(table["replay, decisions"][scale].replace(",", "")) == config.replay.capacity
    assert table["image code"][scale].startswith(config.agent.model.image_code)
    budgets = [f"{steps:,}" for steps in config.collect.budgets.values()]
    cell = table["environment steps of a phase"][scale]
    assert all(steps in cell for steps in budgets)
    assert (cell == "the curriculum's") == (not budgets)


def test_no_row_of_the_table_goes_unchecked():
    others = {"imagined from", "replay, decisions", "image code", "environment steps of a phase"}
    assert by_scale().keys() == IN_NUMBERS.keys() | others
