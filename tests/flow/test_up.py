# SPDX-License-Identifier: Apache-2.0
"""A system of one's own: up, apply, watch, cut, delete, down, as a user types it."""

import contextlib
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.flow import patience, processes
from tests.mosquitto import executable

from nereid_cloud import data

pytestmark = [pytest.mark.slow, pytest.mark.timeout(480)]
ANSWERS = ("--normalization", "0..1", "--labels", "0,1,2,3,4,5,6,7,8,9", "--output", "logits")


class User:
    """Somebody with a terminal, two models and pictures."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / "state"

    def types(self, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run ``nereid`` with these words."""
        argv = [sys.executable, "-m", "nereid_cloud.cli", "--state", str(self.state), *words]
        return subprocess.run(
            argv, cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=env
        )

    def does(self, *words: str) -> str:
        """Run ``nereid`` and return its output; fails where it does."""
        done = self.types(*words)
        assert done.returncode == 0, done.stderr
        assert not done.stderr, "off a terminal there is nothing to say on stderr"
        return done.stdout

    def metric(self, service: str, key: str) -> int:
        """Return one count of a service's status."""
        path = f'jsonpath={{.status.metrics[?(@.key=="{key}")].value}}'
        return int(self.types("get", f"jis/{service}", "-o", path).stdout or 0)


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    digits = data.path("examples") / "digits"
    for role in ("little", "big"):
        shutil.copytree(digits / "models" / role, tmp_path / role)
    with tarfile.open(digits / "digits.tar.gz") as archive:
        members = [member for member in archive if member.name.endswith(".png")][:120]
        archive.extractall(tmp_path / "pictures", members, filter="data")
    someone = User(tmp_path)
    yield someone
    someone.types("down")
    processes.assert_none_left(someone.state)


def new_service(user: User) -> None:
    user.does("new", "mine", "--little", "little/little.tflite", "--big", "big/big.tflite", "--images", "pictures")
    manifest = user.folder / "mine" / "mine.yaml"
    slow = manifest.read_text()
    assert slow.count("value: '1'\n") == 1  # a pace at which a person can watch
    manifest.write_text(slow.replace("value: '1'\n", "value: '20'\n"))


def live_until_ctrl_c(user: User, *words: str) -> str:
    """Run a command on a terminal, press Ctrl-C when it has shown something, and return all that it showed."""
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "nereid_cloud.cli", "--state", str(user.state), *words]
    with subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = os.read(ours, 65536)
        while b"edge-0" not in shown:
            shown += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # a terminal whose last process is gone
            while more := os.read(ours, 65536):
                shown += more
        assert process.wait() == 0
    os.close(ours)
    return shown.decode(errors="replace").rstrip()


def test_two_models_become_a_service_whose_status_is_true(user: User) -> None:
    new_service(user)
    said = user.does("up", "-d", "--base-port", "0")
    assert "mosquitto_sub" in said
    user.does("apply", "-f", "mine/mine.yaml")
    user.does("wait", "jis/mine", "--for=condition=Ready", "--timeout=120s")
    patience.until(lambda: user.metric("mine", "seen") == 120, "all pictures to be answered")
    patience.until(lambda: user.metric("mine", "pending") == 0, "the cloud's answers")
    assert user.metric("mine", "hard") == user.metric("mine", "answered") > 0
    assert "120" in user.does("get", "dataset", "mine")
    assert "Running" in user.does("describe", "jis/mine")
    assert list(user.state.glob("nodes/edge-0/var/lib/nereid/workers/mine-*"))
    user.does("delete", "-f", "mine/mine.yaml")
    patience.until(lambda: "mine" not in user.types("get", "pods").stdout, "the Pods to be gone")
    patience.until(lambda: not list(user.state.glob("nodes/*/var/lib/nereid/workers/mine-*")), "the folders to be gone")


