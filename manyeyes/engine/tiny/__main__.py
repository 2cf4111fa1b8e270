"""`python -m manyeyes.engine.tiny OUT_DIR`: a Qwen3-VL with random weights, so that a real vLLM runs anywhere.

Needs torch and transformers; the vLLM images have both.
"""

import argparse
import json
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

MARKER = "manyeyes-tiny.json"


def recipe_version() -> str:
    """A short digest of this package's own files: another recipe is another version, with no number to bump."""
    digest = sha256()
    for file in sorted(Path(__file__).parent.glob("*")):
        if file.suffix in {".py", ".jinja"}:
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def marker(folder: Path) -> dict[str, object] | None:
    """What a finished folder says about itself; None when there is none, or it cannot be read."""
    try:
        content = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def is_finished(folder: Path, seed: int) -> bool:
    """Whether `folder` holds what this recipe makes from this seed."""
    found = marker(folder)
    return found is not None and found.get("version") == recipe_version() and found.get("seed") == seed


def fill(folder: Path, seed: int) -> None:
    """Write every file of the model into `folder`, the marker last."""
    # torch and transformers take seconds to import: only when there is something to build.
    from manyeyes.engine.tiny import model, tokenizer

    ids = tokenizer.save(folder)
    parameters = model.save(folder, ids, seed)
    model.save_processors(folder)
    content = {"version": recipe_version(), "seed": seed, "parameters": parameters}
    (folder / MARKER).write_text(json.dumps(content, indent=2) + "\n")
    for file in folder.iterdir():
        file.chmod(0o644)  # the weights are written for their owner only, and an engine may run as another user


def build(out: Path, seed: int) -> bool:
    """Make `out`, or leave it alone when it is there already. Says whether anything was built.

    A reader sees the old folder or the whole new one: all is written to a folder beside it, which then takes its name.
    """
    if is_finished(out, seed):
        return False
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        made = Path(scratch) / "made"
        made.mkdir()  # of its own, because the temporary folder is closed to the user that an engine runs as
        fill(made, seed)
        try:
            made.rename(out)
        except OSError:
            # Something is in the way: another builder was faster, or an older model lies there.
            if not is_finished(out, seed):
                out.rename(Path(scratch) / "replaced")
                made.rename(out)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m manyeyes.engine.tiny", description=__doc__)
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR", help="the folder to make")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes (default: 0)")
    options = parser.parse_args()
    try:
        built = build(options.out_dir, options.seed)
    except OSError as error:
        print(f"Could not write {options.out_dir}: {error}. Give a folder this user may write to.", file=sys.stderr)
        return 1
    print(json.dumps({"event": "tiny_built" if built else "tiny_kept", "folder": str(options.out_dir)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
