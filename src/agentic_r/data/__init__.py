"""Corpora and questions: what comes from files."""

from agentic_r.data.corpus import Corpus
from agentic_r.data.questions import Hop, Questions, hop_asked, hops, load_questions

__all__ = ["Corpus", "Hop", "Questions", "hop_asked", "hops", "load_questions"]
