"""Progress in lines: one for each tenth, of every stage."""

from __future__ import annotations

from speechemo_cli.formatting import progress_lines


def test_progress_lines_tell_each_tenth_once() -> None:
    said: list[str] = []
    on_progress = progress_lines("extracting", said.append)
    for done in range(1001):
        on_progress(done, 1000)

    assert len(said) == 10
    assert said[0] == "extracting: 100/1000 (10 %)"
    assert said[-1] == "extracting: 1000/1000 (100 %)"


def test_progress_lines_begin_anew_with_a_stage_and_name_it() -> None:
    said: list[str] = []
    on_progress = progress_lines(say=said.append)
    for stage in ("finding speech", "predicting"):
        for done in (0, 1, 2):
            on_progress(done, 2, stage)

    assert said == [
        "finding speech: 1/2 (50 %)",
        "finding speech: 2/2 (100 %)",
        "predicting: 1/2 (50 %)",
        "predicting: 2/2 (100 %)",
    ]


def test_progress_lines_are_silent_where_the_end_is_not_known() -> None:
    said: list[str] = []
    on_progress = progress_lines(say=said.append)
    on_progress(5, None, "predicting")
    on_progress(0, 0, "predicting")

    assert said == []
