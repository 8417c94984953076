"""For whoever writes a destination: receivers that misbehave on request, and one suite that says whether it is right.

* ``conformance.run_conformance`` - the suite, and the promise it checks;
* ``peer`` - what the suite asks of a receiver; ``faults`` and ``certificates`` - servers to build one on;
* ``hec_peer``, ``local_peers`` ... - receivers for the destinations of this package;
* ``reference`` - the shortest destination that is right, and chaos around any other;
* ``events`` - ordinary, hostile and poisonous events.

Nothing is imported here, so that each part brings only what it needs (certificates need ``trustme``).
"""
