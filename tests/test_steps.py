"""What a stage's settings say of files."""

from __future__ import annotations

from pathlib import Path

from agentic_r.steps import by_content


def test_a_prompt_file_counts_by_what_it_holds(tmp_path: Path) -> None:
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("grade")
    two.write_text("grade")
    settings = {"judge_prompt_file": str(one), "subanswer_prompt_file": "", "judge": "offline"}
    before = by_content(settings)
    assert before == by_content({**settings, "judge_prompt_file": str(two)})
    assert before["subanswer_prompt_file"] == "" and before["judge"] == "offline"
    one.write_text("grade anew")
    assert by_content(settings) != before
