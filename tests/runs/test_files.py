"""Files written whole: by several at once, after a kill, and with the permissions of any other file."""

import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from paperwalk.runs.files import write_atomically


def test_threads_may_write_the_same_file(tmp_path):
    file, texts = tmp_path / "a.json", [str(i) * 1000 for i in range(200)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: write_atomically(file, text), texts))
    assert file.read_text() in texts and list(tmp_path.iterdir()) == [file]


KILLED = """
import os, signal, sys
from paperwalk.runs.files import write_atomically
os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
write_atomically(sys.argv[1], "half")
"""


def test_what_a_killed_writer_left_goes_with_the_next_write_but_not_what_another_is_writing(tmp_path):
    file, other = tmp_path / "a.json", tmp_path / "a.json.b"
    for killed in (file, other):
        subprocess.run([sys.executable, "-c", KILLED, str(killed)], check=False)
    [of_a_dead_one, of_another_file] = sorted(tmp_path.iterdir(), key=lambda path: ".json.b." in path.name)
    of_a_living_one = tmp_path / f".a.json.{platform.node()},{os.getpid()},0.tmp"
    of_another_machine = tmp_path / of_a_dead_one.name.replace(platform.node(), f"{platform.node()}-2")
    for file_of_another in (of_a_living_one, of_another_machine):
        file_of_another.write_text("half")
    write_atomically(file, "whole")
    assert file.read_text() == "whole" and not of_a_dead_one.exists()
    assert set(tmp_path.iterdir()) == {file, of_a_living_one, of_another_machine, of_another_file}


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path):
    write_atomically(tmp_path / "written", "text")
    (tmp_path / "plain").write_text("text")
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "plain").stat().st_mode
