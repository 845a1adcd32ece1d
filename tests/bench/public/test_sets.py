"""Each set is found by what lies in its folder, converted, run and scored; independent scorers come to the same."""

from __future__ import annotations

import pytest

from bench.public import contract, run
from bench.public.metrics import score_floor
from bench.public.sets import find
from bench.public.task import Tracks, layout_of
from fusion import replay


def test_joints_score_as_an_independent_scorer_has_it(data, scorer, tmp_path):
    theirs = scorer("score_shelf")
    replay(data / "shelf", tmp_path)
    task = contract.convert(data / "shelf", tmp_path)
    ours = task.poses.score(Tracks.of_results(tmp_path), layout_of(data / "shelf"))
    wanted = theirs.main(data / "shelf", tmp_path)
    assert [round(share, 2) for share in ours.pcp] == [wanted["A1"], wanted["A2"], wanted["A3"]]
    assert round(ours.weighted, 2) == wanted["weighted"]
    assert round(ours.people_per_instant, 2) == wanted["people_per_frame"]


def test_places_score_as_an_independent_scorer_has_it(data, scorer, tmp_path):
    theirs = scorer("score_tracks")
    replay(data / "cmc1", tmp_path)
    task = contract.convert(data / "cmc1", tmp_path)
    ours = score_floor(list(task.places.scenes(Tracks.of_results(tmp_path))))
    wanted = theirs.main(data / "cmc1", tmp_path)
    assert round(100 * ours.mota, 2) == pytest.approx(wanted["MOTA"], abs=0.011)
    assert round(100 * ours.idf1, 2) == pytest.approx(wanted["IDF1"], abs=0.011)
    assert ours.n_people == wanted["people"]


def test_folders_are_searched_and_what_is_missing_is_listed(tmp_path, capsys):
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert list(find([tmp_path])) == []
    assert run.main([str(tmp_path)]) == 2
    out = capsys.readouterr()
    assert "no set was found" in out.err and "docs/format.md" in out.out
    assert run.main([str(tmp_path / "absent")]) == 2
    assert "is not a folder" in capsys.readouterr().err


def test_links_in_a_circle_end_the_search(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert list(find([tmp_path])) == []
