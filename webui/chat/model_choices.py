"""Which models each tab offers, and which it begins with."""

from __future__ import annotations

from typing import Any

import gradio as gr

from webui.cluster.gateway_client import Pool


def filled(models: list[str], one: int, in_turn: int, pools: list[Pool] | None) -> list[Any]:
    """Updates for `one` dropdowns of one model, for Compare's, and for `in_turn` dropdowns that begin with different models."""
    if not models:
        return [gr.skip()] * (one + 1 + in_turn)
    names = [pool.name for pool in pools or [] if pool.name in models] or models
    found: list[Any] = [gr.update(choices=models, value=names[0]) for _ in range(one)]
    found.append(gr.update(choices=models, value=names[:2]))
    found += [gr.update(choices=models, value=names[nth % len(names)]) for nth in range(in_turn)]
    return found
