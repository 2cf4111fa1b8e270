"""`python -m manyeyes.engine.tiny OUT_DIR` builds a Qwen3-VL with random weights, for tests of vLLM without a GPU.

It needs torch and transformers, which the vLLM images contain.
"""

import argparse
import json
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

MARKER = "manyeyes-tiny.json"


def recipe_version() -> str:
    """Returns a digest of this package's files, which changes with every change of the recipe."""
    digest = sha256()
    for file in sorted(Path(__file__).parent.glob("*")):
        if file.suffix in {".py", ".jinja"}:
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def marker(folder: Path) -> dict[str, object] | None:
    """Returns the content of the marker file; None if it is missing or invalid."""
    try:
        content = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def is_finished(folder: Path, seed: int) -> bool:
    """Whether `folder` contains the model of this recipe version and seed."""
    content = marker(folder)
    return content is not None and content.get("version") == recipe_version() and content.get("seed") == seed


def fill(folder: Path, seed: int) -> None:
    """Writes all files of the model to `folder`, the marker last."""
    # torch and transformers take seconds to import, so they are imported only for a build.
    from manyeyes.engine.tiny import model, tokenizer

    ids = tokenizer.save(folder)
    parameters = model.save(folder, ids, seed)
    model.save_processors(folder)
    content = {"version": recipe_version(), "seed": seed, "parameters": parameters}
    (folder / MARKER).write_text(json.dumps(content, indent=2) + "\n")
    for file in folder.iterdir():
        file.chmod(0o644)  # the weights are readable only by their owner, and an engine may run as another user


def build(out: Path, seed: int) -> bool:
    """Builds the model in `out`, unless it is complete already. Returns whether it was built.

    `out` is replaced atomically: the files are written to a temporary folder, which is then renamed.
    """
    if is_finished(out, seed):
        return False
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        new_folder = Path(scratch) / "made"
        new_folder.mkdir()  # a subfolder, because the user of an engine cannot read the temporary folder itself
        fill(new_folder, seed)
        try:
            new_folder.rename(out)
        except OSError:
            # `out` exists: another process was faster, or it contains an older model.
            if not is_finished(out, seed):
                out.rename(Path(scratch) / "replaced")
                new_folder.rename(out)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m manyeyes.engine.tiny", description=__doc__)
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR", help="the folder to make")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes (default: 0)")
    options = parser.parse_args()
    try:
        built = build(options.out_dir, options.seed)
    except OSError as error:
        print(f"Could not write {options.out_dir}: {error}. Use a folder that this user can write to.", file=sys.stderr)
        return 1
    print(json.dumps({"event": "tiny_built" if built else "tiny_kept", "folder": str(options.out_dir)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
