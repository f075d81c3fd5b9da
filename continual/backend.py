"""How jax is set up for a run. Called before anything is compiled; changes no number."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path


def compilation_cache(purpose: str) -> Path:
    """Folder of compiled programs, one per kind of processor: homes are shared, binaries not."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else [platform.processor()]
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), lines[0])
    kind = hashlib.sha256(f"{platform.machine()} {flags}".encode()).hexdigest()[:12]
    return Path(home).expanduser() / "continual" / f"{purpose}-{kind}"


def set_compiler_flags(level: int = 2) -> None:
    """Let XLA compile at a level, unless the user chose. Call it before jax computes anything.

    The second: a quarter less time before the first update, and updates as fast as at the third.
    """
    os.environ.setdefault("XLA_FLAGS", f"--xla_backend_optimization_level={level}")


def draw_with_gl() -> None:
    """Have the simulator load what draws, unless the user chose; before any world is made."""
    os.environ.setdefault("MUJOCO_GL", "egl")


def keep_compiled_programs() -> None:
    """Let the next start of a run find what this one compiled, unless the user chose a place."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    import jax  # heavy, and only doors that compile pay for it

    jax.config.update("jax_compilation_cache_dir", str(compilation_cache("xla")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
