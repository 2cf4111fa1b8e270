"""A profile as YAML: each number with where it is from."""

from dataclasses import fields

from manyeyes.calibration.profile_fit import Fitted
from manyeyes.simulator.profile import Profile


def text(found: Fitted, device: str, engine: str, date: str, command: str) -> str:
    """The whole file."""
    lines = [
        f"# Timing of {found.profile.model} on {device}, measured on {date} under {engine} by",
        f"#   {command}",
        "# `measured` means: fitted to the times that the .jsonl file beside this one holds. Residuals are shares of the time.",
        "# `estimate` means: not measured, taken from the profile that was given as base.",
    ]
    lines += [
        f"# Check, not fitted: {name}: measured {1e3 * one:.1f} ms, by these numbers {1e3 * other:.1f} ms."
        for name, one, other in found.checks
    ]
    for field in fields(Profile):
        value = getattr(found.profile, field.name)
        if isinstance(value, str):
            lines.append(f"{field.name}: {_quoted(value)}")
            continue
        source = found.sources.get(field.name)
        note = f"measured: {source}" if source else "estimate"
        lines.append(f"{f'{field.name}: {value:g}':26} # {note}")
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
