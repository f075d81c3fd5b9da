"""What holds for every test: strict jax on the CPU, few threads, reproducible examples.

Set through the environment, before anything imports jax: tests of packages that work without jax
stay without it, and runs that a test starts in another process are treated alike.
"""

from __future__ import annotations

import os

import hypothesis
import numpy as np
import pytest

from continual.backend import compilation_cache

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_NUMPY_RANK_PROMOTION": "raise",  # no silent [B] + [T, B]
    "JAX_DEBUG_KEY_REUSE": "1",
    "JAX_COMPILATION_CACHE_DIR": str(compilation_cache("xla-tests")),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    # Most of the suite's time is compilation: so little is run that fast code does not pay for
    # itself. `make slow` compiles as a run does.
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false",
    "MUJOCO_GL": "disable",  # the default suite draws nothing with GL
    "MPLBACKEND": "agg",
    "OMP_NUM_THREADS": "2",
}
for _name, _value in ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

hypothesis.settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,  # the first example compiles
    database=None,
)
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=1000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator of the test's own, the same every time."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def agents_made():
    """What `one_compilation` keeps: (agent's config, tasks) -> agent."""
    return {}


@pytest.fixture(scope="module")
def one_compilation(agents_made):
    """Lives with the same agent share its compiled functions, though each builds its own.

    Keys are not watched here: jax then dispatches in Python, and a life acts thousands of times.
    The agent's own tests watch them.
    """
    import jax  # which not every test may have

    from agent.agent import make_agent

    def cached(config, interfaces):
        key = (config.model_dump_json(), *interfaces.tasks)
        if key not in agents_made:
            agents_made[key] = make_agent(config, interfaces)
        return agents_made[key]

    with pytest.MonkeyPatch.context() as patch, jax.debug_key_reuse(False):
        for module in ("opening", "trained"):
            patch.setattr(f"continual.{module}.make_agent", cached)
        yield
