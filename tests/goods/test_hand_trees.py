"""The learnt correction of the hands: whole trees, and those of the training whose figures are published."""

from __future__ import annotations

import hashlib

from fusion.goods.hand_trees import INF, TRAINED, TREES


def test_every_tree_has_seven_nodes_and_eight_leaves() -> None:
    least, greatest = TRAINED
    assert len(least) == len(greatest) and all(low < high for low, high in zip(least, greatest))
    for *nodes, leaves in TREES:
        assert len(nodes) == 7 and len(leaves) == 8
        for feature, threshold in nodes:
            # A node that does not split sends all to the left; any other one splits within what training saw.
            assert threshold == INF or least[feature] <= threshold <= greatest[feature]


def test_the_trees_are_those_that_were_measured() -> None:
    """Whoever trains again publishes new figures (`python -m bench hands`), and notes the new digest here."""
    digest = hashlib.sha256(repr((TRAINED, TREES)).encode()).hexdigest()
    assert digest == "34689aa4950c44be610b4f343d67ccda5d82226f68af40a165f7f96285390d5c"
