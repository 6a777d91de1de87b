"""The manifests are what Kubernetes and JobSet take, agree with themselves, and start again what is preempted."""

import copy
from typing import Any

import manifests
import pytest

ROOT = manifests.FOLDER.parent
POD = ("spec", "replicatedJobs", 0, "template", "spec", "template", "spec")


def changed(name: str, path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """The manifest with one more field, or another value of one."""
    manifest = copy.deepcopy(manifests.load(name))
    inner: Any = manifest
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    return manifest


@pytest.mark.parametrize("name", manifests.JOBSETS)
def test_the_schemas_find_nothing(name):
    assert manifests.refusals(manifests.load(name)) == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("spec", "network", "subDomain"), "x", "'subDomain' was unexpected"),
        (("spec", "failurePolicy", "maxRestart"), 3, "'maxRestart' was unexpected"),
        (("spec", "failurePolicy", "restartStrategy"), "Recreated", "'Recreated' is not one of"),
        (("spec", "failurePolicy", "rules", 0, "name"), "bad-input", "'bad-input' does not match"),
        (("spec", "replicatedJobs", 0, "replica"), 1, "'replica' was unexpected"),
        (("spec", "replicatedJobs", 0, "template", "spec", "parallelizm"), 2, "'parallelizm' was unexpected"),
        (("spec", "replicatedJobs", 0, "template", "spec", "backoffLimit"), "none", "'none' is not"),
        ((*POD, "nodeselector"), {}, "'nodeselector' was unexpected"),
        ((*POD, "securityContext", "runAsUsr"), 1000, "'runAsUsr' was unexpected"),
        ((*POD, "containers", 0, "comand"), [], "'comand' was unexpected"),
        ((*POD, "containers", 0, "resources", "limit"), {}, "'limit' was unexpected"),
        ((*POD, "containers", 0, "ports", 0, "containerPort"), "8471", "'8471' is not"),
    ],
    ids=lambda value: ".".join(map(str, value[-2:])) if isinstance(value, tuple) else "",
)
def test_a_misspelt_field_or_a_wrong_value_is_refused(path, value, said):
    (refusal,) = manifests.refusals(changed("jobset_train.yaml", path, value))
    assert said in refusal


@pytest.mark.parametrize("name", manifests.JOBSETS)
def test_two_hosts_of_one_slice_find_each_other(name):
    manifest = manifests.load(name)
    spec, job, container = manifest["spec"], manifests.job(manifest), manifests.container(manifest)
    # Of its own name: a service of two JobSets would find the pods of one.
    assert spec["network"] == {"enableDNSHostnames": True, "subdomain": manifest["metadata"]["name"]}
    assert (job["parallelism"], job["completions"], job["completionMode"]) == (2, 2, "Indexed")
    # GKE's TPU webhook fills in the hosts' names for such Jobs; the ports are libtpu's and jax.distributed's.
    cloud_tpu = pytest.importorskip("jax._src.clusters.cloud_tpu_cluster")
    ports = [port["containerPort"] for port in container["ports"]]
    assert ports == [8471, int(cloud_tpu.coordinator_port)]
    pod = job["template"]["spec"]
    rows, columns = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert chips * job["parallelism"] == int(rows) * int(columns)
    assert pod["securityContext"]["runAsNonRoot"] is True
    words = container["command"]
    (file,) = [word for word in words if word.startswith("tpu_setup/")]
    assert (ROOT / file).is_file()
    assert {"--distributed", "--distributed=auto"} & set(words)
    devices = [word.removeprefix("--devices=") for word in words if word.startswith("--devices=")]
    assert devices in ([], [str(chips * job["parallelism"])])


def test_preempted_training_is_started_again_as_a_whole_and_bad_input_is_not():
    manifest = manifests.load("jobset_train.yaml")
    policy, job = manifest["spec"]["failurePolicy"], manifests.job(manifest)
    # A failed or evicted pod fails the Job for BackoffLimitExceeded, which no rule names: the set restarts.
    assert job["backoffLimit"] == 0
    assert policy["maxRestarts"] > 0
    assert policy["restartStrategy"] == "BlockingRecreate"
    (rule,) = policy["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    (bad_input,) = job["podFailurePolicy"]["rules"]
    name = manifests.container(manifest)["name"]
    assert bad_input == {"action": "FailJob", "onExitCodes": {"containerName": name, "operator": "In", "values": [2]}}
    # Kubernetes takes a podFailurePolicy only together with this.
    assert job["template"]["spec"]["restartPolicy"] == "Never"


def test_run_and_data_are_where_every_host_finds_them():
    words = manifests.container(manifests.load("jobset_train.yaml"))["command"]
    assert all(any(word.startswith(f"--{name}=gs://BUCKET/") for word in words) for name in ("out", "data"))
    assert "volumes" not in manifests.job(manifests.load("jobset_train.yaml"))["template"]["spec"]
