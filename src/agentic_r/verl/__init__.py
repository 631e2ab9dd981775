"""Beyond one node: verl's distributed engine with this product's protocol, retriever and reward.

`folder` writes what verl reads; `loop`, `reward` and `preflight` are run by verl's own environment,
where neither faiss nor an encoder is needed.
"""
