"""What a run is: the model of a scenario, and the library of them."""
