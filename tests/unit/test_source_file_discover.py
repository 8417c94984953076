"""What paths, directories and patterns mean to the file source, in which order, and what is told about the rest."""

import errno
import os
from pathlib import Path

import pytest
from test_source_file import Bench, Kept, line, lines, write

from aitrail.errors import TransientError
from aitrail.ports import Budget
from aitrail.sources._cursor import Keys
from aitrail.sources._discover import Discovery, sort_key


def found(*paths, follow=False, recursive=True, notes=None):
    note = None if notes is None else lambda what, _fix: notes.append(what)
    discovery = Discovery([str(p) for p in paths], follow_symlinks=follow, recursive=recursive, note=note)
    return [path for path, _ in discovery.files()]


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}\n")


def below(root, paths):
    return [os.path.relpath(path, root) for path in paths]


def test_natural_order_and_depth(tmp_path):
    touch(tmp_path, "app.10.log", "app.2.log", "b/1.log", "a/x10/1", "a/x9/1", "c")
    assert below(tmp_path, found(tmp_path)) == ["a/x9/1", "a/x10/1", "app.2.log", "app.10.log", "b/1.log", "c"]
    assert below(tmp_path, found(tmp_path, recursive=False)) == ["app.2.log", "app.10.log", "c"]


def test_patterns(tmp_path):
    touch(tmp_path, "a/1.json", "a/b/10.json", "a/b/9.json", "a/c.txt")
    assert below(tmp_path, found(tmp_path / "**/*.json")) == ["a/1.json", "a/b/9.json", "a/b/10.json"]
    assert below(tmp_path, found(tmp_path / "a/[b]")) == ["a/b/9.json", "a/b/10.json"]
    notes = []
    assert found(tmp_path / "*.nope", notes=notes) == []
    assert "finds nothing" in notes[0]


def test_a_name_that_looks_like_a_pattern_is_a_name_when_it_exists(tmp_path):
    touch(tmp_path, "a[1].log", "a1.log")
    assert below(tmp_path, found(tmp_path / "a[1].log")) == ["a[1].log"]


BLOB = "insights-logs-{}/resourceId=/SUBSCRIPTIONS/1/PROVIDERS/{}/y=2026/m=0{}/d=0{}/h={:02}/m=00/PT1H.json"


def test_azure_blobs_come_hour_by_hour(tmp_path):
    names = [
        BLOB.format(category, resource, 1, 2, hour)
        for hour in (9, 10, 23)
        for category in ("gatewayllmlogs", "gatewaylogs")
        for resource in ("APIM-A", "APIM-B")
    ] + [BLOB.format("gatewaylogs", "APIM-A", 2, 1, 0)]
    touch(tmp_path, *reversed(names), "other/z.json", "zz.json")
    expected = [*names, "other/z.json", "zz.json"]
    assert below(tmp_path, found(tmp_path)) == expected
    assert (
        below(tmp_path, found(tmp_path / "insights-logs-gatewaylogs", tmp_path / "insights-logs-gatewayllmlogs"))
        == names
    )
    assert below(tmp_path, found(tmp_path / "insights-logs-*")) == names
    assert below(tmp_path, found(tmp_path / "**/PT1H.json")) == names
    assert sorted(sorted(names), key=sort_key) == names


def test_a_category_directory_of_another_layout_is_walked_too(tmp_path):
    touch(tmp_path, "insights-logs-audit/a/1.json", "insights-logs-audit/2.json", "insights-logs-empty/.keep")
    assert below(tmp_path, found(tmp_path)) == ["insights-logs-audit/2.json", "insights-logs-audit/a/1.json"]


def test_overlapping_paths_and_hard_links_are_read_once(tmp_path):
    write(tmp_path / "a.log", lines(1))
    os.link(tmp_path / "a.log", tmp_path / "b.log")
    bench = Bench(tmp_path, tmp_path / "a.log", tmp_path / "*.log", str(tmp_path) + "/../" + tmp_path.name)
    assert bench.data() == [line(1)]
    assert bench.source.survey(Kept()).objects == 1


def test_links_are_left_alone_unless_wanted_and_loops_end(tmp_path):
    touch(tmp_path, "in/a.log")
    (tmp_path / "out").mkdir()
    touch(tmp_path, "out/secret")
    (tmp_path / "in/link").symlink_to(tmp_path / "out/secret")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in/dangling").symlink_to(tmp_path / "nowhere")
    notes = []
    assert below(tmp_path, found(tmp_path / "in", notes=notes)) == ["in/a.log"]
    assert sum("symbolic link" in note for note in notes) == 3
    assert below(tmp_path, found(tmp_path / "in/*")) == ["in/a.log"]
    notes.clear()
    assert below(tmp_path, found(tmp_path / "in", follow=True, notes=notes)) == ["in/a.log", "in/link"]
    assert any("dangling" in note for note in notes)
    # Named by itself, a link is what the user means.
    assert below(tmp_path, found(tmp_path / "in/link")) == ["in/link"]
    assert Bench(tmp_path / "in/link").data() == [b"{}"]


