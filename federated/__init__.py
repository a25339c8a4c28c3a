"""The training layer: tasks, rounds and plugins on top of the overlay."""
