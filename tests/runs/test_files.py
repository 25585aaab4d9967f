"""Files written whole: by several at once, and with the permissions of any other file."""

from concurrent.futures import ThreadPoolExecutor

from paperwalk.runs.files import write_atomically


def test_threads_may_write_the_same_file(tmp_path):
    file, texts = tmp_path / "a.json", [str(i) * 1000 for i in range(200)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: write_atomically(file, text), texts))
    assert file.read_text() in texts and list(tmp_path.iterdir()) == [file]


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path):
    write_atomically(tmp_path / "written", "text")
    (tmp_path / "plain").write_text("text")
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "plain").stat().st_mode