def test_a_system_that_was_killed_goes_on_where_it_was(user: User) -> None:
    new_service(user)
    user.does("up", "-d", "--base-port", "0")
    user.does("apply", "-f", "mine/mine.yaml")
    patience.until(lambda: user.metric("mine", "seen") == 120, "all pictures to be answered")
    hard = user.metric("mine", "hard")
    os.kill(int((user.state / "owner").read_text()), signal.SIGKILL)
    processes.assert_none_left(user.state, within_s=60)
    user.does("up", "-d", "--base-port", "0")
    user.does("wait", "jis/mine", "--for=condition=Ready", "--timeout=120s")
    assert (user.metric("mine", "seen"), user.metric("mine", "hard")) == (120, hard)


def test_a_user_may_bring_a_script_of_their_own(user: User) -> None:
    new_service(user)
    script = user.folder / "scripts" / "edge.py"
    script.parent.mkdir()
    script.write_text(
        "from pathlib import Path\n"
        "from nereid_worker import JointInference\n"
        "service = JointInference.from_task()\n"
        "with Path(service.parameters['into']).open('w') as answers:\n"
        "    for answer in service.stream():\n"
        "        answers.write(f'{answer.key} {answer.label} {answer.tier}\\n')\n"
    )
    answers = user.folder / "answers.txt"
    manifest = user.folder / "mine" / "mine.yaml"
    documents = list(yaml.safe_load_all(manifest.read_text()))
    documents[-1]["spec"]["edgeWorker"]["workerSpec"].update(
        scriptDir=str(script.parent), scriptBootFile="edge.py", parameters=[{"key": "into", "value": str(answers)}]
    )
    manifest.write_text(yaml.safe_dump_all(documents))
    user.does("up", "-d", "--base-port", "0")
    user.does("apply", "-f", "mine/mine.yaml")
    patience.until(lambda: answers.exists() and answers.read_text().count("\n") == 120, "120 answers")
    tiers = {line.split()[2] for line in answers.read_text().splitlines()}
    assert tiers == {"edge", "cloud"}


def test_the_shipped_sample_runs_on_every_node(user: User) -> None:
    said = user.does("up", "-d", "--base-port", "0", "--nodes", "2")
    sample = user.state / "samples" / "digits.yaml"
    assert str(sample) in said
    user.does("apply", "-f", str(sample))
    user.does("wait", "jis/digits", "--for=condition=Ready", "--timeout=120s")
    patience.until(lambda: user.metric("digits", "answered") > 20, "answers from the cloud")
    table = user.does("top", "--once")
    assert all(node in table for node in ("edge-0", "edge-1"))
    assert "status: Running" in table
    assert live_until_ctrl_c(user, "top").endswith("\x1b[?25h"), "the cursor is shown again"
    assert "leading" in user.does("logs", "gm")
    assert "started" in user.does("logs", "lc/edge-1")
    assert user.does("logs", "broker/cloud", "--tail", "1").count("\n") == 1
    unknown = user.types("logs", "lc/edge-7")
    assert unknown.returncode == 2
    assert "lc/edge-1" in unknown.stderr


def test_a_service_before_its_model_waits_and_heals(user: User) -> None:
    new_service(user)
    models, service = (
        (user.folder / "mine" / "mine.yaml").read_text().split("---\napiVersion: edgeai.io/v1alpha1\nkind: D")
    )
    (user.folder / "service.yaml").write_text(f"apiVersion: edgeai.io/v1alpha1\nkind: D{service}")
    (user.folder / "models.yaml").write_text(models)
    user.does("up", "-d", "--base-port", "0")
    user.does("apply", "-f", "service.yaml")
    patience.until(lambda: "ModelNotFound" in user.types("get", "jis/mine").stdout, "the reason ModelNotFound")
    assert "Pending" in user.does("get", "jis/mine")
    user.does("apply", "-f", "models.yaml")
    user.does("wait", "jis/mine", "--for=condition=Ready", "--timeout=120s")


