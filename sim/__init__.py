"""The same machines over a virtual clock and a modelled network."""
