"""What a passage is worth to an agent: relevance by a judge, correctness by continuing from it.

`label` turns trajectories into utilities and training examples; the other modules are its
parts, each usable alone: `candidates`, `subanswers`, `judge`, `continuation`, `select`.
"""
