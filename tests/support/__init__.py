"""Helpers that several tests share: local servers, tiny models, a scripted engine."""
