"""Adapters for other projects, imported only on demand.

nerfstudio needs none: every encoding has `in_dim`, `get_out_dim()` and takes any leading dimensions, so it can be given
to a `NeRFField` as it is; wrap one that lives on the unit cube in :class:`~neuralfield.encodings.Bounded`, because
positions there are raw world coordinates.
"""
