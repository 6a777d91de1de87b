"""Manifests, image and README say what the scripts and the command line know."""

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tpu_setup"
README = (FOLDER / "README.md").read_text()
JOBSETS = ("jobset_preflight.yaml", "jobset_train.yaml")
# Fields of JobSet v1alpha2, batch/v1 Job and v1 Pod that the manifests may use; a misspelt one is refused.
KNOWN = {
    "jobset": {"apiVersion", "kind", "metadata", "spec"},
    "spec": {"network", "failurePolicy", "replicatedJobs", "successPolicy", "startupPolicy", "suspend"},
    "network": {"enableDNSHostnames", "subdomain", "publishNotReadyAddresses"},
    "failurePolicy": {"maxRestarts", "rules", "restartStrategy"},
    "rule": {"name", "action", "onJobFailureReasons", "targetReplicatedJobs"},
    "replicated": {"name", "replicas", "template"},
    "job": {"parallelism", "completions", "completionMode", "backoffLimit", "podFailurePolicy", "template"},
    "pod": {
        "restartPolicy", "terminationGracePeriodSeconds", "nodeSelector", "securityContext", "containers", "volumes",
    },
    "container": {"name", "image", "command", "env", "ports", "resources", "volumeMounts"},
}  # fmt: skip


def refuse_unknown(kind: str, value: dict[str, Any]) -> None:
    assert set(value) <= KNOWN[kind], f"{kind}: {set(value) - KNOWN[kind]}"


@pytest.mark.parametrize("name", JOBSETS)
def test_jobset_has_known_fields_and_agrees_with_itself(name):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    manifest = yaml.safe_load((FOLDER / name).read_text())
    refuse_unknown("jobset", manifest)
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    spec = manifest["spec"]
    refuse_unknown("spec", spec)
    refuse_unknown("network", spec["network"])
    assert spec["network"] == {"enableDNSHostnames": True, "subdomain": "moonseg"}
    refuse_unknown("failurePolicy", spec["failurePolicy"])
    for rule in spec["failurePolicy"].get("rules", []):
        refuse_unknown("rule", rule)
    (replicated,) = spec["replicatedJobs"]
    refuse_unknown("replicated", replicated)
    job = replicated["template"]["spec"]
    refuse_unknown("job", job)
    assert (job["completions"], job["completionMode"]) == (job["parallelism"], "Indexed")
    pod = job["template"]["spec"]
    refuse_unknown("pod", pod)
    # Kubernetes takes a podFailurePolicy only together with this.
    assert pod["restartPolicy"] == "Never"
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    refuse_unknown("container", container)
    rows, columns = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert chips * job["parallelism"] == int(rows) * int(columns)
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    (file,) = [word for word in container["command"] if word.startswith("tpu_setup/")]
    assert (ROOT / file).is_file()
    if "--devices" in container["command"]:
        assert container["command"][container["command"].index("--devices") + 1] == str(chips * job["parallelism"])


def test_preempted_training_comes_back_and_bad_input_does_not():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    spec = yaml.safe_load((FOLDER / "jobset_train.yaml").read_text())["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    disruption, bad_input = job["podFailurePolicy"]["rules"]
    assert disruption == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    container = job["template"]["spec"]["containers"][0]["name"]
    assert bad_input["onExitCodes"] == {"containerName": container, "operator": "In", "values": [2]}
    assert spec["failurePolicy"]["rules"][0]["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert spec["failurePolicy"]["maxRestarts"] > 0


def test_image_has_its_targets_and_none_runs_as_root():
    stages = re.split(r"^FROM .* AS (\w+)$", (FOLDER / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    bodies = dict(zip(stages[::2], stages[1::2]))
    assert set(bodies) == {"base", "cpu", "cuda", "tpu"}
    for target in ("cpu", "cuda", "tpu"):
        assert "\nUSER moonseg\n" in bodies[target]
    for source in re.findall(r"^COPY (.+) \S+$", bodies["base"], flags=re.MULTILINE):
        assert all((ROOT / part).exists() for part in source.split())


def test_readme_names_every_file_and_no_other():
    files = {path.name for path in FOLDER.iterdir() if path.is_file()} - {"README.md", "Dockerfile.dockerignore"}
    named = set(re.findall(r"[\w/]+\.(?:sh|sbatch|yaml)|tpu_setup/\w+\.py|preflight\.py|Dockerfile", README))
    assert {Path(name).name for name in named} == files


def test_readme_uses_options_that_the_scripts_know():
    lines = README.replace("\\\n", " ").splitlines()
    shared = (FOLDER / "show_or_run.sh").read_text()
    seen = 0
    for line in lines:
        for name, rest in re.findall(r"tpu_setup/(\w+\.(?:sh|py))([^#\"]*)", line):
            options = set(re.findall(r"--[a-z-]+[a-z]", rest.split(" -- ")[0]))
            if name == "train_or_resume.sh":
                continue
            known = (FOLDER / name).read_text() + ("" if name.endswith(".py") else shared)
            for option in options:
                assert option in known, f"{name} {option}"
                seen += 1
    assert seen > 15
