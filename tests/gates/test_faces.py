"""Faces: enrolled customers are recognised, strangers are not, and a deleted template is gone from disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gates.readers import reason, request

from fusion.errors import FusionError
from fusion.gates.faces import MARGIN, FaceGallery, effective_dim_of, face_token, threshold_of
from fusion.gates.marks import Marks
from fusion.gates.verifiers import Verified

DIM = 128


def people(n: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, DIM))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def seen(person: np.ndarray, seed: int, cosine: float = 0.8) -> np.ndarray:
    """The same person on another day, as far away as real readers see them."""
    other = people(1, seed)[0]
    across = other - (other @ person) * person
    return cosine * person + np.sqrt(1 - cosine**2) * across / np.linalg.norm(across)


def gallery(path: Path, rate: float = 1e-6) -> FaceGallery:
    marks = Marks(path.with_name("used.sqlite"))
    return FaceGallery(path, b"k" * 32, dim=DIM, effective_dim=DIM, false_accept_rate=rate, marks=marks)


def test_only_enrolled_customers_are_recognised(tmp_path: Path) -> None:
    faces, everybody = gallery(tmp_path / "faces"), people(60)
    assert reason(faces.verify(request(face_token(everybody[0]), "face"))) == "face not known"
    for i in range(50):
        faces.enrol(f"account {i}", f"Name {i}", everybody[i])
    for i in range(50):
        answer = faces.verify(request(face_token(seen(everybody[i], 100 + i)), "face"))
        assert isinstance(answer, Verified) and answer.account == f"account {i}"
        assert answer.greeting == f"Welcome, Name {i}"
    for stranger in everybody[50:]:
        assert reason(faces.verify(request(face_token(stranger), "face"))) == "face not known"
    for token in ("", "!!", face_token(np.zeros(DIM)), face_token(people(1)[0][:64]), face_token(np.full(DIM, np.nan))):
        assert reason(faces.verify(request(token, "face"))) == "not a face"
    twin = seen(everybody[0], 7, cosine=1 - MARGIN / 4)
    faces.enrol("twin", "Twin", twin)
    assert reason(faces.verify(request(face_token(seen(everybody[0], 100)), "face"))) == "face of two people"


def test_the_stated_rate_of_false_accepts_is_kept() -> None:
    templates, strangers, rate = people(100, 1), people(20_000, 2), 0.01
    threshold = threshold_of(rate, len(templates), DIM)
    accepted = (strangers @ templates.T).max(axis=1) >= threshold
    # A hundred templates share the rate; the bound is nearly met for directions that are independent.
    assert 0.8 * rate < accepted.mean() < 1.2 * rate
    # Embeddings that fill a tenth of their dimensions need a higher threshold, which their effective dimension gives.
    few = np.zeros((22_000, DIM))
    few[:, :12] = np.random.default_rng(3).normal(size=(22_000, 12))
    few /= np.linalg.norm(few, axis=1, keepdims=True)
    effective = effective_dim_of(few[:1000])
    assert effective == pytest.approx(12, rel=0.1)
    accepted = (few[2000:] @ few[1000:1100].T).max(axis=1) >= threshold_of(rate, 100, effective)
    assert accepted.mean() < 1.5 * rate
    assert threshold_of(1e-6, 1000, DIM) > threshold_of(1e-6, 10, DIM) > threshold_of(1e-3, 10, DIM)


def test_a_gallery_is_sealed_and_forgets_at_once(tmp_path: Path) -> None:
    path, everybody = tmp_path / "faces", people(3)
    faces = gallery(path)
    for i in range(3):
        faces.enrol(f"account {i}", f"Name {i}", everybody[i])
    sealed = path.read_bytes()
    assert b"account" not in sealed and everybody[0].astype("<f4").tobytes() not in sealed
    assert path.stat().st_mode & 0o077 == 0
    with open(path, "rb") as before:
        again = gallery(path)
        assert len(again) == 3 and "account 1" in again
        assert again.delete("account 1") and not again.delete("account 1")
        assert set(before.read()) == {0}, "what lay there before is overwritten"
    assert reason(again.verify(request(face_token(everybody[1]), "face"))) == "face not known"
    assert reason(gallery(path).verify(request(face_token(everybody[2]), "face"))) == "good"
    with pytest.raises(FusionError, match="under this key"):
        marks = Marks(tmp_path / "used.sqlite")
        FaceGallery(path, b"x" * 32, dim=DIM, effective_dim=DIM, false_accept_rate=1e-6, marks=marks)
    damaged = bytearray(path.read_bytes())
    damaged[40] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(FusionError, match="faces"):
        gallery(path)
    with pytest.raises(ValueError, match="want 128 finite numbers"):
        faces.enrol("x", "X", np.zeros(DIM))
