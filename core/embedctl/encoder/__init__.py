"""Turning texts into vectors in this process, over a sentence-transformers model.

Imports torch, transformers, sentence-transformers and numpy, and of ours only `records` and `errors`, so that
it runs alone on a bare GPU machine.
"""
