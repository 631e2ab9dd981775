"""Kinds of entities in the world, and the descriptors that tell namesakes apart."""

from __future__ import annotations

from typing import Literal

Kind = Literal["person", "company", "city", "film", "novel"]

KINDS: tuple[Kind, ...] = ("person", "company", "city", "film", "novel")

DESCRIPTORS: dict[Kind, tuple[str, ...]] = {
    "person": tuple(
        [
            "sculptor",
            "painter",
            "botanist",
            "violinist",
            "chemist",
            "novelist",
            "architect",
            "surgeon",
            "astronomer",
            "boxer",
            "weaver",
            "diplomat",
            "historian",
            "sailor",
            "baker",
            "judge",
        ]
    ),
    "company": tuple(
        f"{trade} company"
        for trade in [
            "shipping",
            "textile",
            "brewing",
            "mining",
            "glass",
            "publishing",
            "railway",
            "paper",
            "perfume",
            "bicycle",
            "timber",
            "insurance",
        ]
    ),
    "city": tuple(
        f"{sort} city"
        for sort in [
            "harbour",
            "mountain",
            "desert",
            "river",
            "island",
            "border",
            "valley",
            "garden",
            "market",
            "university",
        ]
    ),
    "film": tuple(
        f"{genre} film"
        for genre in [
            "drama",
            "comedy",
            "western",
            "silent",
            "horror",
            "war",
            "musical",
            "thriller",
            "fantasy",
            "crime",
        ]
    ),
    "novel": tuple(
        f"{genre} novel"
        for genre in [
            "gothic",
            "pastoral",
            "historical",
            "satirical",
            "nautical",
            "political",
            "romantic",
            "detective",
        ]
    ),
}