@pytest.mark.parametrize("part", ["lc-edge-0", "broker-edge-0"])
def test_a_service_is_soon_not_ready_where_its_node_cannot_speak(user: User, part: str) -> None:
    new_service(user)
    user.does("up", "-d", "--base-port", "0")
    user.does("apply", "-f", "mine/mine.yaml")
    user.does("wait", "jis/mine", "--for=condition=Ready", "--timeout=120s")
    pid = processes.part(user.state, part)
    if part == "lc-edge-0":
        # Stopped, not killed: its connections stand, and its will stays with the broker.
        os.kill(pid, signal.SIGSTOP)
        limit_s = 15
    else:
        # Killed, and with a configuration that keeps it from starting again.
        (user.state / "brokers" / "edge-0" / "mosquitto.conf").write_text("no such option\n")
        os.kill(pid, signal.SIGKILL)
        limit_s = 5
    ready = 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'
    patience.until(
        lambda: user.does("get", "jis/mine", "-o", ready) != "True", "Ready to be no longer true", within_s=limit_s
    )


def test_a_second_system_on_the_same_folder_is_refused(user: User) -> None:
    user.does("up", "-d", "--base-port", "0")
    done = user.types("up", "--base-port", "0")
    assert done.returncode == 2
    assert "nereid down" in done.stderr


@pytest.mark.parametrize("words", [("-d",), ()])
def test_a_part_that_cannot_start_ends_the_start(user: User, words: tuple[str, ...]) -> None:
    lc = user.state / "nodes" / "edge-0" / "var" / "lib" / "nereid" / "lc"
    lc.parent.mkdir(parents=True)
    lc.write_text("a file where the LocalController wants its folder")
    done = user.types("up", *words, "--base-port", "0")
    assert done.returncode == 2
    assert "lc-edge-0 did not start" in done.stderr
    assert str(lc) in done.stderr, "the log's last lines say why"
    assert done.stderr.count("error:") == 1
    processes.assert_none_left(user.state)


def test_a_damaged_cluster_is_named_before_anything_starts(user: User) -> None:
    user.state.mkdir()
    (user.state / "cluster.db").write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 64)
    done = user.types("up", "-d", "--base-port", "0")
    assert done.returncode == 2
    assert f"{user.state}/cluster.db: the cluster's database is damaged" in done.stderr
    assert not (user.state / "pids.json").exists()


def test_a_refused_second_start_leaves_the_first_ones_log_alone(user: User) -> None:
    user.does("up", "-d", "--base-port", "0")
    os.kill(processes.part(user.state, "gm"), signal.SIGKILL)
    log = user.state / "up.log"
    patience.until(lambda: "process ended" in log.read_text(), "a word in up.log")
    before = log.read_text()
    done = user.types("up", "-d", "--base-port", "0")
    assert done.returncode == 2
    assert "nereid down" in done.stderr
    assert done.stderr.count("error:") == 1
    assert log.read_text().startswith(before)


def test_down_leaves_no_socket_and_no_list_of_processes(user: User) -> None:
    user.does("up", "-d", "--base-port", "0")
    assert (user.state / "links.sock").exists()
    user.does("down")
    assert not (user.state / "links.sock").exists()
    assert not (user.state / "pids.json").exists()


def test_a_taken_port_is_named(user: User) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = user.types("up", "--base-port", str(port))
    assert done.returncode == 2
    assert str(port) in done.stderr
    assert "--base-port" in done.stderr


def test_without_mosquitto_the_mend_is_to_install_it(user: User) -> None:
    if Path(executable() or "").parent in {Path("/usr/sbin"), Path("/usr/local/sbin")}:
        pytest.skip("mosquitto is in a folder that is always looked into")
    done = user.types("up", "--base-port", "0", env={"PATH": "/nowhere", "HOME": str(user.folder)})
    assert done.returncode == 2
    assert "apt-get install mosquitto" in done.stderr


def test_down_without_a_system_says_so(user: User) -> None:
    done = user.types("down")
    assert done.returncode == 2
    assert "no system runs there" in done.stderr


def test_down_clears_what_a_killed_system_left(user: User) -> None:
    user.does("up", "-d", "--base-port", "0")
    os.kill(int((user.state / "owner").read_text()), signal.SIGKILL)
    patience.until(lambda: not processes.of_state(user.state), "all processes to end")
    assert (user.state / "pids.json").exists()
    assert user.types("down").returncode == 2
    assert not [name for name in ("pids.json", "links.sock", "owner") if (user.state / name).exists()]
