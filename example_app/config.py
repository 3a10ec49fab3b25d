"""The demo's own settings: the ``OM_DEMO_…`` environment variables."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "DemoConfig"]

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class DemoConfig:
    """The settings.

    Attributes:
        state: the folder that the workers share (``OM_DEMO_STATE``).
        owner: the analyst ends with this process (``OM_DEMO_OWNER``). ``gunicorn.conf.py`` sets it;
            by default it is the current process.
        llm_url, llm_model, llm_key: an OpenAI-compatible server that answers instead of the
            analyst (``OM_DEMO_LLM_URL``, ``OM_DEMO_LLM_MODEL``, ``OM_DEMO_LLM_KEY``).
        start_analyst: start the analyst at the first request when it never ran.
    """

    state: Path
    owner: int
    llm_url: str = ""
    llm_model: str = ""
    llm_key: str = ""
    start_analyst: bool = True

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> DemoConfig:
        """Read the variables.

        Raises:
            ValueError: ``OM_DEMO_LLM_URL`` is set without ``OM_DEMO_LLM_MODEL``, or is no http
                address.
        """
        env = os.environ if environ is None else environ
        url, model = env.get("OM_DEMO_LLM_URL", "").strip(), env.get("OM_DEMO_LLM_MODEL", "")
        if url and not url.startswith(("http://", "https://")):
            raise ValueError(f"OM_DEMO_LLM_URL {url!r}: must begin with http:// or https://")
        if url and not model:
            raise ValueError(
                "OM_DEMO_LLM_MODEL is not set: name the model to ask at OM_DEMO_LLM_URL"
            )
        owner = int(env.get("OM_DEMO_OWNER", "") or os.getpid())
        given = env.get("OM_DEMO_STATE", "")
        return cls(
            state=Path(given).resolve() if given else _choose_state_folder(owner),
            owner=owner,
            llm_url=url,
            llm_model=model,
            llm_key=env.get("OM_DEMO_LLM_KEY", ""),
        )


def _choose_state_folder(owner: int) -> Path:
    """Return a folder of this server: two servers on one machine must not share their files."""
    instance = ROOT / "instance"
    try:
        instance.mkdir(exist_ok=True)
        writable = os.access(instance, os.W_OK)
    except OSError:
        writable = False
    base = instance if writable else Path(tempfile.gettempdir()) / f"om-demo-{os.getuid()}"
    return base / f"demo-{owner}"
