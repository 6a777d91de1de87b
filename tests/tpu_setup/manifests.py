"""The manifests as data, and what refuses a wrong one: a schema of JobSet, and of what is inside Kubernetes' own."""

import json
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / "tpu_setup"
JOBSETS = ("jobset_preflight.yaml", "jobset_train.yaml")


def load(name: str) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: pip install 'moonseg-jax[test]'")
    manifest = yaml.safe_load((FOLDER / name).read_text())
    assert isinstance(manifest, dict)
    return manifest


def job(manifest: dict[str, Any]) -> dict[str, Any]:
    """The spec of the one Job that a manifest replicates."""
    (replicated,) = manifest["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]


def container(manifest: dict[str, Any]) -> dict[str, Any]:
    (only,) = job(manifest)["template"]["spec"]["containers"]
    return only


def refusals(manifest: dict[str, Any]) -> list[str]:
    """What a strict API server would say: unknown fields, wrong types and values; nothing where all is well."""
    validate = pytest.importorskip("kubernetes_validate", reason="pip install 'moonseg-jax[test]'")
    from jsonschema import Draft202012Validator

    schema = json.loads((HERE / "jobset_v1alpha2.json").read_text())
    Draft202012Validator.check_schema(schema)
    said = [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(manifest)]
    for replicated in manifest["spec"].get("replicatedJobs", []):
        whole = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "any"}, **replicated["template"]}
        try:
            validate.validate(whole, validate.latest_version(), strict=True)
        except validate.ValidationError as error:
            said.append(str(error))
    return said
