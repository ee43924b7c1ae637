"""Looking for what commonly goes wrong: facts on one side, judgements with remedies on the other."""

from embedctl.doctor.examination import examine

__all__ = ["examine"]
