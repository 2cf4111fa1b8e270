"""`tests/run kubernetes-pod`: a rendered pod's own containers under its own security settings, by Docker: real vLLM on CPU, the tiny model.

No kubelet: what a pod's spec says of user, root, capabilities, mounts, command and environment is given to `docker run`. The download Job brings the
model, the init container waits for it, the engine starts, the startup probe asks its picture, the preStop hook lets it go.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from manyeyes.config.loader import parse
from manyeyes.render.kubernetes.kustomize import tree

ROOT = Path(__file__).resolve().parents[2]
TEXT = "pools: [{name: qwen3-vl-tiny, model: tiny, flavours: [cpu]}]\ncpu_engines: 1\nkubernetes: {dns_cache_s: 0, resolve_interval_s: 1}\n"
Json = dict[str, Any]
MODELS = "manyeyes-pod-proof"


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)


def needed(*arguments: str) -> str:
    run = docker(*arguments)
    if run.returncode:
        raise SystemExit(f"docker {' '.join(arguments)[:300]}\n{run.stdout}{run.stderr}")
    return run.stdout.strip()


def options(pod: Json, container: Json, code: Path) -> list[str]:
    """What the spec says, as `docker run` takes it."""
    user, closed = pod["securityContext"], container["securityContext"]
    found = [f"--user={user['runAsUser']}:{user['runAsGroup']}", "--network=none"]
    found += [f"--cap-drop={name}" for name in closed["capabilities"]["drop"]]
    found += ["--security-opt=no-new-privileges"] if not closed["allowPrivilegeEscalation"] else []
    found += ["--read-only"] if closed["readOnlyRootFilesystem"] else []
    found.append(f"--memory={container['resources']['limits']['memory'].removesuffix('i').lower()}")
    found += [f"--env={one['name']}={one['value']}" for one in container["env"]]
    found += [f"--workdir={container['workingDir']}"] if "workingDir" in container else []
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for mount in container["volumeMounts"]:
        volume, target = volumes[mount["name"]], mount["mountPath"]
        suffix = ":ro" if mount.get("readOnly") else ""
        if "persistentVolumeClaim" in volume:
            found.append(f"--volume={MODELS}:{target}{suffix}")
        elif "emptyDir" in volume:
            found.append(f"--tmpfs={target}:mode=1777,exec")
        elif volume.get("configMap", {}).get("name") == "engine-pod":
            found.append(f"--volume={ROOT}/engine/pod:{target}:ro")
        else:
            found.append(f"--volume={code}:{target}:ro")
    return found


def laid_out_code(pod: Json, folder: Path) -> Path:
    """The ConfigMaps' items where their paths put them."""
    sources = next(volume["projected"]["sources"] for volume in pod["volumes"] if volume["name"] == "code")
    for item in (item for source in sources for item in source["configMap"]["items"]):
        target = folder / item["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text((ROOT / item["path"]).read_text())
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    return folder


def main() -> int:
    files = tree(parse(TEXT))
    pools = {one["kind"]: one for one in yaml.safe_load_all(files["engines/cpu/pools.yaml"])}
    storage = {one["kind"]: one for one in yaml.safe_load_all(files["engines/cpu/models.yaml"])}
    engine, job = (one["spec"]["template"]["spec"] for one in (pools["Deployment"], storage["Job"]))
    serving, wait, download = engine["containers"][0], engine["initContainers"][0], job["containers"][0]
    image = serving["image"]
    needed("volume", "create", MODELS)
    with tempfile.TemporaryDirectory() as folder:
        code = laid_out_code(engine, Path(folder))
        try:
            # As fsGroup does it.
            user = engine["securityContext"]["fsGroup"]
            needed(
                "run",
                "--rm",
                "--user=0",
                f"--volume={MODELS}:/models",
                "--entrypoint=chown",
                image,
                f"{user}:{user}",
                "/models",
            )
            for name, pod, container in (("the Job", job, download), ("the init container", engine, wait)):
                began = time.monotonic()
                command = container["command"]
                said = needed(
                    "run", "--rm", *options(pod, container, code), f"--entrypoint={command[0]}", image, *command[1:]
                )
                print(f"{name}: {time.monotonic() - began:.0f} s, {said.splitlines()[-1]}", flush=True)
            began = time.monotonic()
            needed("run", "--detach", f"--name={MODELS}", *options(engine, serving, code), image, *serving["args"])
            probe = serving["startupProbe"]["exec"]["command"]
            while docker("exec", MODELS, *probe).returncode:
                if time.monotonic() > began + 300 or not docker("ps", "-q", "-f", f"name={MODELS}").stdout:
                    raise SystemExit(docker("logs", "--tail", "40", MODELS).stderr)
                time.sleep(2)
            print(
                f"the engine: startup probe, picture included, succeeds after {time.monotonic() - began:.0f} s",
                flush=True,
            )
            began = time.monotonic()
            left = docker("exec", MODELS, *serving["lifecycle"]["preStop"]["exec"]["command"])
            print(f"preStop: {left.returncode} after {time.monotonic() - began:.0f} s", flush=True)
            needed("stop", f"--time={engine['terminationGracePeriodSeconds']}", MODELS)
            print(
                f"ended with {needed('inspect', '--format', '{{.State.ExitCode}}', MODELS)} after SIGTERM", flush=True
            )
        finally:
            docker("rm", "--force", MODELS)
            docker("volume", "rm", MODELS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
