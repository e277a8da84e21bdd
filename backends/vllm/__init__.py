"""The composed system inside an unmodified vLLM, through its public plug-in points."""
