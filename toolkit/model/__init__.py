"""What should happen: stochastic Petri nets fitted to samples, solved exactly or simulated, and held against runs."""
