"""The request's way (`pipeline.py`, read it first) and the operator's use cases."""
