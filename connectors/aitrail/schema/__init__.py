"""The schema as data and as documents: the field catalog, its views, and the OCSF and ECS exports of an event.

``catalog`` reads what ``AccessEvent`` says about its fields; everything else here is derived from it.
"""
