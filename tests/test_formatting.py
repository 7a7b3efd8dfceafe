"""Progress in lines: one for each tenth, of every stage."""

from __future__ import annotations

from speechemo_cli.formatting import progress_lines


def said(what: str, *given: tuple) -> list[str]:
    lines: list[str] = []
    on_progress = progress_lines(what, lines.append)
    for arguments in given:
        on_progress(*arguments)
    return lines


def test_progress_lines_tell_each_tenth_once() -> None:
    lines = said("extracting", *((done, 1000) for done in range(1001)))

    assert len(lines) == 10
    assert lines[0] == "extracting: 100/1000 (10 %)"
    assert lines[-1] == "extracting: 1000/1000 (100 %)"


def test_progress_lines_begin_anew_with_a_stage_and_name_it() -> None:
    stages = ("finding speech", "predicting")

    assert said("done", *((done, 2, stage) for stage in stages for done in range(3))) == [
        "finding speech: 1/2 (50 %)",
        "finding speech: 2/2 (100 %)",
        "predicting: 1/2 (50 %)",
        "predicting: 2/2 (100 %)",
    ]


def test_progress_lines_are_silent_where_the_end_is_not_known() -> None:
    assert said("done", (5, None, "predicting"), (0, 0, "predicting")) == []
