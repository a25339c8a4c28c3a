"""How long computing takes in virtual time, on a fast node. Training's median is the scenario's."""

SPREAD = 0.3  # sigma of the log-normal distribution of training times
EVALUATE = 0.005  # seconds to measure a model
VALIDATE = 0.002  # seconds to check one update
AGGREGATE = 0.02  # seconds to make one model of all updates
OTHER = 0.0005  # seconds to hash or decode a model
