"""What the cluster should hold: observed state in, Plan out.

Pure: no I/O, no clock, no chance; ``now`` is part of what was observed. The room
``cluster`` gathers what is planned on and carries a Plan out; ``controllers`` says when.
"""
