"""What inspecting a frame takes of this machine, told before work starts and measured when it is done.

`trial` runs a graph on a few batches of tiles and everything else of an inspection once, and computes the rest;
`measure` inspects whole frames of a sealed bundle at a line's pace. Both run in a process of their own, whose peak is
then the inspection's and nobody else's. `budget` holds the figures against what is wanted.
"""
