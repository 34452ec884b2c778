"""Chat templates: where a tokenizer's is found, and what it writes."""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jax_unlearn.errors import InputError, one_line

__all__ = ["SETTINGS", "chat_template", "render"]

SETTINGS = "tokenizer_config.json"


def render(
    template: str, marks: Iterable[tuple[str, str]], messages: Any, **more: Any
) -> str:
    """Return a chat as its template writes it, run in a sandbox."""
    from jinja2.exceptions import TemplateError

    try:
        return _compiled(template).render(messages=messages, **dict(marks), **more)
    except TemplateError as error:
        raise InputError(
            f"the chat template does not run ({one_line(error)}); mend chat_template "
            f"in {SETTINGS}"
        ) from error


@functools.lru_cache(maxsize=8)
def _compiled(template: str) -> Any:
    from datetime import datetime

    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refused(message: str) -> None:
        raise TemplateError(message)

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    made.globals["raise_exception"] = refused
    # templates that write today's date would code a text otherwise every day
    made.globals["strftime_now"] = datetime(2024, 7, 26).strftime
    return made.from_string(template)


def chat_template(file: Path, told: dict[str, Any]) -> str:
    """Return the template beside a tokenizer, or of its settings; "" without one."""
    apart = file.with_name("chat_template.jinja")
    if apart.exists():
        return apart.read_text(encoding="utf-8")
    template = told.get("chat_template") or ""
    if isinstance(template, list):  # several by name
        named = {t.get("name"): t.get("template") for t in template}
        template = named.get("default") or next(iter(named.values()), "")
    return str(template)
