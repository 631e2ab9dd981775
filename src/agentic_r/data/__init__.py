"""Corpora and questions: what comes from files."""

from agentic_r.data.corpus import Corpus
from agentic_r.data.datasets import Source, load_beir, load_dataset, load_datasets, load_qrels
from agentic_r.data.questions import Hop, Questions, hop_asked, hops, load_questions

__all__ = [
    "Corpus",
    "Hop",
    "Questions",
    "Source",
    "hop_asked",
    "hops",
    "load_beir",
    "load_dataset",
    "load_datasets",
    "load_qrels",
    "load_questions",
]
