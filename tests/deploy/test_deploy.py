"""The files for clusters: well-formed, at one with the profiles; the Slurm script, with stand-ins for Slurm and Ray."""

import os
import re
import shlex
import subprocess

import pytest
import yaml

from paperwalk import runs

pytestmark = pytest.mark.full

DEPLOY = runs.ROOT / "deploy"
SHIMS = {
    "scontrol": 'test "$*" = "show hostnames gpu[1-3]" && printf "gpu1\\ngpu2\\ngpu3\\n"',
    "srun": 'echo "srun $*" >&2; while [[ $1 == -* ]]; do shift; done; exec "$@"',
    "hostname": 'echo "10.0.0.7 fd00::7"',
}


def test_slurm_starts_ray_on_every_node_and_the_command_once(tmp_path):
    bin = tmp_path / "bin"
    (tmp_path / ".venv/bin").mkdir(parents=True)
    bin.mkdir()
    for name, script in SHIMS.items():
        (bin / name).write_text(f"#!/bin/bash\n{script}\n")
    (tmp_path / ".venv/bin/ray").write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    for file in [*bin.iterdir(), tmp_path / ".venv/bin/ray"]:
        file.chmod(0o755)
    job = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_NODELIST": "gpu[1-3]", "SLURM_JOB_NUM_NODES": "3"}
    job |= {"SLURM_JOB_ID": "123456", "SLURM_CPUS_PER_TASK": "16", "SLURM_GPUS_ON_NODE": "2"}
    env = os.environ | job | {"PATH": f"{bin}:{os.environ['PATH']}"}
    command = ["bash", DEPLOY / "slurm.sh", "run", "goldfish", "--set", "books=a b"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    address = "10.0.0.7:23456"
    ray = ["symmetric-run", "--address", address, "--min-nodes", "3", "--num-cpus", "16", "--num-gpus", "2", "--"]
    ours = [".venv/bin/python", "-m", "paperwalk", "run", "goldfish", "--set", "books=a b", "--cluster", address]
    assert done.stdout.splitlines() == ray + ours
    first, second = done.stderr.splitlines()
    assert first == "srun --nodes=1 --ntasks=1 --nodelist=gpu1 hostname --ip-address"
    assert second.startswith("srun --nodes=3 --ntasks=3 --no-kill .venv/bin/ray ")


def test_slurm_script_is_sound_bash():
    script = DEPLOY / "slurm.sh"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    lines = script.read_text().splitlines()
    options = [line for line in lines if line.startswith("#SBATCH")]
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert options == [line for line in lines[:first_command] if line.startswith("#SBATCH")]  # Slurm stops there
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", line) for line in options)
    assert "#SBATCH --ntasks-per-node=1" in options  # one Ray a node


@pytest.fixture(scope="module")
def manifest():
    """{kind: object} of the manifest's objects."""
    return {part["kind"]: part for part in yaml.safe_load_all((DEPLOY / "kuberay.yml").read_text())}


def test_kuberay_manifest_has_what_a_rayjob_needs(manifest):
    job = manifest["RayJob"]
    assert job["apiVersion"] == "ray.io/v1" and job["metadata"]["name"]
    known = {"entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"}
    assert set(job["spec"]) == known
    cluster = job["spec"]["rayClusterSpec"]
    assert set(cluster) == {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())  # KubeRay takes texts alone
        (container,) = group["template"]["spec"]["containers"]
        assert container["image"] and container["resources"]["requests"] == container["resources"]["limits"]
    for group in cluster["workerGroupSpecs"]:
        assert group["groupName"] and 0 < group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_kuberay_head_keeps_the_results_on_the_volume(manifest):
    head = manifest["RayJob"]["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (volume,) = head["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == manifest["PersistentVolumeClaim"]["metadata"]["name"]
    (mount,) = head["containers"][0]["volumeMounts"]
    assert head["initContainers"][0]["volumeMounts"] == [mount] and mount["name"] == volume["name"]
    (root,) = (pair["value"] for pair in head["containers"][0]["env"] if pair["name"] == "PAPERWALK_ROOT")
    *_, source, target = head["initContainers"][0]["command"]
    assert root == f"{target.rstrip('/')}/{source.rpartition('/')[2]}" and target.startswith(mount["mountPath"])
    assert f"WORKDIR {source}" in (DEPLOY / "Dockerfile").read_text()


def test_a_kuberay_worker_holds_a_run_of_the_entrypoint(manifest):
    spec = manifest["RayJob"]["spec"]
    python, _, package, command, chapter, *options = shlex.split(spec["entrypoint"])
    assert (python, package, command) == ("python", "paperwalk", "run") and options[-1] == "--cluster"
    values = runs.profile_values(chapter, options[options.index("--profile") + 1])
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    has = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert int(has["cpu"]) >= values["workers"] and int(has["nvidia.com/gpu"]) >= (values["device"] == "cuda")
