"""The retriever, one of the two learners: encoders, indexes, search and contrastive training.

Import the modules themselves: `dense` needs torch and FAISS, `bm25` and `oracle` do not.
"""
