"""Renders the volume for model weights, the Job that fills it once, and the init container that waits for it."""

import hashlib
import json

from manyeyes.config.placement import PlacedCluster
from manyeyes.engine.vllm_flags import MODELS_DIR
from manyeyes.render.engine_container import download_environment, image_of, models_to_download, runs_vllm
from manyeyes.render.kubernetes.pod_spec import (
    OWN_USER,
    Json,
    empty_dir,
    environment,
    kubernetes_object,
    labels,
    memory,
    pod,
    restricted_security,
)
from manyeyes.render.multi_node_clusters import EngineGroup

CODE_DIR = "/app"
CODE = {
    "__init__.py": "manyeyes/engine/__init__.py",
    "model_download.py": "manyeyes/engine/model_download.py",
    "tiny.__init__.py": "manyeyes/engine/tiny/__init__.py",
    "tiny.__main__.py": "manyeyes/engine/tiny/__main__.py",
    "tiny.chat_template.jinja": "manyeyes/engine/tiny/chat_template.jinja",
    "tiny.model.py": "manyeyes/engine/tiny/model.py",
    "tiny.tokenizer.py": "manyeyes/engine/tiny/tokenizer.py",
}
"""{key in the ConfigMap: file}. A key cannot contain slashes."""
LOGS = {"__init__.py": "manyeyes/observability/__init__.py", "log_format.py": "manyeyes/observability/log_format.py"}
"""The same for the ConfigMap with the log format of the download."""


def storage(cluster: PlacedCluster) -> list[Json]:
    """The volume and the Job; empty if no engine loads weights."""
    return [_claim(cluster), _job(cluster)] if runs_vllm(cluster) else []


def volume(read_only: bool) -> Json:
    return {"name": "models", "persistentVolumeClaim": {"claimName": "models", "readOnly": read_only}}


def code_volume() -> Json:
    """The required files of manyeyes/engine/ and manyeyes/observability/, in folders of the same names."""
    sources = [
        {"configMap": {"name": name, "items": [{"key": key, "path": path} for key, path in files.items()]}}
        for name, files in (("engine-download", CODE), ("engine-logs", LOGS))
    ]
    return {"name": "code", "projected": {"sources": sources}}


def wait(cluster: PlacedCluster, group: EngineGroup) -> Json:
    """The init container of an engine. It exits when the pool's model is downloaded."""
    models = [model for model in models_to_download(cluster) if model["model"] == group.pool.model]
    return {
        "name": "models",
        "image": image_of(cluster, group.engine),
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "manyeyes.engine.model_download", "--wait"],
        "workingDir": CODE_DIR,
        "env": environment(download_environment(models)),
        "resources": {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": restricted_security(),
        "volumeMounts": [
            {"name": "models", "mountPath": MODELS_DIR, "readOnly": True},
            {"name": "code", "mountPath": CODE_DIR, "readOnly": True},
        ],
    }


def _claim(cluster: PlacedCluster) -> Json:
    settings = cluster.kubernetes
    storage_class = {"storageClassName": settings.storage_class} if settings.storage_class else {}
    return kubernetes_object(
        "PersistentVolumeClaim",
        "models",
        {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": f"{settings.models_storage_gb}Gi"}},
            **storage_class,
        },
        object_labels=labels("models"),
    )


def _job(cluster: PlacedCluster) -> Json:
    """The download Job.

    Its name contains a digest of the models: a Job is immutable, so another list of models is another Job.
    """
    models = models_to_download(cluster)
    engine = next(engine for engine in cluster.started_engines if engine.flavour != "emulated")
    image = image_of(cluster, engine)
    offline = "1" if cluster.models.offline else "0"
    digest = hashlib.sha256(json.dumps([models, image, offline]).encode()).hexdigest()[:8]
    container = {
        "name": "download",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "manyeyes.engine.model_download"],
        "workingDir": CODE_DIR,
        "env": environment(download_environment(models) | {"HF_HUB_OFFLINE": offline, "HOME": "/tmp"}),
        # HF_TOKEN for gated models, HF_ENDPOINT for a mirror.
        "envFrom": [{"secretRef": {"name": "hub", "optional": True}}],
        "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": memory(4)}},
        "securityContext": restricted_security(),
        "volumeMounts": [
            {"name": "models", "mountPath": MODELS_DIR},
            {"name": "code", "mountPath": CODE_DIR, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    return kubernetes_object(
        "Job",
        f"models-{digest}",
        {
            "backoffLimit": 10,
            "template": {
                "metadata": {"labels": labels("models")},
                "spec": pod(
                    OWN_USER,
                    restartPolicy="OnFailure",
                    containers=[container],
                    volumes=[volume(read_only=False), code_volume(), empty_dir("tmp", 2)],
                ),
            },
        },
        version="batch/v1",
        object_labels=labels("models"),
    )
