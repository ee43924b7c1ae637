"""Measuring backends so that the numbers can be believed."""
