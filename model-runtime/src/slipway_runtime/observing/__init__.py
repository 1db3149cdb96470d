"""What a runtime notices of its own work: values against their reference, steps of requests, records.

Nothing in here may slow or fail a request: memory is bounded, work is done for many rows at once
and within a share of the processor's time, and what does not fit is left out and counted.
"""
