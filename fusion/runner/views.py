"""What engineers look at a run with: a Rerun recording and an MCAP file, as far as a run's settings ask for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from fusion.observations import Observation
from fusion.runner.settings import RunSettings
from fusion.show.mcap_view import McapView
from fusion.show.rerun_view import View
from fusion.store.models import Store


def open_views(settings: RunSettings, store: Store) -> list[View | McapView]:
    """The views that are asked for, which are sinks as well. Raises FusionError where one cannot be written."""
    views: list[View | McapView] = []
    for path, kind in ((settings.view, View), (settings.mcap, McapView)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            views.append(kind(path, store))
    return views


def viewed(observations: Iterable[Observation], views: Sequence[View | McapView]) -> Iterator[Observation]:
    """The observations; each goes into the views as well."""
    for observation in observations:
        for view in views:
            view.observe(observation)
        yield observation
