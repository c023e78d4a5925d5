from __future__ import annotations

from pathlib import Path

from backends.logring import MAX_LINE_BYTES, LogRing


def test_lines_are_joined_over_pieces_and_the_newest_kept() -> None:
    ring = LogRing(num_lines=3)
    for piece in (b"a\nb", b"b\r\nc\n", b"d\n", "é".encode()[:1]):
        ring.feed(piece)
    ring.feed("é".encode()[1:])
    ring.flush()
    assert ring.tail(10) == ("c", "d", "é")
    assert ring.tail(1) == ("é",)
    assert ring.tail(0) == ()


def test_a_bar_of_progress_is_heard_as_it_is_drawn_and_kept_as_it_was_last() -> None:
    ring, heard = LogRing(), list[str]()
    ring.on_line = heard.append
    for piece in (b"before\nload:  0%", b"\rload: 50", b"%\rload: 70%\r", b"load: 100%\r", b"\nafter\r\n"):
        ring.feed(piece)
    assert ring.tail(9) == ("before", "load: 100%", "after")
    assert heard == ["before", "load: 50", "load: 70%", "load: 100%", "load: 100%", "after"]


def test_a_bar_of_progress_does_not_fill_the_log() -> None:
    ring = LogRing()
    for number in range(10_000):
        ring.feed(b"\r%5d of 10000" % number)
    ring.flush()
    assert ring.tail(9) == (" 9999 of 10000",)


def test_an_endless_line_does_not_fill_the_memory() -> None:
    ring = LogRing()
    for _ in range(100):
        ring.feed(b"x" * 1000)
    assert all(len(line) <= MAX_LINE_BYTES for line in ring.tail(500))
    assert len(ring.tail(500)) >= 10


def test_the_file_is_bounded_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "demo-0.log"
    for _ in range(2):
        ring = LogRing(path, max_bytes=1000)
        for number in range(30):
            ring.add(f"line {number:030}")
        ring.close()
    assert path.stat().st_size <= 1000
    assert path.with_suffix(".log.1").stat().st_size <= 1100


def test_a_disk_that_refuses_costs_only_the_file(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    ring = LogRing(tmp_path / "logs" / "x.log")
    ring.add("one")
    ring.add("two")
    assert [line for line in ring.tail(9) if not line.startswith("(")] == ["one", "two"]
    assert sum("given up" in line for line in ring.tail(9)) == 1
