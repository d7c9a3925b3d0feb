"""How the miniatures are trained: the loop that all stages share, and a file for each network."""