def test_a_link_that_takes_the_place_of_a_file_is_not_followed(tmp_path):
    write(tmp_path / "a.log", lines(1))
    touch(tmp_path.parent, "target-of-a-link")
    bench = Bench(tmp_path)
    original = os.open

    def swapped(path, flags, *args):
        Path(path).unlink()
        Path(path).symlink_to(tmp_path.parent / "target-of-a-link")
        return original(path, flags, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", swapped)
        assert bench.batches() == []
    assert "not read" in bench.source.notes[0]


def test_pipes_sockets_and_what_is_gone_are_told(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    write(tmp_path / "a.log", lines(1))
    bench = Bench(tmp_path, tmp_path / "gone.log", "/dev/null")
    assert bench.data() == [line(1)]
    text = "\n".join(bench.source.notes)
    assert "pipe: a named pipe" in text
    assert "gone.log: no such file" in text
    assert "/dev/null: a character device" in text
    problems = bench.source.check()
    assert len(problems) == 3
    assert all(": " in problem for problem in problems)


def test_check_of_a_good_set_up_says_nothing(tmp_path):
    write(tmp_path / "a.log", lines(1))
    touch(tmp_path, ".hidden")
    (tmp_path / "link").symlink_to("a.log")
    assert Bench(tmp_path).source.check() == []
    assert Bench().source.check() == ["no path is given: name files, directories, patterns or '-'"]


def test_what_may_not_be_read_is_told(tmp_path, monkeypatch):
    touch(tmp_path, "a/1", "b/1", "c")
    scan, opened, access = os.scandir, os.open, os.access

    def refuse(name, call):
        def guarded(path, *args, **options):
            if str(path) == str(tmp_path / name):
                raise PermissionError(errno.EACCES, "Permission denied")
            return call(path, *args, **options)

        return guarded

    monkeypatch.setattr(os, "scandir", refuse("a", scan))
    monkeypatch.setattr(os, "open", refuse("c", opened))
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(tmp_path / "c") and access(path, mode))
    bench = Bench(tmp_path)
    assert [os.path.relpath(b.origin, tmp_path) for b in bench.batches()] == ["b/1"]
    reasons = [note.split(": ")[1] for note in bench.source.notes]
    assert reasons == ["permission denied; what is in it is not read", "permission denied; not read"]
    problems = bench.source.check()
    assert len(problems) == 2
    assert all("permission to read" in problem for problem in problems)


def test_read_errors_end_the_file_not_the_run(tmp_path, monkeypatch):
    write(tmp_path / "a.log", lines(1))
    write(tmp_path / "b.log", lines(2))
    read, failed = os.read, []

    def broken(fd, count):
        if not failed:
            failed.append(fd)
            raise OSError(errno.EIO, "Input/output error")
        return read(fd, count)

    monkeypatch.setattr(os, "read", broken)
    bench = Bench(tmp_path)
    assert bench.data() == [line(2)]
    assert "input/output error" in bench.source.notes[0]
    assert bench.data() == [line(1)]


def test_no_descriptor_left_is_transient(tmp_path, monkeypatch):
    write(tmp_path / "a.log", lines(1))

    def none_left(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", none_left)
    with pytest.raises(TransientError):
        Bench(tmp_path).batches()


def test_names_that_are_no_text_cannot_forge_anything(tmp_path):
    name = os.fsencode(tmp_path) + b"/bad\xff\n\x1b[31mname.log"
    write(Path(os.fsdecode(name)), lines(1) + b"{")
    bench = Bench(tmp_path)
    (batch,) = bench.batches()
    batch.origin.encode()
    (record,) = batch.records
    assert bench.source.reread(batch.origin, record.position, record.end, 0) == line(1)
    assert all(note.isprintable() for note in bench.source.notes)
    assert bench.batches() == []


def test_deep_directories(tmp_path):
    deep = tmp_path
    for _ in range(400):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (deep / "a.log").write_bytes(lines(1))
    assert Bench(tmp_path).data() == [line(1)]


def test_large_directories_are_walked_once_and_lazily(tmp_path, monkeypatch):
    for number in range(300):
        (tmp_path / f"{number}.json").write_bytes(b"{}\n")
    counted, stat = [], os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: counted.append(path) or stat(path, **options))
    bench = Bench(tmp_path)
    next(bench.source.fetch(bench.kept, Budget()))
    assert len(counted) < 10
    assert len(bench.batches()) == 300


def test_notes_are_bounded(tmp_path):
    for number in range(1_100):
        (tmp_path / f"{number}").symlink_to("nowhere")
    bench = Bench(tmp_path)
    bench.batches()
    assert len(bench.source.notes) == 1_001


def test_the_key_survives_a_new_device_number_and_a_rename(tmp_path):
    write(tmp_path / "a.log", lines(1))
    status = (tmp_path / "a.log").stat()
    other = os.stat_result([*status[:2], status.st_dev + 1, *status[3:]])
    keys = Keys()
    assert keys.key(str(tmp_path / "a.log"), status) == Keys().key(str(tmp_path / "b.log"), other)
    mounted = Keys(ismount=lambda path: path == str(tmp_path))
    assert mounted.key(str(tmp_path / "a.log"), status) == f"{tmp_path}:{status.st_ino:x}"
